use std::{fmt, marker::PhantomData};

use tower_layer::Layer;

use super::{RateLimitService, RateLimiter};
use crate::readiness::{Backpressure, Reject, Wait};

/// Puts a [`RateLimiter`] around a service.
///
/// `C` knows what a request costs. `M` is the [readiness mode](crate::readiness).
#[derive(Clone, Debug)]
pub struct RateLimitLayer<C = One, M = Reject> {
    limiter: RateLimiter,
    cost: C,
    mode: PhantomData<fn() -> M>,
}

impl RateLimitLayer {
    /// Refuses what exceeds the rate; each request costs one token.
    pub fn new(limiter: &RateLimiter) -> Self {
        Self { limiter: limiter.clone(), cost: One, mode: PhantomData }
    }
}

impl<C, M> RateLimitLayer<C, M> {
    /// Asks the request what it costs. All tokens are taken, or none; a cost above the burst is refused for good.
    pub fn cost<F, Req>(self, cost: F) -> RateLimitLayer<CostOf<F>, M>
    where
        F: Fn(&Req) -> u32,
    {
        RateLimitLayer { limiter: self.limiter, cost: CostOf(cost), mode: PhantomData }
    }

    /// `poll_ready` is pending until there is a token, and takes it; it costs one, whatever the request.
    pub fn backpressure(self) -> RateLimitLayer<One, Backpressure> {
        RateLimitLayer { limiter: self.limiter, cost: One, mode: PhantomData }
    }

    /// Waits in the response future, for up to `max_wait`. The service must be `Clone`; it is cloned only by a call that
    /// has to wait.
    pub fn wait(self) -> RateLimitLayer<C, Wait> {
        RateLimitLayer { limiter: self.limiter, cost: self.cost, mode: PhantomData }
    }
}

impl<S, C: Clone, M> Layer<S> for RateLimitLayer<C, M> {
    type Service = RateLimitService<S, C, M>;

    fn layer(&self, inner: S) -> Self::Service {
        RateLimitService::with(inner, &self.limiter, self.cost.clone())
    }
}

/// What a request costs.
pub trait Cost<Req> {
    /// In tokens.
    fn cost(&self, request: &Req) -> u32;
}

/// Each request costs one token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct One;

impl<Req> Cost<Req> for One {
    fn cost(&self, _request: &Req) -> u32 {
        1
    }
}

/// Made by [`RateLimitLayer::cost`].
#[derive(Clone, Copy)]
pub struct CostOf<F>(F);

impl<F, Req> Cost<Req> for CostOf<F>
where
    F: Fn(&Req) -> u32,
{
    fn cost(&self, request: &Req) -> u32 {
        (self.0)(request)
    }
}

impl<F> fmt::Debug for CostOf<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CostOf").finish_non_exhaustive()
    }
}
