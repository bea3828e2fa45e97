//! The patterns around a service that the parts of a stack are lent to.
//!
//! What a pattern does is in its own room; here is only in which order, and that it may have been left out.

use std::task::{Context, Poll};

use super::parts::{Attempt, StackParts};
use crate::{
    bulkhead::{self, CallPermit, WaitForPermit},
    call::CallService,
    call::{Acquisition, CancelOnDrop, Guarded, Queued},
    circuit_breaker::{AdmittedCall, ReadyState},
    classify::Classify,
    error::Rejection,
    rate_limit::{self, SpentTokens, WaitForTokens},
    shared::striped::StripedRef,
    timeout::{StartingTimedCall, TimedCall},
};

/// All that lies between the retry and a client's service.
pub(crate) type Attempts<S> = WithRateLimit<WithBreaker<WithBulkhead<WithTimeout<S>>>>;

/// All that lies between the timeout and a server's service.
pub(crate) type Served<S> = WithRateLimit<WithBreaker<WithBulkhead<S>>>;

/// Calls of the services above.
pub(crate) type RateLimitCall<S, Req, C> =
    Queued<S, Req, WaitForTokens<StripedRef<rate_limit::RateLimiterInner>>, C, SpentTokens>;
pub(crate) type BreakerCall<C> = Guarded<C, AdmittedCall>;
pub(crate) type BulkheadCall<S, Req, C> =
    Queued<S, Req, WaitForPermit<StripedRef<bulkhead::BulkheadInner>>, C, CallPermit>;

/// The rate limiter; calls wait as long as it is set to.
#[derive(Clone)]
pub(crate) struct WithRateLimit<S>(pub(super) S);

impl<S, C, Req> CallService<StackParts<C>, Req> for WithRateLimit<S>
where
    S: CallService<StackParts<C>, Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = RateLimitCall<S, Req, S::Call>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &StackParts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(parts, cx)
    }

    #[inline(always)]
    fn call(&mut self, parts: &StackParts<C>, request: Req) -> Self::Call {
        let entry = match &parts.limiter {
            Some(limiter) => limiter.0.enter(1, || limiter.0.acquire_ref()),
            None => Acquisition::Admitted(None),
        };
        Queued::enter(parts, entry, &mut self.0, request)
    }
}

/// The circuit breaker.
pub(crate) struct WithBreaker<S> {
    inner: S,
    ready_state: ReadyState,
}

impl<S> WithBreaker<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, ready_state: ReadyState::default() }
    }
}

/// A clone starts without readiness.
impl<S: Clone> Clone for WithBreaker<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S, C, Req> CallService<StackParts<C>, Req> for WithBreaker<S>
where
    S: CallService<StackParts<C>, Req>,
    S::Error: From<Rejection>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = BreakerCall<S::Call>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &StackParts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match &parts.breaker {
            Some(breaker) => self.ready_state.poll_rejecting(breaker, cx, |cx| self.inner.poll_ready(parts, cx)),
            None => self.inner.poll_ready(parts, cx),
        }
    }

    #[inline(always)]
    fn call(&mut self, parts: &StackParts<C>, request: Req) -> Self::Call {
        let admitted = match &parts.breaker {
            Some(breaker) => self.ready_state.admit_rejecting(&breaker.0).map(Some),
            None => Ok(None),
        };
        match admitted {
            Ok(admitted) => {
                let held = admitted.map(|admitted| CancelOnDrop::new(parts, admitted));
                Guarded::started(self.inner.call(parts, request), held)
            }
            Err(rejection) => Guarded::rejected(rejection),
        }
    }
}

/// The bulkhead; calls wait as long as it is set to.
#[derive(Clone)]
pub(crate) struct WithBulkhead<S>(pub(super) S);

impl<S, C, Req> CallService<StackParts<C>, Req> for WithBulkhead<S>
where
    S: CallService<StackParts<C>, Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = BulkheadCall<S, Req, S::Call>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &StackParts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(parts, cx)
    }

    #[inline(always)]
    fn call(&mut self, parts: &StackParts<C>, request: Req) -> Self::Call {
        let entry = match &parts.bulkhead {
            Some(bulkhead) => bulkhead.0.enter(|| bulkhead.0.acquire_ref()),
            None => Acquisition::Admitted(None),
        };
        Queued::enter(parts, entry, &mut self.0, request)
    }
}

/// The attempt timeout.
#[derive(Clone)]
pub(crate) struct WithTimeout<S>(pub(super) S);

impl<S, C, Req> CallService<StackParts<C>, Req> for WithTimeout<S>
where
    S: CallService<StackParts<C>, Req>,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = TimedCall<S::Call, Attempt>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &StackParts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(parts, cx)
    }

    #[inline(always)]
    fn call(&mut self, parts: &StackParts<C>, request: Req) -> Self::Call {
        let mut marks = None;
        match StartingTimedCall::new::<_, Attempt>(parts, parts.attempt_limit(), &mut marks) {
            Ok(beginning) => beginning.started(self.0.call(parts, request)),
            Err(rejection) => TimedCall::rejected(rejection),
        }
    }
}
