use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ::http::Response;
use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::classify::verdict_for_status;
use crate::classify::Verdict;

/// Reads the rest of a failed response's body when it is dropped, so that its HTTP/1.1 connection
/// can be reused.
///
/// A retry drops a failed response before it waits, and an HTTP/1.1 connection must be closed if
/// its response was not read to the end. Against a service that returns thousands of 503s, this
/// means as many new connections at the worst time. hyper already reads the part of the body that
/// has arrived, which for most error pages is all of it, and HTTP/2 does not have the problem. The
/// layer is therefore optional, for servers whose error pages are large or late.
///
/// Place it inside the retry. A spawned task reads the rest, up to a limit in bytes and time: 64
/// KiB and one second by default. Beyond that, a new connection is cheaper. Responses that
/// [`HttpClassifier`](super::HttpClassifier)'s table counts as success are left alone, as is every
/// response dropped outside a tokio runtime.
///
/// # Panics
///
/// The response future panics when a failed response arrives in a tokio runtime without time.
#[derive(Clone, Copy, Debug)]
pub struct DrainLayer {
    bytes: u64,
    time: Duration,
}

impl DrainLayer {
    /// Reads up to 64 KiB, for up to one second.
    pub const fn new() -> Self {
        Self { bytes: 64 * 1024, time: Duration::from_secs(1) }
    }

    /// Sets how many bytes are read, and for how long.
    pub const fn limit(mut self, bytes: u64, time: Duration) -> Self {
        (self.bytes, self.time) = (bytes, time);
        self
    }
}

impl Default for DrainLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for DrainLayer {
    type Service = Drain<S>;

    fn layer(&self, inner: S) -> Drain<S> {
        Drain { inner, layer: *self }
    }
}

/// Service made by [`DrainLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Drain<S> {
    inner: S,
    layer: DrainLayer,
}

service_access!(Drain);

impl<S, Req, B> Service<Req> for Drain<S>
where
    S: Service<Req, Response = Response<B>>,
    B: Body + Unpin + Send + 'static,
{
    type Response = Response<DrainBody<B>>;
    type Error = S::Error;
    type Future = DrainFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        DrainFuture { inner: self.inner.call(request), layer: self.layer }
    }
}

pin_project! {
    /// Future of [`Drain`].
    pub struct DrainFuture<F> {
        #[pin]
        inner: F,
        layer: DrainLayer,
    }
}

impl<F, B, E> Future for DrainFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body + Unpin + Send + 'static,
{
    type Output = Result<Response<DrainBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.inner.poll(cx))?;
        let failed = verdict_for_status(response.status()) != Verdict::Success;
        let layer = failed.then_some(*this.layer);
        if failed && tokio::runtime::Handle::try_current().is_ok() {
            // Panics if the runtime has no time: better here than in the task that drains.
            drop(tokio::time::sleep(Duration::ZERO));
        }
        Poll::Ready(Ok(response.map(|body| DrainBody { inner: Some(body), layer, broken: false })))
    }
}

impl<F> fmt::Debug for DrainFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainFuture").finish_non_exhaustive()
    }
}

/// The response body of [`Drain`].
pub struct DrainBody<B>
where
    B: Body + Unpin + Send + 'static,
{
    inner: Option<B>,
    layer: Option<DrainLayer>,
    broken: bool,
}

impl<B> Body for DrainBody<B>
where
    B: Body + Unpin + Send + 'static,
{
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let Some(body) = &mut self.inner else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        self.broken |= matches!(polled, Poll::Ready(Some(Err(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, B::size_hint)
    }
}

impl<B> Drop for DrainBody<B>
where
    B: Body + Unpin + Send + 'static,
{
    fn drop(&mut self) {
        let (Some(body), Some(layer)) = (self.inner.take(), self.layer) else { return };
        if self.broken || body.is_end_stream() || body.size_hint().lower() > layer.bytes {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            // The body is dropped in any case: at its end, or when a limit is reached.
            runtime.spawn(async move {
                let _ = tokio::time::timeout(layer.time, drain(body, layer.bytes)).await;
            });
        }
    }
}

async fn drain<B: Body + Unpin>(mut body: B, mut left: u64) {
    while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        if let Some(data) = frame.data_ref() {
            match left.checked_sub(data.remaining() as u64) {
                Some(less) => left = less,
                None => return,
            }
        }
    }
}

impl<B> fmt::Debug for DrainBody<B>
where
    B: Body + Unpin + Send + 'static,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DrainBody").finish_non_exhaustive()
    }
}
