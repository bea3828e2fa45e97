//! Adapts the errors of HTTP clients.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{ErrorOrigin, TransportError};
use crate::{
    clock, deadline,
    error::{Error, Rejection},
};

/// The name of the timeout in the rejection of a call that a client ended itself.
pub(super) const CLIENT: &str = "client";

/// Turns an HTTP client's error `E` into [`Error<E>`], and the client's own timeouts into
/// rejections. This is the innermost layer, directly around the client.
///
/// It is an [`AdaptErrorLayer`](crate::AdaptErrorLayer) for errors that are [`TransportError`]s. A
/// time limit that the client enforces itself (tonic's `Endpoint::timeout` and
/// `Request::set_timeout`, reqwest's `timeout` and `read_timeout`) ends a call like a
/// [`Timeout`](crate::timeout): with [`Rejection::TimedOut`], here of the timeout `client`. `after`
/// is the time that the call took. It is [cut short](Rejection::TimedOut::cut_short) if the
/// deadline of a [`scope`](crate::deadline::scope) has passed. A connect timeout is an error of the
/// client's: nothing was sent.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_rampart::http::AdaptClientErrorLayer;
///
/// # #[cfg(feature = "reqwest")]
/// let client = ServiceBuilder::new().layer(AdaptClientErrorLayer::new()).service(reqwest::Client::new());
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct AdaptClientErrorLayer {}

impl AdaptClientErrorLayer {
    /// Creates the layer. It has no settings.
    pub const fn new() -> Self {
        Self {}
    }
}

impl<S> Layer<S> for AdaptClientErrorLayer {
    type Service = AdaptClientError<S>;

    fn layer(&self, inner: S) -> AdaptClientError<S> {
        AdaptClientError { inner }
    }
}

/// Service made by [`AdaptClientErrorLayer`].
#[derive(Clone, Copy, Debug)]
pub struct AdaptClientError<S> {
    inner: S,
}

service_access!(AdaptClientError);

impl<S, Req> Service<Req> for AdaptClientError<S>
where
    S: Service<Req>,
    S::Error: TransportError,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = AdaptClientFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Service)
    }

    // 1 clock read for a call that is not ready immediately.
    fn call(&mut self, request: Req) -> Self::Future {
        AdaptClientFuture { inner: self.inner.call(request), started: None }
    }
}

pin_project! {
    /// Future of [`AdaptClientError`].
    pub struct AdaptClientFuture<F> {
        #[pin]
        inner: F,
        // The time of the first poll, in nanoseconds, once it has returned pending.
        started: Option<u64>,
    }
}

impl<F, T, E> Future for AdaptClientFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: TransportError,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.inner.poll(cx) {
            Poll::Ready(Ok(response)) => Poll::Ready(Ok(response)),
            Poll::Ready(Err(error)) => Poll::Ready(Err(adapt(error, *this.started))),
            Poll::Pending => {
                this.started.get_or_insert_with(clock::nanos);
                Poll::Pending
            }
        }
    }
}

#[cold]
fn adapt<E: TransportError>(error: E, started: Option<u64>) -> Error<E> {
    if error.origin() != ErrorOrigin::TimedOut {
        return Error::Service(error);
    }
    let elapsed = started.map_or(Duration::ZERO, |at| Duration::from_nanos(clock::nanos().saturating_sub(at)));
    Error::Rejected(if deadline::callers_has_passed() {
        Rejection::cut_short(CLIENT, elapsed)
    } else {
        Rejection::timed_out(CLIENT, elapsed, true)
    })
}

impl<F> fmt::Debug for AdaptClientFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptClientFuture").finish_non_exhaustive()
    }
}
