use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_layer::Layer;
use tower_service::Service;

use crate::{BoxError, timeout::Timeout};

/// Breaks a response's body off when its next frame does not arrive in time.
///
/// The timer runs only while the reader waits for a frame, so a slow reader does not trip it. The
/// error is the timeout's [`Rejection`](crate::Rejection), boxed. The layer works on its own;
/// inside a [`FullResponseLayer`](super::FullResponseLayer), a circuit breaker sees that the body
/// broke off.
///
/// # Panics
///
/// Polling a body that is not ready panics outside of a tokio runtime with time enabled.
#[derive(Clone, Debug)]
pub struct BodyTimeoutLayer {
    timeout: Timeout,
}

impl BodyTimeoutLayer {
    /// Limits the wait for each frame of a body to the limit of `timeout`.
    pub fn new(timeout: &Timeout) -> Self {
        Self { timeout: timeout.clone() }
    }
}

impl<S> Layer<S> for BodyTimeoutLayer {
    type Service = BodyTimeout<S>;

    fn layer(&self, inner: S) -> BodyTimeout<S> {
        BodyTimeout { inner, timeout: self.timeout.clone() }
    }
}

/// Service made by [`BodyTimeoutLayer`].
#[derive(Clone, Debug)]
pub struct BodyTimeout<S> {
    inner: S,
    timeout: Timeout,
}

service_access!(BodyTimeout);

impl<S, Req, B> Service<Req> for BodyTimeout<S>
where
    S: Service<Req, Response = Response<B>>,
{
    type Response = Response<TimedBody<B>>;
    type Error = S::Error;
    type Future = BodyTimeoutFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        BodyTimeoutFuture { inner: self.inner.call(request), timeout: self.timeout.clone() }
    }
}

pin_project! {
    /// Future of [`BodyTimeout`].
    pub struct BodyTimeoutFuture<F> {
        #[pin]
        inner: F,
        timeout: Timeout,
    }
}

impl<F, B, E> Future for BodyTimeoutFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<TimedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let timeout = Some(this.timeout.clone());
        Poll::Ready(Ok(response.map(|body| TimedBody { body, timeout, sleep: None })))
    }
}

impl<F> fmt::Debug for BodyTimeoutFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyTimeoutFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// The response body of [`BodyTimeout`].
    pub struct TimedBody<B> {
        #[pin]
        body: B,
        // `None` once the body was broken off, or if it has no limit.
        timeout: Option<Timeout>,
        sleep: Option<Pin<Box<Sleep>>>,
    }
}

impl<B> Body for TimedBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            *this.sleep = None;
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let Some(timeout) = this.timeout else { return Poll::Pending };
        let limit = timeout.limit();
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(sleep.as_mut().poll(cx));
        let rejection = timeout.reject(limit);
        *this.timeout = None;
        Poll::Ready(Some(Err(rejection.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B: Default> Default for TimedBody<B> {
    fn default() -> Self {
        Self { body: B::default(), timeout: None, sleep: None }
    }
}

impl<B: From<String>> From<String> for TimedBody<B> {
    fn from(text: String) -> Self {
        Self { body: text.into(), timeout: None, sleep: None }
    }
}

impl<B> fmt::Debug for TimedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedBody").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}
