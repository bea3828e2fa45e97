use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::header::DeadlineHeader;
use crate::{clock, deadline, http::RequestHead};

impl DeadlineHeader {
    /// Returns a layer that makes a request's limit the [deadline](crate::deadline::scope) of its
    /// call. The limit counts from `call`. Only the timeouts inside enforce it.
    ///
    /// The header is the caller's to choose. Where callers are not trusted, strip it at the edge,
    /// in the proxy or gateway that faces them, as other internal headers. A short limit makes
    /// calls fail, and work for them is wasted; but breakers ignore a call that it has [cut
    /// short](crate::Rejection::TimedOut::cut_short) or that was never made. A long limit has no
    /// effect on the timeouts inside, which fire at their own. The layer's own bounds are
    /// [`at_least`](DeadlineReceiveLayer::at_least) and [`at_most`](DeadlineReceiveLayer::at_most).
    pub fn receive(&self) -> DeadlineReceiveLayer {
        DeadlineReceiveLayer {
            header: self.clone(),
            bounds: Bounds { at_least: Duration::from_millis(1), at_most: Duration::from_secs(3600) },
        }
    }
}

/// Makes a request's limit the deadline of its call. Made by [`DeadlineHeader::receive`].
#[derive(Clone, Debug)]
pub struct DeadlineReceiveLayer {
    header: DeadlineHeader,
    bounds: Bounds,
}

impl DeadlineReceiveLayer {
    /// Raises shorter limits to `limit`, for a service that cannot do anything useful in less time.
    ///
    /// The default is one millisecond, the resolution of timers: with it, every request's call is
    /// started, and the shortest limits that remote services use among themselves stay as they are.
    pub const fn at_least(mut self, limit: Duration) -> Self {
        self.bounds.at_least = limit;
        self
    }

    /// Shortens longer limits to `limit`, even below [`at_least`](Self::at_least).
    ///
    /// The default is one hour. That is above the limits of interactive calls and of most streams,
    /// and bounds the time for which a caller can make the server, and the services it calls with
    /// [`send`](DeadlineHeader::send), reckon with a response being awaited. A request without the
    /// header has no deadline.
    pub const fn at_most(mut self, limit: Duration) -> Self {
        self.bounds.at_most = limit;
        self
    }
}

#[derive(Clone, Copy, Debug)]
struct Bounds {
    at_least: Duration,
    at_most: Duration,
}

impl Bounds {
    fn apply(self, limit: Duration) -> Duration {
        limit.max(self.at_least).min(self.at_most)
    }
}

impl<S> Layer<S> for DeadlineReceiveLayer {
    type Service = DeadlineReceive<S>;

    fn layer(&self, inner: S) -> DeadlineReceive<S> {
        DeadlineReceive { inner, header: self.header.clone(), bounds: self.bounds }
    }
}

/// Service made by [`DeadlineReceiveLayer`].
#[derive(Clone, Debug)]
pub struct DeadlineReceive<S> {
    inner: S,
    header: DeadlineHeader,
    bounds: Bounds,
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
        let limit = self.header.read(request.headers()).map(|limit| self.bounds.apply(limit));
        // A limit too large for the clock is no limit.
        let inner = match limit.and_then(|limit| clock::instant().checked_add(limit)) {
            Some(at) => {
                Scoped::Until { scope: deadline::scope(at, deadline::within_callers(at, || self.inner.call(request))) }
            }
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
