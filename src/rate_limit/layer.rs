use std::{fmt, marker::PhantomData};

use tower_layer::Layer;

use super::{RateLimitService, RateLimiter};
use crate::readiness::{Backpressure, Reject, Wait};

/// A layer that limits the rate of a service's calls by a [`RateLimiter`].
///
/// `C` is the [cost](Cost) of a request. `M` is the [readiness mode](crate::readiness).
#[derive(Clone, Debug)]
pub struct RateLimitLayer<C = One, M = Reject> {
    limiter: RateLimiter,
    cost: C,
    mode: PhantomData<fn() -> M>,
}

impl RateLimitLayer {
    /// Creates a layer that rejects calls above the rate. Each request costs one token.
    pub fn new(limiter: &RateLimiter) -> Self {
        Self { limiter: limiter.clone(), cost: One, mode: PhantomData }
    }
}

impl<C, M> RateLimitLayer<C, M> {
    /// Sets the function that computes a request's cost. A call takes all of its tokens or none; a
    /// cost above the burst is permanently rejected.
    pub fn cost<F, Req>(self, cost: F) -> RateLimitLayer<CostOf<F>, M>
    where
        F: Fn(&Req) -> u32,
    {
        RateLimitLayer { limiter: self.limiter, cost: CostOf(cost), mode: PhantomData }
    }

    /// Acquires a token in `poll_ready`, which is pending until it is due. Every request costs one
    /// token; a cost function does not apply. Call the service within 10 ms of its readiness, or
    /// poll it again: later, the call is rejected unless a token is available.
    pub fn backpressure(self) -> RateLimitLayer<One, Backpressure> {
        RateLimitLayer { limiter: self.limiter, cost: One, mode: PhantomData }
    }

    /// Waits in the response future, for up to `max_wait`. The service must be `Clone`; only a call
    /// that has to wait clones it.
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

/// The cost of a request.
pub trait Cost<Req> {
    /// Returns the cost of `request`, in tokens.
    fn cost(&self, request: &Req) -> u32;
}

/// A cost of one token for every request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct One;

impl<Req> Cost<Req> for One {
    fn cost(&self, _request: &Req) -> u32 {
        1
    }
}

/// A cost that a function computes. Created by [`RateLimitLayer::cost`].
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
