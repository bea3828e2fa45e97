//! The state that the calls of a stack share: the handles of its parts, behind one reference count.

use std::time::Duration;

use crate::{
    bulkhead::{Bulkhead, BulkheadInner, HasBulkhead},
    call::{HasEvents, Part},
    circuit_breaker::{CircuitBreaker, CircuitBreakerInner, HasBreaker},
    event::EventEmitter,
    rate_limit::{RateLimiter, RateLimiterInner},
    timeout::{Standalone, Timeout, TimeoutInner, TimeoutOf},
};

/// The parts of a stack, other than the retry.
#[derive(Clone)]
pub(crate) struct StackParts<C> {
    pub(super) total: Part<Timeout>,
    pub(super) limiter: Part<RateLimiter>,
    pub(super) breaker: Part<CircuitBreaker>,
    pub(super) bulkhead: Part<Bulkhead>,
    pub(super) attempt: Part<Timeout>,
    pub(super) classify: C,
}

impl<C> StackParts<C> {
    pub(super) fn total_limit(&self) -> Option<Duration> {
        self.total.as_option().map(Timeout::limit)
    }

    pub(super) fn attempt_limit(&self) -> Option<Duration> {
        self.attempt.as_option().map(Timeout::limit)
    }
}

/// The timeout around a client's retry. It relies on the attempt's timer while an attempt runs.
pub(crate) struct Total;

/// The timeout of an attempt.
pub(crate) struct Attempt;

impl<C> TimeoutOf<Total> for StackParts<C> {
    #[inline(always)]
    fn timeout(&self) -> &TimeoutInner {
        &self.total.0
    }

    #[inline(always)]
    fn timeout_events(&self) -> Option<&EventEmitter> {
        self.total.as_option().map(|timeout| &timeout.0.events)
    }
}

/// A server's stack has no other timeout.
impl<C> TimeoutOf<Standalone> for StackParts<C> {
    #[inline(always)]
    fn timeout(&self) -> &TimeoutInner {
        &self.total.0
    }

    #[inline(always)]
    fn timeout_events(&self) -> Option<&EventEmitter> {
        self.total.as_option().map(|timeout| &timeout.0.events)
    }
}

impl<C> TimeoutOf<Attempt> for StackParts<C> {
    #[inline(always)]
    fn timeout(&self) -> &TimeoutInner {
        &self.attempt.0
    }

    #[inline(always)]
    fn timeout_events(&self) -> Option<&EventEmitter> {
        self.attempt.as_option().map(|timeout| &timeout.0.events)
    }
}

impl<C> AsRef<RateLimiter> for StackParts<C> {
    #[inline(always)]
    fn as_ref(&self) -> &RateLimiter {
        &self.limiter
    }
}

impl<C> HasEvents<RateLimiterInner> for StackParts<C> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        Some(&self.limiter.0.events)
    }
}

impl<C> AsRef<CircuitBreaker> for StackParts<C> {
    #[inline(always)]
    fn as_ref(&self) -> &CircuitBreaker {
        &self.breaker
    }
}

impl<C> HasBreaker for StackParts<C> {
    type Classifier = C;

    #[inline(always)]
    fn breaker(&self) -> &CircuitBreakerInner {
        &self.breaker.0
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.classify
    }
}

impl<C> AsRef<Bulkhead> for StackParts<C> {
    #[inline(always)]
    fn as_ref(&self) -> &Bulkhead {
        &self.bulkhead
    }
}

impl<C> HasBulkhead for StackParts<C> {
    #[inline(always)]
    fn bulkhead(&self) -> &BulkheadInner {
        &self.bulkhead.0
    }
}
