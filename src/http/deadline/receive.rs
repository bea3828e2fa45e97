use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::header::DeadlineHeader;
use crate::{clock, deadline, http::RequestHead};

impl DeadlineHeader {
    /// Returns a layer that makes a request's limit the [deadline](crate::deadline::scope) of its
    /// call. The limit counts from `call`. Only the timeouts inside enforce it.
    pub fn receive(&self) -> DeadlineReceiveLayer {
        DeadlineReceiveLayer { header: self.clone() }
    }
}

/// Makes a request's limit the deadline of its call. Made by [`DeadlineHeader::receive`].
#[derive(Clone, Debug)]
pub struct DeadlineReceiveLayer {
    header: DeadlineHeader,
}

impl<S> Layer<S> for DeadlineReceiveLayer {
    type Service = DeadlineReceive<S>;

    fn layer(&self, inner: S) -> DeadlineReceive<S> {
        DeadlineReceive { inner, header: self.header.clone() }
    }
}

/// Service made by [`DeadlineReceiveLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineReceive<S> {
    inner: S,
    header: DeadlineHeader,
}

service_access!(DeadlineReceive);

impl<S, Req> Service<Req> for DeadlineReceive<S>
where
    S: Service<Req>,
    Req: RequestHead,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // With a limit, 1 clock read.
    fn call(&mut self, request: Req) -> Self::Future {
        let limit = self.header.read(request.headers());
        // A limit too large for the clock is no limit.
        let inner = match limit.and_then(|limit| clock::instant().checked_add(limit)) {
            Some(at) => Scoped::Until { scope: deadline::scope(at, deadline::within(at, || self.inner.call(request))) },
            None => Scoped::Unlimited { future: self.inner.call(request) },
        };
        DeadlineFuture { inner }
    }
}

pin_project! {
    /// Future of [`DeadlineReceive`].
    pub struct DeadlineFuture<F> {
        #[pin]
        inner: Scoped<F>,
    }
}

pin_project! {
    #[project = ScopedProj]
    enum Scoped<F> {
        Until { #[pin] scope: deadline::Scope<F> },
        Unlimited { #[pin] future: F },
    }
}

impl<F: Future> Future for DeadlineFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        match self.project().inner.project() {
            ScopedProj::Until { scope } => scope.poll(cx),
            ScopedProj::Unlimited { future } => future.poll(cx),
        }
    }
}

impl<F> fmt::Debug for DeadlineFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineFuture").finish_non_exhaustive()
    }
}
