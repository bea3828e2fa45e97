//! Futures of the stacks' services.

use tower_service::Service;

use super::{
    client::Site,
    lent::{Attempts, Bounded, BoundedCall, Broken, BrokenCall, Limit, LimitedCall},
    parts::{Attempt, Parts, Total},
};
use crate::{
    classify::Classify,
    error::Rejection,
    hold::Hold,
    lent::{Bare, Owned, response_future},
    retry::{Repeat, Repeated},
    timeout::{Alone, Timed},
};

type AttemptOf<S> = Bounded<Limit<Bare<S>>>;

/// An attempt, from the rate limiter inwards.
type AttemptCall<S, F, Req> =
    LimitedCall<Broken<AttemptOf<S>>, Req, BrokenCall<BoundedCall<Limit<Bare<S>>, Req, Timed<Bare<F>, Attempt>>>>;

/// A request, from the rate limiter inwards.
type ServedCall<S, F, Req> = LimitedCall<Broken<Bounded<Bare<S>>>, Req, BrokenCall<BoundedCall<Bare<S>, Req, Bare<F>>>>;

response_future! {
    /// Future of [`ClientService`](super::ClientService).
    ///
    /// Dropping it cancels the attempt that is running, or the wait for the next; whatever the parts hold for it comes
    /// home.
    pub struct ClientFuture<S, Req, C, Q> where [S: Service<Req>] = Owned<
        Hold<Site<S, C, Q>>,
        Timed<Repeated<AttemptCall<S, S::Future, Req>, Attempts<Bare<S>>, Req, S::Error>, Total>,
    >;
    impl<> where [
        S: Service<Req> + Clone,
        S::Error: From<Rejection>,
        C: Classify<S::Response, S::Error>,
        Q: Repeat<Req>,
    ] -> Result<S::Response, S::Error>;
}

response_future! {
    /// Future of [`ServerService`](super::ServerService).
    ///
    /// Dropping it cancels the request; whatever the parts hold for it comes home.
    pub struct ServerFuture<S, Req, C> where [S: Service<Req>] =
        Owned<Hold<Parts<C>>, Timed<ServedCall<S, S::Future, Req>, Alone>>;
    impl<> where [
        S: Service<Req> + Clone,
        S::Error: From<Rejection>,
        C: Classify<S::Response, S::Error>,
    ] -> Result<S::Response, S::Error>;
}
