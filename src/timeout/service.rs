use std::task::{Context, Poll};

use tower_service::Service;

use super::{Fixed, RequestLimit, Timeout, future::ResponseFuture};
use crate::{error::FromRejection, state::time::nanos_of};

/// Service made by [`TimeoutLayer`](super::TimeoutLayer).
#[derive(Clone, Debug)]
pub struct TimeoutService<S, D = Fixed> {
    inner: S,
    timeout: Timeout,
    limits: D,
}

impl<S> TimeoutService<S> {
    /// The same limit for all requests.
    pub fn new(inner: S, timeout: &Timeout) -> Self {
        Self::with(inner, timeout, Fixed)
    }
}

impl<S, D> TimeoutService<S, D> {
    pub(super) fn with(inner: S, timeout: &Timeout, limits: D) -> Self {
        Self { inner, timeout: timeout.clone(), limits }
    }

    /// The timeout.
    pub fn timeout(&self) -> &Timeout {
        &self.timeout
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service within, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, D, Req> Service<Req> for TimeoutService<S, D>
where
    S: Service<Req>,
    S::Error: FromRejection,
    D: RequestLimit<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // Ready at the first poll, with a `&'static str` for a name and no observer: one load of the limit and a few
    // accesses to a thread-local; no RMW, no clock, no timer, no allocation.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let limit = self.limits.limit(&request).map_or_else(|| self.timeout.nanos(), nanos_of);
        let inner = &mut self.inner;
        self.timeout.begin(limit, || inner.call(request))
    }
}
