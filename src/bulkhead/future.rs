//! Futures of [`BulkheadService`](super::BulkheadService).

use std::future::Future;

use tower_service::Service;

use super::inner::{BulkheadInner, CallPermit, WaitForPermit};
use crate::{
    call::{Guarded, LeafCall, Queued, Rejectable, RejectableLeaf, RejectableLeafCall, WithShared, response_future},
    error::Rejection,
    shared::striped::StripedRef,
};

response_future! {
    /// A call that is admitted or rejected.
    ///
    /// The permit is released when the call completes or when the future is dropped, whichever
    /// comes first.
    pub struct ResponseFuture<F> =
        Rejectable<WithShared<StripedRef<BulkheadInner>, Guarded<LeafCall<F>, CallPermit>>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}

response_future! {
    /// A call that waits for its permit if none is free.
    ///
    /// Dropping it while it waits leaves the queue; the request was not sent.
    pub struct WaitFuture<S, Req> where [S: Service<Req>] = Rejectable<WithShared<
        StripedRef<BulkheadInner>,
        Queued<RejectableLeaf<S>, Req, WaitForPermit<StripedRef<BulkheadInner>>, RejectableLeafCall<S::Future>, CallPermit>,
    >>;
    impl<> where [S: Service<Req>, S::Error: From<Rejection>] -> Result<S::Response, S::Error>;
}
