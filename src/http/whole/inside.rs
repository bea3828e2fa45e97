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
pub(super) struct Slot<B>(Mutex<State<B>>);

struct State<B> {
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
        Self(Mutex::new(State { response: None, outer: None, end: None, inner: None }))
    }

    fn lock(&self) -> MutexGuard<'_, State<B>> {
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
pub struct Tracked<Req> {
    pub(super) request: Req,
    /// A [`Slot`], of the response's body.
    pub(super) slot: Arc<dyn Any + Send + Sync>,
}

impl<Req> Deref for Tracked<Req> {
    type Target = Req;

    fn deref(&self) -> &Req {
        &self.request
    }
}

impl<Req> fmt::Debug for Tracked<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tracked").finish_non_exhaustive()
    }
}

/// A response that has ended, as layers that cover the whole of it see it: without its body, but with how that ended.
/// The classifiers of this module judge it.
pub struct Answered<B> {
    status: StatusCode,
    headers: HeaderMap,
    end: End,
    body: PhantomData<fn() -> B>,
}

impl<B> ResponseHead for Answered<B> {
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

impl<B> fmt::Debug for Answered<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answered")
            .field("status", &self.status)
            .field("broken", &self.end.broken)
            .finish_non_exhaustive()
    }
}

/// The service that the layers of a [`WholeResponseLayer`](super::WholeResponseLayer) are put around.
#[derive(Clone, Copy, Debug)]
pub struct Inside<S> {
    inner: S,
}

service_access!(Inside);

impl<S> Inside<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<S, Req, B> Service<Tracked<Req>> for Inside<S>
where
    S: Service<Req, Response = Response<B>>,
    B: Body + Send + 'static,
{
    type Response = Answered<B>;
    type Error = S::Error;
    type Future = InsideFuture<S::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, Tracked { request, slot }: Tracked<Req>) -> Self::Future {
        let slot = slot.downcast().expect("the slot was made for this service's responses");
        InsideFuture { state: Stage::Calling { future: self.inner.call(request) }, slot }
    }
}

pin_project! {
    /// Future of [`Inside`].
    pub struct InsideFuture<F, B> {
        #[pin]
        state: Stage<F>,
        slot: Arc<Slot<B>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum Stage<F> {
        Calling { #[pin] future: F },
        // The response is on its way out, and its body being read.
        Answering { head: Option<(StatusCode, HeaderMap)> },
    }
}

impl<F, B, E> Future for InsideFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Answered<B>, E>;

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
                    return Poll::Ready(Ok(Answered { status, headers, end, body: PhantomData }));
                }
            };
            this.state.set(Stage::Answering { head: Some(head) });
        }
    }
}

impl<F, B> fmt::Debug for InsideFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InsideFuture").finish_non_exhaustive()
    }
}
