//! Futures of [`BulkheadService`](super::BulkheadService).

use std::future::Future;

use tower_service::Service;

use super::inner::{Acquire, Inner, Permitted};
use crate::{
    error::Rejection,
    guarded::{Deferred, Guarded},
    hold::Hold,
    lent::{Bare, Owned, response_future},
};

response_future! {
    /// A call that was let in, or refused.
    ///
    /// The permit comes home when the call ends or when the future is dropped, whichever is first.
    pub struct ResponseFuture<F> =
        Owned<Option<Hold<Inner>>, Guarded<Bare<F>, Permitted>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}

response_future! {
    /// A call that waits for its permit first, if it has to.
    ///
    /// Dropping it while it waits leaves the queue; the request was never sent.
    pub struct WaitFuture<S, Req> where [S: Service<Req>] =
        Owned<Option<Hold<Inner>>, Deferred<Bare<S>, Req, Acquire<Hold<Inner>>, Bare<S::Future>, Permitted>>;
    impl<> where [S: Service<Req>, S::Error: From<Rejection>] -> Result<S::Response, S::Error>;
}
