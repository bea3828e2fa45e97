//! Futures of [`RateLimitService`](super::RateLimitService).

use std::future::Future;

use tower_service::Service;

use super::inner::{Inner, Pace, Passed};
use crate::{
    error::Rejection,
    guarded::{Deferred, Guarded},
    hold::Hold,
    lent::{Bare, Owned, response_future},
};

response_future! {
    /// A call that was let in, or refused.
    ///
    /// Its tokens are spent, however it ends.
    pub struct ResponseFuture<F> =
        Owned<Option<Hold<Inner>>, Guarded<Bare<F>, Passed>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}

response_future! {
    /// A call that waits for its tokens first, if it has to.
    ///
    /// Dropping it while it waits gives the tokens back; the request was never sent.
    pub struct WaitFuture<S, Req> where [S: Service<Req>] =
        Owned<Option<Hold<Inner>>, Deferred<Bare<S>, Req, Pace<Hold<Inner>>, Bare<S::Future>, Passed>>;
    impl<> where [S: Service<Req>, S::Error: From<Rejection>] -> Result<S::Response, S::Error>;
}
