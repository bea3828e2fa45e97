//! Futures of [`RateLimitService`](super::RateLimitService).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::inner::{Call, Inner, Pace};
use crate::{
    error::Rejection,
    guarded::{Deferred, Guarded},
    hold::Hold,
};

pin_project! {
    /// A call that was let in, or refused.
    ///
    /// Its tokens are spent, however it ends.
    pub struct ResponseFuture<F> {
        #[pin]
        inner: Guarded<F, Call<Hold<Inner>>>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn new(inner: Guarded<F, Call<Hold<Inner>>>) -> Self {
        Self { inner }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

type DeferredCall<S, Req, F> = Deferred<S, Req, F, Pace<Hold<Inner>>, Call<Hold<Inner>>>;

pin_project! {
    /// A call that waits for its tokens first, if it has to.
    ///
    /// Dropping it while it waits gives the tokens back; the request was never sent.
    pub struct WaitFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        inner: DeferredCall<S, Req, S::Future>,
    }
}

impl<S: Service<Req>, Req> WaitFuture<S, Req> {
    pub(super) fn responding(response: Guarded<S::Future, Call<Hold<Inner>>>) -> Self {
        Self { inner: Deferred::Responding { response } }
    }

    pub(super) fn waiting(service: S, request: Req, pace: Pace<Hold<Inner>>) -> Self {
        Self { inner: Deferred::Waiting { acquire: pace, service, request: Some(request) } }
    }
}

impl<S, Req> Future for WaitFuture<S, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S: Service<Req>, Req> fmt::Debug for WaitFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFuture").finish_non_exhaustive()
    }
}
