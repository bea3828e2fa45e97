//! The innermost services and calls.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::service::{CallFuture, CallService, Cancel};
use crate::error::Rejection;

/// The innermost service, which shares nothing.
#[derive(Clone, Debug)]
pub(crate) struct Leaf<S> {
    pub(crate) inner: S,
}

impl<S> Leaf<S> {
    #[inline(always)]
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<P: ?Sized, S: Service<Req>, Req> CallService<P, Req> for Leaf<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Call = LeafCall<S::Future>;

    #[inline(always)]
    fn poll_ready(&mut self, _shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, _shared: &P, request: Req) -> Self::Call {
        LeafCall::new(self.inner.call(request))
    }
}

/// Copies an output that is ready. To copy all of `Pending` would cost as much, or more: it would
/// be read in larger pieces than the one that was just written.
#[inline(always)]
fn set_ready<T>(polled: &mut Poll<T>, output: Poll<T>) {
    if let Poll::Ready(output) = output {
        *polled = Poll::Ready(output);
    }
}

pin_project! {
    /// The innermost call.
    pub(crate) struct LeafCall<F> {
        // `None` once it is cancelled.
        #[pin]
        future: Option<F>,
    }
}

impl<F> LeafCall<F> {
    #[inline(always)]
    pub(crate) fn new(future: F) -> Self {
        Self { future: Some(future) }
    }
}

impl<P: ?Sized, F> Cancel<P> for LeafCall<F> {
    #[inline]
    fn cancel(self: Pin<&mut Self>, _shared: &P) {
        self.project().future.set(None);
    }
}

impl<P: ?Sized, F: Future> CallFuture<P> for LeafCall<F> {
    type Output = F::Output;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, _shared: &P, cx: &mut Context<'_>, polled: &mut Poll<F::Output>) {
        let future = self.project().future.as_pin_mut().expect("polled after it completed");
        set_ready(polled, future.poll(cx));
    }
}

/// The innermost service, of several patterns that may reject its calls.
#[derive(Clone, Debug)]
pub(crate) struct RejectableLeaf<S> {
    pub(crate) inner: S,
}

impl<S> RejectableLeaf<S> {
    #[inline(always)]
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<P: ?Sized, S, Req> CallService<P, Req> for RejectableLeaf<S>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = RejectableLeafCall<S::Future>;

    #[inline(always)]
    fn poll_ready(&mut self, _shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline(always)]
    fn call(&mut self, _shared: &P, request: Req) -> Self::Call {
        RejectableLeafCall::Running { future: self.inner.call(request) }
    }
}

pin_project! {
    /// The innermost call, or the rejection by one of the patterns around it.
    #[project = RejectableLeafCallProj]
    pub(crate) enum RejectableLeafCall<F> {
        Running { #[pin] future: F },
        Rejected { rejection: Option<Rejection> },
        // Cancelled.
        Done,
    }
}

impl<F> RejectCall for RejectableLeafCall<F> {
    #[inline(always)]
    fn rejected(rejection: Rejection) -> Self {
        Self::Rejected { rejection: Some(rejection) }
    }
}

impl<P: ?Sized, F> Cancel<P> for RejectableLeafCall<F> {
    #[inline]
    fn cancel(mut self: Pin<&mut Self>, _shared: &P) {
        self.set(Self::Done);
    }
}

impl<P: ?Sized, F, T, E> CallFuture<P> for RejectableLeafCall<F>
where
    F: Future<Output = Result<T, E>>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, _shared: &P, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>) {
        match self.project() {
            RejectableLeafCallProj::Running { future } => set_ready(polled, future.poll(cx)),
            RejectableLeafCallProj::Rejected { rejection } => *polled = reject(rejection),
            RejectableLeafCallProj::Done => panic!("polled after it completed"),
        }
    }
}

/// Responds with a rejection.
#[inline(always)]
pub(super) fn reject<T, E: From<Rejection>>(rejection: &mut Option<Rejection>) -> Poll<Result<T, E>> {
    Poll::Ready(Err(rejection.take().expect("polled after it completed").into()))
}

/// A call that a pattern may reject.
pub(crate) trait RejectCall {
    /// A call that was rejected. All patterns around it bypass it.
    fn rejected(rejection: Rejection) -> Self;
}
