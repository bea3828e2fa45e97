//! The inner end: a call that lasts until the body has ended.

use std::{
    any::Any,
    fmt,
    future::Future,
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use ::http::{HeaderMap, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower_service::Service;

use crate::http::ResponseHead;

/// What the two ends of one call share.
pub(super) struct Slot<B>(Mutex<SlotState<B>>);

struct SlotState<B> {
    /// On its way out.
    response: Option<Response<B>>,
    /// Of the outer end, while it waits for the response.
    outer: Option<Waker>,
    end: Option<End>,
    /// Of the inner end, while it waits for the body's end.
    inner: Option<Waker>,
}

/// How a body ended.
#[derive(Default)]
pub(super) struct End {
    pub(super) trailers: Option<HeaderMap>,
    pub(super) broken: bool,
}

impl<B> Slot<B> {
    pub(super) fn new() -> Self {
        Self(Mutex::new(SlotState { response: None, outer: None, end: None, inner: None }))
    }

    fn lock(&self) -> MutexGuard<'_, SlotState<B>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, response: Response<B>) {
        let waker = {
            let mut state = self.lock();
            state.response = Some(response);
            state.outer.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The response, if it is there; else has the task woken when it comes.
    pub(super) fn take(&self, cx: &mut Context<'_>) -> Option<Response<B>> {
        let mut state = self.lock();
        let response = state.response.take();
        if response.is_none() {
            state.outer = Some(cx.waker().clone());
        }
        response
    }

    pub(super) fn end(&self, end: End) {
        let waker = {
            let mut state = self.lock();
            state.end = Some(end);
            state.inner.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll_end(&self, cx: &mut Context<'_>) -> Poll<End> {
        let mut state = self.lock();
        match state.end.take() {
            Some(end) => Poll::Ready(end),
            None => {
                state.inner = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A request on its way through layers that cover the whole response.
///
/// Derefs to the request, for layers that look into it. Not `Clone`: it is sent once.
pub struct TrackedRequest<Req> {
    pub(super) request: Req,
    /// A [`Slot`], of the response's body.
    pub(super) slot: Arc<dyn Any + Send + Sync>,
}

impl<Req> Deref for TrackedRequest<Req> {
    type Target = Req;

    fn deref(&self) -> &Req {
        &self.request
    }
}

impl<Req> fmt::Debug for TrackedRequest<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedRequest").finish_non_exhaustive()
    }
}

/// A response that has ended, as layers that cover the whole of it see it: without its body, but with how that ended.
/// The classifiers of this module judge it.
pub struct CompletedResponse<B> {
    status: StatusCode,
    headers: HeaderMap,
    end: End,
    body: PhantomData<fn() -> B>,
}

impl<B> ResponseHead for CompletedResponse<B> {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.end.trailers.as_ref()
    }

    fn is_broken(&self) -> bool {
        self.end.broken
    }
}

impl<B> fmt::Debug for CompletedResponse<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletedResponse")
            .field("status", &self.status)
            .field("broken", &self.end.broken)
            .finish_non_exhaustive()
    }
}

/// The service that the layers of a [`FullResponseLayer`](super::FullResponseLayer) are put around.
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
    B: Body + Send + 'static,
{
    type Response = CompletedResponse<B>;
    type Error = S::Error;
    type Future = InnerServiceFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, TrackedRequest { request, slot }: TrackedRequest<Req>) -> Self::Future {
        let slot = slot.downcast().expect("the slot was made for this service's responses");
        InnerServiceFuture { state: InnerServiceState::Calling { future: self.inner.call(request) }, slot }
    }
}

pin_project! {
    /// Future of [`InnerService`].
    pub struct InnerServiceFuture<F, B> {
        #[pin]
        state: InnerServiceState<F>,
        slot: Arc<Slot<B>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum InnerServiceState<F> {
        Calling { #[pin] future: F },
        // The response is on its way out, and its body being read.
        Answering { head: Option<(StatusCode, HeaderMap)> },
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
                StateProj::Calling { future } => {
                    let response = ready!(future.poll(cx))?;
                    let head = (response.status(), response.headers().clone());
                    if response.body().is_end_stream() {
                        this.slot.end(End::default());
                    }
                    this.slot.put(response);
                    head
                }
                StateProj::Answering { head } => {
                    let end = ready!(this.slot.poll_end(cx));
                    let (status, headers) = head.take().expect("polled after it ended");
                    return Poll::Ready(Ok(CompletedResponse { status, headers, end, body: PhantomData }));
                }
            };
            this.state.set(InnerServiceState::Answering { head: Some(head) });
        }
    }
}

impl<F, B> fmt::Debug for InnerServiceFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InnerServiceFuture").finish_non_exhaustive()
    }
}
