use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;
use tower_service::Service;

use super::{
    Cost, One, RateLimiter,
    future::{ResponseFuture, WaitFuture},
    inner::{RateLimiterInner, SpentTokens, UnusedTokens},
};
use crate::{
    call::{CancelOnDrop, Guarded, Queued},
    call::{Leaf, WithShared},
    error::{FromRejection, Rejection},
    readiness::{Backpressure, Reject, Wait},
    shared::striped::StripedRef,
};

/// Service made by [`RateLimitLayer`](super::RateLimitLayer).
pub struct RateLimitService<S, C = One, M = Reject> {
    inner: Leaf<S>,
    limiter: RateLimiter,
    cost: C,
    reserved: Option<Reserved>,
    mode: PhantomData<fn() -> M>,
}

/// A token that `poll_ready` has taken for the call to come, in backpressure mode.
struct Reserved {
    tokens: UnusedTokens<StripedRef<RateLimiterInner>>,
    /// Until it is due. Allocated when it is not due at once.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl<S> RateLimitService<S> {
    /// Refuses what exceeds the rate of `limiter`; each request costs one token.
    pub fn new(inner: S, limiter: &RateLimiter) -> Self {
        Self::with(inner, limiter, One)
    }
}

impl<S, C, M> RateLimitService<S, C, M> {
    pub(super) fn with(inner: S, limiter: &RateLimiter, cost: C) -> Self {
        Self { inner: Leaf::new(inner), limiter: limiter.clone(), cost, reserved: None, mode: PhantomData }
    }

    /// The limiter.
    pub fn limiter(&self) -> &RateLimiter {
        &self.limiter
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner.inner
    }

    /// The service within, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner.inner
    }

    /// What the future of a call owns: nothing, when nobody listens.
    #[inline(always)]
    fn owner(&self) -> Option<StripedRef<RateLimiterInner>> {
        self.limiter.0.events.has_observer().then(|| self.limiter.0.acquire_ref())
    }

    /// Makes the call if it was let in.
    #[inline(always)]
    fn pass<Req>(&mut self, verdict: Result<(), Rejection>, request: Req) -> ResponseFuture<S::Future>
    where
        S: Service<Req>,
    {
        let (owner, call) = match verdict {
            Ok(()) => {
                let owner = self.owner();
                let passed = SpentTokens::admitted(&self.limiter.0.events);
                let held = CancelOnDrop::new(&owner, passed);
                let call = Guarded::started(Leaf::new(self.inner.inner.call(request)), Some(held));
                (owner, call)
            }
            Err(rejection) => (None, Guarded::rejected(rejection)),
        };
        ResponseFuture::new(WithShared::new(owner, call))
    }
}

/// A clone starts without a reservation.
impl<S: Clone, C: Clone, M> Clone for RateLimitService<S, C, M> {
    fn clone(&self) -> Self {
        Self::with(self.get_ref().clone(), &self.limiter, self.cost.clone())
    }
}

impl<S: fmt::Debug, C, M> fmt::Debug for RateLimitService<S, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimitService").field("inner", self.get_ref()).field("limiter", &self.limiter).finish()
    }
}

impl<S, C, Req> Service<Req> for RateLimitService<S, C, Reject>
where
    S: Service<Req>,
    S::Error: FromRejection,
    C: Cost<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.inner.poll_ready(cx)
    }

    // 1 RMW and one clock read; a rejection, no RMW. Without an observer nothing is held, and nothing allocated.
    fn call(&mut self, request: Req) -> Self::Future {
        let verdict = self.limiter.0.check(self.cost.cost(&request));
        self.pass(verdict, request)
    }
}

impl<S, Req> Service<Req> for RateLimitService<S, One, Backpressure>
where
    S: Service<Req>,
    S::Error: FromRejection,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        // The service first: a token is taken only when it can be used, and given back when it no longer can.
        let ready = self.inner.inner.poll_ready(cx);
        if !matches!(ready, Poll::Ready(Ok(()))) {
            self.reserved = None;
            return ready;
        }
        let limiter = &self.limiter.0;
        let reserved = match &mut self.reserved {
            Some(reserved) => reserved,
            none => {
                let reserved = limiter.gcra.reserve(limiter.now(), 1, Duration::MAX);
                let Ok((wait, slot)) = reserved else {
                    unreachable!("a single token is never above the burst, nor due later than for ever")
                };
                // Before the timer, which panics outside of a runtime.
                let tokens = UnusedTokens::new(limiter.acquire_ref(), slot);
                let sleep = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
                none.insert(Reserved { tokens, sleep })
            }
        };
        if let Some(sleep) = &mut reserved.sleep {
            ready!(sleep.as_mut().poll(cx));
            reserved.sleep = None;
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let verdict = match self.reserved.take() {
            Some(Reserved { tokens, sleep: None }) => {
                tokens.release();
                Ok(())
            }
            // Called without having been ready. That is the service's to complain about; the rate holds all the same.
            _ => self.limiter.0.check(1),
        };
        self.pass(verdict, request)
    }
}

impl<S, C, Req> Service<Req> for RateLimitService<S, C, Wait>
where
    S: Service<Req> + Clone,
    S::Error: FromRejection,
    C: Cost<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WaitFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.inner.poll_ready(cx)
    }

    // As in the refusing mode when the tokens are there; the service is cloned only by a call that waits.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let entry = self.limiter.0.enter(self.cost.cost(&request), || self.limiter.0.acquire_ref());
        let owner = self.owner();
        let call = Queued::enter(&owner, entry, &mut self.inner, request);
        WaitFuture::new(WithShared::new(owner, call))
    }
}
