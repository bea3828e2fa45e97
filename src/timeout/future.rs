//! Future of [`TimeoutService`](super::TimeoutService).

use std::future::Future;

use super::timed_call::{Standalone, TimedCall, TimeoutOwner};
use crate::{
    call::{Leaf, WithShared, response_future},
    error::Rejection,
};

response_future! {
    /// A call with a limit of time.
    ///
    /// When the limit is reached the inner future is dropped first, and the error is returned then.
    pub struct ResponseFuture<F> =
        WithShared<TimeoutOwner, TimedCall<Leaf<F>, Standalone>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}
