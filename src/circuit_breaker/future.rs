//! Future of [`CircuitBreakerService`](super::CircuitBreakerService).

use std::future::Future;

use super::inner::{AdmittedCall, BreakerOwner};
use crate::{
    call::Guarded,
    call::{Leaf, WithShared, response_future},
    classify::Classify,
    error::Rejection,
};

response_future! {
    /// A call that was let in, or refused.
    ///
    /// Dropping it before it ended cancels the call: that counts as nothing, unless the call was slow already, and
    /// gives a probe's place back.
    pub struct ResponseFuture<F, C> =
        WithShared<BreakerOwner<C>, Guarded<Leaf<F>, AdmittedCall>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>, C: Classify<T, E>] -> Result<T, E>;
}
