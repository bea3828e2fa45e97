use std::{fmt, time::Duration};

use tower_layer::Layer;

use super::{Timeout, TimeoutService};

/// A layer that limits the time of a service's calls by a [`Timeout`].
///
/// `D` determines the limit of a request.
#[derive(Clone, Debug)]
pub struct TimeoutLayer<D = Fixed> {
    timeout: Timeout,
    limits: D,
}

impl TimeoutLayer {
    /// Creates a layer with the same limit for all requests.
    pub fn new(timeout: &Timeout) -> Self {
        Self { timeout: timeout.clone(), limits: Fixed }
    }
}

impl<D> TimeoutLayer<D> {
    /// Determines the limit of each request with a closure. If it returns `None`, the timeout's own
    /// limit applies.
    pub fn per_request<F, Req>(self, limit: F) -> TimeoutLayer<PerRequest<F>>
    where
        F: Fn(&Req) -> Option<Duration>,
    {
        TimeoutLayer { timeout: self.timeout, limits: PerRequest(limit) }
    }
}

impl<S, D: Clone> Layer<S> for TimeoutLayer<D> {
    type Service = TimeoutService<S, D>;

    fn layer(&self, inner: S) -> Self::Service {
        TimeoutService::with(inner, &self.timeout, self.limits.clone())
    }
}

/// Determines the limit of a request.
pub trait RequestLimit<Req> {
    /// Returns the limit of `request`, or `None` if the timeout's own limit applies.
    fn limit(&self, request: &Req) -> Option<Duration>;
}

/// Applies the timeout's own limit to every request. The default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fixed;

impl<Req> RequestLimit<Req> for Fixed {
    fn limit(&self, _request: &Req) -> Option<Duration> {
        None
    }
}

/// Determines the limit of each request with a closure. Created by [`TimeoutLayer::per_request`].
#[derive(Clone, Copy)]
pub struct PerRequest<F>(F);

impl<F, Req> RequestLimit<Req> for PerRequest<F>
where
    F: Fn(&Req) -> Option<Duration>,
{
    fn limit(&self, request: &Req) -> Option<Duration> {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for PerRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerRequest").finish_non_exhaustive()
    }
}
