//! Future of [`CircuitBreakerService`](super::CircuitBreakerService).

use std::future::Future;

use super::{
    admitted::AdmittedCall,
    inner::{BreakerOwner, CircuitBreakerInner},
};
use crate::{
    call::{Guarded, LeafCall, Rejectable, WithShared, response_future},
    classify::Classify,
    error::{AsRejection, Rejection},
    shared::striped::StripedRef,
};

response_future! {
    /// A call that is admitted or rejected.
    ///
    /// Dropping it before it completes cancels the call and releases its probe slot, if it has one.
    /// A cancelled call does not count unless it was slow already. A panic of the service counts as
    /// a failure, also if it is caught before the future is dropped.
    pub struct ResponseFuture<F, C> =
        Rejectable<WithShared<BreakerOwner<StripedRef<CircuitBreakerInner>, C>, Guarded<LeafCall<F>, AdmittedCall>>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection> + AsRejection, C: Classify<T, E>] -> Result<T, E>;
}
