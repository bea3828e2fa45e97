//! Future of [`CircuitBreakerService`](super::CircuitBreakerService).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

use super::inner::{Call, Inner};
use crate::{classify::Classify, error::Rejection, guarded::Guarded, hold::Hold};

pin_project! {
    /// A call that was let in, or refused.
    ///
    /// Dropping it before it ended cancels the call: that counts as nothing, unless the call was slow already, and
    /// gives a probe's place back.
    pub struct ResponseFuture<F, C> {
        #[pin]
        inner: Guarded<F, Call<Hold<Inner>, C>>,
    }
}

impl<F, C> ResponseFuture<F, C> {
    pub(super) fn new(inner: Guarded<F, Call<Hold<Inner>, C>>) -> Self {
        Self { inner }
    }
}

impl<F, C, T, E> Future for ResponseFuture<F, C>
where
    F: Future<Output = Result<T, E>>,
    E: From<Rejection>,
    C: Classify<T, E>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<F, C> fmt::Debug for ResponseFuture<F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
