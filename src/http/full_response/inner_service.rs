//! The inner half of a call: it calls the service and lasts until the response's body has ended.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    announced_length::has_no_body,
    channel::{BodyEnd, EndKind, ResponseChannel},
    completed_response::CompletedResponse,
    tracked_request::TrackedRequest,
};
use crate::{deadline, http::RequestHead};

/// The service that the layers of a [`FullResponseLayer`](super::FullResponseLayer) wrap.
#[derive(Clone, Copy, Debug)]
pub struct InnerService<S> {
    inner: S,
}

service_access!(InnerService);

impl<S> InnerService<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, Req, B> Service<TrackedRequest<Req>> for InnerService<S>
where
    S: Service<Req, Response = Response<B>>,
    Req: RequestHead,
    B: Body + Send + 'static,
{
    type Response = CompletedResponse<B>;
    type Error = S::Error;
    type Future = InnerServiceFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, TrackedRequest { request, channel }: TrackedRequest<Req>) -> Self::Future {
        let channel = channel.downcast().expect("the channel was made for this service's responses");
        let method = request.method().clone();
        InnerServiceFuture { state: InnerServiceState::Calling { future: self.inner.call(request), method }, channel }
    }
}

pin_project! {
    /// Future of [`InnerService`].
    pub struct InnerServiceFuture<F, B> {
        #[pin]
        state: InnerServiceState<F>,
        channel: Arc<ResponseChannel<B>>,
    }

    impl<F, B> PinnedDrop for InnerServiceFuture<F, B> {
        fn drop(this: Pin<&mut Self>) {
            // A layer has ended the call, and the body with it.
            if let InnerServiceState::BodyInFlight { head: Some(_) } = &this.state {
                this.channel.break_off();
            }
        }
    }
}

pin_project! {
    #[project = StateProj]
    enum InnerServiceState<F> {
        Calling { #[pin] future: F, method: Method },
        // The caller has the response and is reading its body.
        BodyInFlight { head: Option<(StatusCode, HeaderMap)> },
    }
}

impl<F, B, E> Future for InnerServiceFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<CompletedResponse<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let head = match this.state.as_mut().project() {
                StateProj::Calling { future, method } => {
                    let response = ready!(future.poll(cx))?;
                    let head = (response.status(), response.headers().clone());
                    if response.body().is_end_stream() || has_no_body(method, response.status()) {
                        this.channel.send_body_end(BodyEnd::default());
                    }
                    this.channel.send_response(response);
                    head
                }
                StateProj::BodyInFlight { head } => {
                    let end = match this.channel.poll_body_end(cx) {
                        Poll::Ready(end) => end,
                        // The limit is about to end the call, but not because of the service.
                        Poll::Pending if is_overdue(this.channel) && this.channel.break_off_unread() => {
                            BodyEnd::of_kind(EndKind::Unread)
                        }
                        Poll::Pending => return Poll::Pending,
                    };
                    let (status, headers) = head.take().expect("polled after completion");
                    return Poll::Ready(Ok(CompletedResponse::new(status, headers, end)));
                }
            };
            this.state.set(InnerServiceState::BodyInFlight { head: Some(head) });
        }
    }
}

/// Whether a time limit around the call has passed while the caller did not read the body.
fn is_overdue<B>(channel: &ResponseChannel<B>) -> bool {
    channel.is_unread() && deadline::remaining().is_some_and(|left| left.is_zero())
}

impl<F, B> fmt::Debug for InnerServiceFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InnerServiceFuture").finish_non_exhaustive()
    }
}
