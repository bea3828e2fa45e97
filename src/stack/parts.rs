//! What the calls of a stack are lent: the handles of its parts, behind one count.

use crate::{
    bulkhead::{self, Bulkhead},
    call::HasEvents,
    circuit_breaker::{self, CircuitBreaker},
    error::Rejection,
    event::EventEmitter,
    rate_limit::{self, RateLimiter},
    timeout::{self, Boxed, Inline, Timeout, TimeoutKind},
};

/// The parts of a stack, but for the retry. `None` is left out.
#[derive(Clone)]
pub(crate) struct StackParts<C> {
    pub(super) total: Option<Timeout>,
    pub(super) limiter: Option<RateLimiter>,
    pub(super) breaker: Option<CircuitBreaker>,
    pub(super) bulkhead: Option<Bulkhead>,
    pub(super) attempt: Option<Timeout>,
    pub(super) classify: C,
}

/// The timeout around a client's retry. While an attempt runs it relies on that one's timer.
pub(crate) struct Total;

impl TimeoutKind for Total {
    type Timer = Boxed;
}

/// The timeout of an attempt.
pub(crate) struct Attempt;

impl TimeoutKind for Attempt {
    type Timer = Inline;
}

impl<C> StackParts<C> {
    /// The limit of the call that begins now, in nanoseconds, if it has one.
    #[inline(always)]
    pub(super) fn total_limit(&self) -> Option<u64> {
        self.total.as_ref().map(Timeout::nanos)
    }

    #[inline(always)]
    pub(super) fn attempt_limit(&self) -> Option<u64> {
        self.attempt.as_ref().map(Timeout::nanos)
    }
}

#[inline(always)]
fn events_of(timeout: Option<&Timeout>) -> Option<&EventEmitter> {
    timeout.map(|timeout| &timeout.0.events)
}

fn time_out(timeout: Option<&Timeout>, after: std::time::Duration, attempted: bool) -> Rejection {
    timeout.expect("only a timeout that is there fires").0.time_out(after, attempted)
}

impl<C> timeout::HasTimeout<Total> for StackParts<C> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        events_of(self.total.as_ref())
    }

    fn time_out(&self, after: std::time::Duration, attempted: bool) -> Rejection {
        time_out(self.total.as_ref(), after, attempted)
    }
}

/// A server's stack has no other.
impl<C> timeout::HasTimeout<timeout::Standalone> for StackParts<C> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        events_of(self.total.as_ref())
    }

    fn time_out(&self, after: std::time::Duration, attempted: bool) -> Rejection {
        time_out(self.total.as_ref(), after, attempted)
    }
}

impl<C> timeout::HasTimeout<Attempt> for StackParts<C> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        events_of(self.attempt.as_ref())
    }

    fn time_out(&self, after: std::time::Duration, attempted: bool) -> Rejection {
        time_out(self.attempt.as_ref(), after, attempted)
    }
}

impl<C> HasEvents<rate_limit::RateLimiterInner> for StackParts<C> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        self.limiter.as_ref().map(|limiter| &limiter.0.events)
    }
}

impl<C> circuit_breaker::HasBreaker for StackParts<C> {
    type Classifier = C;

    #[inline(always)]
    fn breaker(&self) -> Option<&circuit_breaker::CircuitBreakerInner> {
        self.breaker.as_ref().map(|breaker| &*breaker.0)
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.classify
    }
}

impl<C> bulkhead::HasBulkhead for StackParts<C> {
    #[inline(always)]
    fn bulkhead(&self) -> Option<&bulkhead::BulkheadInner> {
        self.bulkhead.as_ref().map(|bulkhead| &*bulkhead.0)
    }
}
