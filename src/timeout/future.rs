//! Future of [`TimeoutService`](super::TimeoutService).

use std::future::Future;

use super::{
    inner::{Standalone, TimeoutOwner},
    timed_call::TimedCall,
};
use crate::{
    call::{LeafCall, Rejectable, WithShared, response_future},
    error::Rejection,
};

response_future! {
    /// A call with a time limit.
    ///
    /// When the limit is reached, the inner future is dropped before the error is returned.
    pub struct ResponseFuture<F> =
        Rejectable<WithShared<TimeoutOwner, TimedCall<LeafCall<F>, Standalone>>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}
