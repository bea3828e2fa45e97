//! Futures of [`BulkheadService`](super::BulkheadService).

use std::future::Future;

use tower_service::Service;

use super::inner::{BulkheadInner, CallPermit, WaitForPermit};
use crate::{
    call::{Guarded, Queued},
    call::{Leaf, WithShared, response_future},
    error::Rejection,
    shared::striped::StripedRef,
};

response_future! {
    /// A call that was let in, or refused.
    ///
    /// The permit comes home when the call ends or when the future is dropped, whichever is first.
    pub struct ResponseFuture<F> =
        WithShared<Option<StripedRef<BulkheadInner>>, Guarded<Leaf<F>, CallPermit>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}

response_future! {
    /// A call that waits for its permit first, if it has to.
    ///
    /// Dropping it while it waits leaves the queue; the request was never sent.
    pub struct WaitFuture<S, Req> where [S: Service<Req>] =
        WithShared<Option<StripedRef<BulkheadInner>>, Queued<Leaf<S>, Req, WaitForPermit<StripedRef<BulkheadInner>>, Leaf<S::Future>, CallPermit>>;
    impl<> where [S: Service<Req>, S::Error: From<Rejection>] -> Result<S::Response, S::Error>;
}
