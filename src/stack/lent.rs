//! The patterns around a service that the parts of a stack are lent to.
//!
//! What a pattern does is in its own room; here is only in which order, and that it may have been left out.

use std::task::{Context, Poll};

use super::parts::{Attempt, Parts};
use crate::{
    bulkhead::{self, Acquire, Permitted},
    circuit_breaker::{Admitted, Readied},
    classify::Classify,
    error::Rejection,
    guarded::{Deferred, Entry, Guarded, Held},
    hold::Hold,
    lent::Lent,
    rate_limit::{self, Pace, Passed},
    timeout::{Beginning, Timed},
};

/// All that lies between the retry and a client's service.
pub(crate) type Attempts<S> = Limited<Broken<Bounded<Limit<S>>>>;

/// All that lies between the timeout and a server's service.
pub(crate) type Served<S> = Limited<Broken<Bounded<S>>>;

/// Calls of the services above.
pub(crate) type LimitedCall<S, Req, C> = Deferred<S, Req, Pace<Hold<rate_limit::Inner>>, C, Passed>;
pub(crate) type BrokenCall<C> = Guarded<C, Admitted>;
pub(crate) type BoundedCall<S, Req, C> = Deferred<S, Req, Acquire<Hold<bulkhead::Inner>>, C, Permitted>;

/// The rate limiter; calls wait as long as it is set to.
#[derive(Clone)]
pub(crate) struct Limited<S>(pub(super) S);

impl<S, C, Req> Lent<Parts<C>, Req> for Limited<S>
where
    S: Lent<Parts<C>, Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = LimitedCall<S, Req, S::Call>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &Parts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(parts, cx)
    }

    #[inline(always)]
    fn call(&mut self, parts: &Parts<C>, request: Req) -> Self::Call {
        let entry = match &parts.limiter {
            Some(limiter) => limiter.0.enter(1, || limiter.0.hold()),
            None => Entry::Now(None),
        };
        Deferred::enter(parts, entry, &mut self.0, request)
    }
}

/// The circuit breaker.
pub(crate) struct Broken<S> {
    inner: S,
    readied: Readied,
}

impl<S> Broken<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, readied: Readied::default() }
    }
}

/// A clone starts without readiness.
impl<S: Clone> Clone for Broken<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<S, C, Req> Lent<Parts<C>, Req> for Broken<S>
where
    S: Lent<Parts<C>, Req>,
    S::Error: From<Rejection>,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = BrokenCall<S::Call>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &Parts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        match &parts.breaker {
            Some(breaker) => self.readied.poll_rejecting(breaker, cx, |cx| self.inner.poll_ready(parts, cx)),
            None => self.inner.poll_ready(parts, cx),
        }
    }

    #[inline(always)]
    fn call(&mut self, parts: &Parts<C>, request: Req) -> Self::Call {
        let admitted = match &parts.breaker {
            Some(breaker) => self.readied.admit_rejecting(&breaker.0).map(Some),
            None => Ok(None),
        };
        match admitted {
            Ok(admitted) => {
                let held = admitted.map(|admitted| Held::new(parts, admitted));
                Guarded::begun(self.inner.call(parts, request), held)
            }
            Err(rejection) => Guarded::refused(rejection),
        }
    }
}

/// The bulkhead; calls wait as long as it is set to.
#[derive(Clone)]
pub(crate) struct Bounded<S>(pub(super) S);

impl<S, C, Req> Lent<Parts<C>, Req> for Bounded<S>
where
    S: Lent<Parts<C>, Req> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = BoundedCall<S, Req, S::Call>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &Parts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(parts, cx)
    }

    #[inline(always)]
    fn call(&mut self, parts: &Parts<C>, request: Req) -> Self::Call {
        let entry = match &parts.bulkhead {
            Some(bulkhead) => bulkhead.0.enter(|| bulkhead.0.hold()),
            None => Entry::Now(None),
        };
        Deferred::enter(parts, entry, &mut self.0, request)
    }
}

/// The attempt timeout.
#[derive(Clone)]
pub(crate) struct Limit<S>(pub(super) S);

impl<S, C, Req> Lent<Parts<C>, Req> for Limit<S>
where
    S: Lent<Parts<C>, Req>,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = Timed<S::Call, Attempt>;

    #[inline(always)]
    fn poll_ready(&mut self, parts: &Parts<C>, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(parts, cx)
    }

    #[inline(always)]
    fn call(&mut self, parts: &Parts<C>, request: Req) -> Self::Call {
        let mut marks = None;
        match Beginning::new::<_, Attempt>(parts, parts.attempt_limit(), &mut marks) {
            Ok(beginning) => beginning.begun(self.0.call(parts, request)),
            Err(rejection) => Timed::refused(rejection),
        }
    }
}
