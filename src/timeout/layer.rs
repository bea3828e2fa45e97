use std::{fmt, time::Duration};

use tower_layer::Layer;

use super::{Timeout, TimeoutService};

/// Puts a [`Timeout`] around a service.
///
/// `D` knows the limit of a request, where requests have limits of their own.
#[derive(Clone, Debug)]
pub struct TimeoutLayer<D = Fixed> {
    timeout: Timeout,
    limits: D,
}

impl TimeoutLayer {
    /// The same limit for all requests.
    pub fn new(timeout: &Timeout) -> Self {
        Self { timeout: timeout.clone(), limits: Fixed }
    }
}

impl<D> TimeoutLayer<D> {
    /// Asks the request for its limit; where it has none, the timeout's own applies.
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

/// The limit that a request has of its own.
pub trait RequestLimit<Req> {
    /// It, or `None` when the timeout's limit applies.
    fn limit(&self, request: &Req) -> Option<Duration>;
}

/// No request has a limit of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fixed;

impl<Req> RequestLimit<Req> for Fixed {
    fn limit(&self, _request: &Req) -> Option<Duration> {
        None
    }
}

/// Made by [`TimeoutLayer::per_request`].
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
