use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower_service::Service;

use super::{
    Cost, One, RateLimiter,
    future::{ResponseFuture, WaitFuture},
    inner::{RateLimiterInner, SpentTokens, Turns, UnusedTokens, WaitForTokens},
    queue::{GRACE, Joined, Ticket},
};
use crate::{
    call::{
        Acquisition, CallService, Guarded, HasEvents, LeafCall, PatternService, Queued, RejectCall, Rejectable,
        RejectableLeaf, StartingCall, WithShared,
    },
    error::{FromRejection, Rejection},
    readiness::{Backpressure, Reject, Wait},
    shared::striped::StripedRef,
};

/// A call of [`WithRateLimit`].
pub(crate) type RateLimitCall<S, Req, C> = Queued<S, Req, WaitForTokens<StripedRef<RateLimiterInner>>, C, SpentTokens>;

/// The call service of a rate limiter, in wait mode. Each call costs one token.
#[derive(Clone)]
pub(crate) struct WithRateLimit<S> {
    inner: S,
}

impl<S> WithRateLimit<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<P, S, Req> PatternService<P, Req> for WithRateLimit<S>
where
    P: HasEvents<RateLimiterInner> + AsRef<RateLimiter>,
    S: CallService<P, Req, Call: RejectCall> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = RateLimitCall<S, Req, S::Call>;
    type Admission = Acquisition<SpentTokens, WaitForTokens<StripedRef<RateLimiterInner>>>;

    #[inline(always)]
    fn poll_ready(&mut self, _enabled: bool, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(shared, cx)
    }

    #[inline(always)]
    fn admit(&mut self, shared: &P) -> Self::Admission {
        RateLimiterInner::admit(&shared.as_ref().0, 1)
    }

    #[inline(always)]
    fn bypass() -> Self::Admission {
        Acquisition::Bypassed
    }

    #[inline(always)]
    fn start(&mut self, shared: &P, admission: Self::Admission, request: Req) -> Self::Call {
        Queued::start(shared, admission, &mut self.inner, request)
    }
}

/// The service of a [`RateLimitLayer`](super::RateLimitLayer).
pub struct RateLimitService<S, C = One, M = Reject> {
    calls: WithRateLimit<RejectableLeaf<S>>,
    limiter: RateLimiter,
    cost: C,
    reserved: Option<Reserved>,
    mode: PhantomData<fn() -> M>,
}

/// The token of the next call, in backpressure mode.
enum Reserved {
    Token(UnusedTokens<StripedRef<RateLimiterInner>>),
    Waiting(Pin<Box<Turns<StripedRef<RateLimiterInner>, Ticket>>>),
}

impl<S> RateLimitService<S> {
    /// Creates a service that rejects calls above the rate of `limiter`; each request costs one
    /// token.
    pub fn new(inner: S, limiter: &RateLimiter) -> Self {
        Self::with(inner, limiter, One)
    }
}

impl<S, C, M> RateLimitService<S, C, M> {
    pub(super) fn with(inner: S, limiter: &RateLimiter, cost: C) -> Self {
        Self {
            calls: WithRateLimit::new(RejectableLeaf::new(inner)),
            limiter: limiter.clone(),
            cost,
            reserved: None,
            mode: PhantomData,
        }
    }

    /// Returns the limiter.
    pub fn limiter(&self) -> &RateLimiter {
        &self.limiter
    }

    /// The cost of a request that has reached the limiter. If the closure panics, the call is
    /// cancelled.
    #[inline(always)]
    fn cost<Req>(&self, request: &Req) -> u32
    where
        C: Cost<Req>,
    {
        let arriving = self.limiter.0.events.arriving();
        let cost = self.cost.cost(request);
        arriving.arrived();
        cost
    }

    /// Makes the call if tokens are available.
    #[inline(always)]
    fn check_and_start<Req>(&mut self, cost: u32, request: Req) -> ResponseFuture<S::Future>
    where
        S: Service<Req>,
    {
        let Self { calls: WithRateLimit { inner }, limiter, .. } = self;
        limiter.0.check_as(
            cost,
            || start(inner, limiter, request),
            |rejection| ResponseFuture::new(Rejectable::rejected(rejection)),
        )
    }
}

/// The owner of a call's shared state: none without an observer.
#[inline(always)]
fn owner(limiter: &RateLimiter) -> Option<StripedRef<RateLimiterInner>> {
    limiter.0.events.has_observer().then(|| limiter.0.acquire_ref())
}

/// Makes a call that is admitted.
#[inline(always)]
fn start<S, Req>(inner: &mut RejectableLeaf<S>, limiter: &RateLimiter, request: Req) -> ResponseFuture<S::Future>
where
    S: Service<Req>,
{
    let owner = owner(limiter);
    let starting = StartingCall::new(&owner, Some(SpentTokens::admitted(&limiter.0.events)));
    let call = LeafCall::new(inner.inner.call(request));
    let call = Guarded::started(call, starting.started());
    ResponseFuture::new(Rejectable::started(WithShared::new(owner, call)))
}

service_access!(RateLimitService<S, C, M>, calls.inner.inner);

/// The clone has no reservation.
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
        self.get_mut().poll_ready(cx)
    }

    // 1 RMW and one clock read; a rejection, no RMW. Without an observer no reference is held, and
    // nothing is allocated.
    fn call(&mut self, request: Req) -> Self::Future {
        let cost = self.cost(&request);
        self.check_and_start(cost, request)
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
        // The inner service first: a token is taken only while it can be used, and returned when it
        // no longer can, or if the service panics.
        let reserved = self.reserved.take();
        let ready = self.get_mut().poll_ready(cx);
        if !matches!(ready, Poll::Ready(Ok(()))) {
            return ready;
        }
        self.reserved = reserved;
        let limiter = &self.limiter.0;
        if let Some(Reserved::Token(token)) = &self.reserved {
            if is_fresh(token) {
                return Poll::Ready(Ok(()));
            }
            self.reserved = None;
        }
        let waiting = match &mut self.reserved {
            Some(Reserved::Waiting(waiting)) => waiting,
            reserved => match limiter.tokens.join(limiter.now(), 1, Duration::MAX) {
                Ok(Joined::Admitted(slot)) => {
                    *reserved = Some(Reserved::Token(UnusedTokens::new(limiter.acquire_ref(), slot)));
                    return Poll::Ready(Ok(()));
                }
                Ok(Joined::Waits(ticket)) => {
                    let waiting = Box::pin(Turns::new(limiter.acquire_ref(), ticket, Duration::MAX));
                    *reserved = Some(Reserved::Waiting(waiting));
                    let Some(Reserved::Waiting(waiting)) = reserved else { unreachable!("it was just stored") };
                    waiting
                }
                Err(_) => unreachable!("a single token never exceeds the burst, nor an unlimited wait"),
            },
        };
        let Ok((limiter, slot, _)) = ready!(waiting.as_mut().poll(cx)) else {
            unreachable!("a single token never exceeds the burst, nor an unlimited wait")
        };
        self.reserved = Some(Reserved::Token(UnusedTokens::new(limiter, slot)));
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let arriving = self.limiter.0.events.arriving();
        let fresh = match self.reserved.take() {
            Some(Reserved::Token(token)) if is_fresh(&token) => Some(token),
            _ => None,
        };
        arriving.arrived();
        match fresh {
            Some(token) => {
                token.disarm();
                start(&mut self.calls.inner, &self.limiter, request)
            }
            // Called without being ready, or long after it was. The inner service may object to the
            // first; the rate is enforced all the same.
            None => self.check_and_start(1, request),
        }
    }
}

/// Whether the token can be used at the current time.
fn is_fresh(token: &UnusedTokens<StripedRef<RateLimiterInner>>) -> bool {
    token.get().is_some_and(|(limiter, slot)| slot.is_fresh(limiter.now(), GRACE))
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
        self.get_mut().poll_ready(cx)
    }

    // As in reject mode if the tokens are available; only a call that waits clones the service.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let acquisition = RateLimiterInner::admit(&self.limiter.0, self.cost(&request));
        if let Acquisition::Rejected(rejection) = acquisition {
            return WaitFuture::new(Rejectable::rejected(rejection));
        }
        let owner = owner(&self.limiter);
        let call = Queued::start(&owner, acquisition, &mut self.calls.inner, request);
        WaitFuture::new(Rejectable::started(WithShared::new(owner, call)))
    }
}
