//! The outer half of a call: it returns the response as soon as the headers arrive.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::Response;
use http_body::Body;
use tower_service::Service;

use super::{
    body::{CoveredCall, FullResponseBody},
    channel::ResponseChannel,
    completed_response::CompletedResponse,
    tracked_request::TrackedRequest,
};

/// Service made by [`FullResponseLayer`](super::FullResponseLayer).
#[derive(Clone, Copy, Debug)]
pub struct FullResponse<S> {
    inner: S,
}

service_access!(FullResponse);

impl<S> FullResponse<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

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

    // 2 allocations; the third is the copy of the headers when the response arrives.
    fn call(&mut self, request: Req) -> Self::Future {
        let channel = Arc::new(ResponseChannel::<B>::new());
        let call = self.inner.call(TrackedRequest { request, channel: channel.clone() });
        FullResponseFuture { call: Some(Box::pin(call)), channel }
    }
}

/// Future of [`FullResponse`].
pub struct FullResponseFuture<F, B> {
    /// Boxed, because it moves into the response's body.
    call: Option<Pin<Box<F>>>,
    channel: Arc<ResponseChannel<B>>,
}

impl<F, B, E> Future for FullResponseFuture<F, B>
where
    F: Future<Output = Result<CompletedResponse<B>, E>>,
    B: Body,
{
    type Output = Result<Response<FullResponseBody<F, B>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let call = this.call.as_mut().expect("polled after completion");
        let is_complete = match call.as_mut().poll(cx) {
            Poll::Ready(Ok(_completed)) => true,
            Poll::Ready(Err(error)) => {
                this.call = None;
                return Poll::Ready(Err(error));
            }
            Poll::Pending => false,
        };
        match this.channel.poll_response(cx) {
            Poll::Ready(response) => {
                let call = this.call.take().filter(|_| !is_complete);
                let call = call.map(|call| CoveredCall { call, channel: this.channel.clone() });
                let status = response.status();
                Poll::Ready(Ok(response.map(|body| FullResponseBody::new(body, call, status))))
            }
            Poll::Pending if is_complete => {
                unreachable!("only `InnerService` makes a `CompletedResponse`, after it sent the response")
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F, B> fmt::Debug for FullResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullResponseFuture").finish_non_exhaustive()
    }
}
