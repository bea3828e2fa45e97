//! Future of [`TimeoutService`](super::TimeoutService).

use std::future::Future;

use super::timed::{Alone, Timed, Voice};
use crate::{
    error::Rejection,
    lent::{Bare, Owned, response_future},
};

response_future! {
    /// A call with a limit of time.
    ///
    /// When the limit is reached the inner future is dropped first, and the error is returned then.
    pub struct ResponseFuture<F> =
        Owned<Voice, Timed<Bare<F>, Alone>>;
    impl<T, E> where [F: Future<Output = Result<T, E>>, E: From<Rejection>] -> Result<T, E>;
}
