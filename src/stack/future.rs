//! Futures of the stacks' services.

use tower_service::Service;

use super::{
    client::CallSite,
    layers::{Attempts, BreakerCall, BulkheadCall, RateLimitCall, WithBreaker, WithBulkhead, WithTimeout},
    parts::{Attempt, StackParts, Total},
};
use crate::{
    call::{Leaf, WithShared, response_future},
    classify::Classify,
    error::Rejection,
    request::Repeat,
    retry::RetryCall,
    shared::striped::StripedRef,
    timeout::{Standalone, TimedCall},
};

type AttemptOf<S> = WithBulkhead<WithTimeout<Leaf<S>>>;

/// An attempt, from the rate limiter inwards.
type AttemptCall<S, F, Req> = RateLimitCall<
    WithBreaker<AttemptOf<S>>,
    Req,
    BreakerCall<BulkheadCall<WithTimeout<Leaf<S>>, Req, TimedCall<Leaf<F>, Attempt>>>,
>;

/// A request, from the rate limiter inwards.
type ServedCall<S, F, Req> =
    RateLimitCall<WithBreaker<WithBulkhead<Leaf<S>>>, Req, BreakerCall<BulkheadCall<Leaf<S>, Req, Leaf<F>>>>;

response_future! {
    /// Future of [`ClientService`](super::ClientService).
    ///
    /// Dropping it cancels the attempt that is running, or the wait for the next; whatever the parts hold for it comes
    /// home.
    pub struct ClientFuture<S, Req, C, Q> where [S: Service<Req>] = WithShared<
        StripedRef<CallSite<S, C, Q>>,
        TimedCall<RetryCall<AttemptCall<S, S::Future, Req>, Attempts<Leaf<S>>, Req, S::Error>, Total>,
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
        WithShared<StripedRef<StackParts<C>>, TimedCall<ServedCall<S, S::Future, Req>, Standalone>>;
    impl<> where [
        S: Service<Req> + Clone,
        S::Error: From<Rejection>,
        C: Classify<S::Response, S::Error>,
    ] -> Result<S::Response, S::Error>;
}
