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
    body::FullResponseBody, channel::ResponseChannel, completed_response::CompletedResponse, covered_call::CoveredCall,
    tracked_request::TrackedRequest,
};
use crate::AsRejection;

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
    S::Future: Send + 'static,
    S::Error: AsRejection + fmt::Display + Send,
    B: Body + Send + 'static,
{
    type Response = Response<FullResponseBody<B>>;
    type Error = S::Error;
    type Future = FullResponseFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 2 allocations. When the response arrives, its headers are copied, and a body that has not
    // ended takes 2 more.
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
    F: Future<Output = Result<CompletedResponse<B>, E>> + Send + 'static,
    E: AsRejection + fmt::Display + Send,
    B: Body + Send + 'static,
{
    type Output = Result<Response<FullResponseBody<B>>, E>;

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
                Poll::Ready(this.cover(response, call))
            }
            Poll::Pending if is_complete => {
                unreachable!("only `InnerService` makes a `CompletedResponse`, after it sent the response")
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<F, B, E> FullResponseFuture<F, B>
where
    F: Future<Output = Result<CompletedResponse<B>, E>> + Send + 'static,
    E: AsRejection + fmt::Display + Send,
    B: Body + Send + 'static,
{
    /// Returns the response, with the layers' call in its body if the call is not over.
    fn cover(&self, response: Response<B>, call: Option<Pin<Box<F>>>) -> Result<Response<FullResponseBody<B>>, E> {
        let Some(call) = call else { return Ok(response.map(FullResponseBody::uncovered)) };
        let call = CoveredCall::new(call);
        // From here on the call's timers wake the call itself, not the caller's task.
        call.drive();
        match call.take_output() {
            None => {
                let (head, body) = response.into_parts();
                let body = FullResponseBody::covered(&head, body, call, self.channel.clone());
                Ok(Response::from_parts(head, body))
            }
            Some(Ok(_completed)) => Ok(response.map(FullResponseBody::uncovered)),
            Some(Err(error)) => Err(error),
        }
    }
}

impl<F, B> fmt::Debug for FullResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullResponseFuture").finish_non_exhaustive()
    }
}
