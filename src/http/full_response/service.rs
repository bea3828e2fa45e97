//! The outer end: a call that is answered when the headers are there.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::Response;
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::{CompletedResponse, FullResponseBody, InnerService, TrackedRequest, inside::Slot};

/// Puts layers around a service so that they cover its whole responses. See the [module docs](super).
#[derive(Clone, Copy, Debug)]
pub struct FullResponseLayer<L> {
    layers: L,
}

impl<L> FullResponseLayer<L> {
    /// Wraps `layers`: breakers, bulkheads, timeouts, limiters, but no retry.
    pub const fn new(layers: L) -> Self {
        Self { layers }
    }
}

impl<S, L> Layer<S> for FullResponseLayer<L>
where
    L: Layer<InnerService<S>>,
{
    type Service = FullResponse<L::Service>;

    fn layer(&self, inner: S) -> Self::Service {
        FullResponse { inner: self.layers.layer(InnerService::new(inner)) }
    }
}

/// Service made by [`FullResponseLayer`].
#[derive(Clone, Copy, Debug)]
pub struct FullResponse<S> {
    inner: S,
}

service_access!(FullResponse);

impl<S, Req, B> Service<Req> for FullResponse<S>
where
    S: Service<TrackedRequest<Req>, Response = CompletedResponse<B>>,
    B: Body + Send + 'static,
{
    type Response = Response<FullResponseBody<S::Future, B>>;
    type Error = S::Error;
    type Future = FullResponseFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 2 allocations; a copy of the headers, later, is the third.
    fn call(&mut self, request: Req) -> Self::Future {
        let slot = Arc::new(Slot::<B>::new());
        let call = self.inner.call(TrackedRequest { request, slot: slot.clone() });
        FullResponseFuture { call: Some(Box::pin(call)), slot }
    }
}

/// Future of [`FullResponse`].
pub struct FullResponseFuture<F, B> {
    /// Boxed, since it moves on into the response's body.
    call: Option<Pin<Box<F>>>,
    slot: Arc<Slot<B>>,
}

impl<F, B, E> Future for FullResponseFuture<F, B>
where
    F: Future<Output = Result<CompletedResponse<B>, E>>,
    B: Body,
{
    type Output = Result<Response<FullResponseBody<F, B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let call = this.call.as_mut().expect("polled after it ended");
        let over = match call.as_mut().poll(cx) {
            Poll::Ready(Ok(_answered)) => true,
            Poll::Ready(Err(error)) => {
                this.call = None;
                return Poll::Ready(Err(error));
            }
            Poll::Pending => false,
        };
        match this.slot.take(cx) {
            Some(response) => {
                let call = this.call.take().filter(|_| !over);
                let status = response.status();
                let slot = this.slot.clone();
                Poll::Ready(Ok(response.map(|body| FullResponseBody::new(body, call.map(|call| (call, slot)), status))))
            }
            None if over => unreachable!("only the service within makes an `CompletedResponse`, after its response"),
            None => Poll::Pending,
        }
    }
}

impl<F, B> fmt::Debug for FullResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullResponseFuture").finish_non_exhaustive()
    }
}
