//! What the calls of a stack are lent: the handles of its parts, behind one count.

use crate::{
    bulkhead::{self, Bulkhead},
    circuit_breaker::{self, CircuitBreaker},
    error::Rejection,
    event::Tell,
    guarded::Telling,
    rate_limit::{self, RateLimiter},
    timeout::{self, Boxed, Inline, Place, Timeout},
};

/// The parts of a stack, but for the retry. `None` is left out.
#[derive(Clone)]
pub(crate) struct Parts<C> {
    pub(super) total: Option<Timeout>,
    pub(super) limiter: Option<RateLimiter>,
    pub(super) breaker: Option<CircuitBreaker>,
    pub(super) bulkhead: Option<Bulkhead>,
    pub(super) attempt: Option<Timeout>,
    pub(super) classify: C,
}

/// The timeout around a client's retry. While an attempt runs it relies on that one's timer.
pub(crate) struct Total;

impl Place for Total {
    type Timer = Boxed;
}

/// The timeout of an attempt.
pub(crate) struct Attempt;

impl Place for Attempt {
    type Timer = Inline;
}

impl<C> Parts<C> {
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
fn tell_of(timeout: Option<&Timeout>) -> Option<&Tell> {
    timeout.map(|timeout| &timeout.0.tell)
}

fn time_out(timeout: Option<&Timeout>, after: std::time::Duration, attempted: bool) -> Rejection {
    timeout.expect("only a timeout that is there fires").0.time_out(after, attempted)
}

impl<C> timeout::Timing<Total> for Parts<C> {
    #[inline(always)]
    fn tell(&self) -> Option<&Tell> {
        tell_of(self.total.as_ref())
    }

    fn time_out(&self, after: std::time::Duration, attempted: bool) -> Rejection {
        time_out(self.total.as_ref(), after, attempted)
    }
}

/// A server's stack has no other.
impl<C> timeout::Timing<timeout::Alone> for Parts<C> {
    #[inline(always)]
    fn tell(&self) -> Option<&Tell> {
        tell_of(self.total.as_ref())
    }

    fn time_out(&self, after: std::time::Duration, attempted: bool) -> Rejection {
        time_out(self.total.as_ref(), after, attempted)
    }
}

impl<C> timeout::Timing<Attempt> for Parts<C> {
    #[inline(always)]
    fn tell(&self) -> Option<&Tell> {
        tell_of(self.attempt.as_ref())
    }

    fn time_out(&self, after: std::time::Duration, attempted: bool) -> Rejection {
        time_out(self.attempt.as_ref(), after, attempted)
    }
}

impl<C> Telling<rate_limit::Inner> for Parts<C> {
    #[inline(always)]
    fn tell(&self) -> Option<&Tell> {
        self.limiter.as_ref().map(|limiter| &limiter.0.tell)
    }
}

impl<C> circuit_breaker::Breaking for Parts<C> {
    type Classifier = C;

    #[inline(always)]
    fn breaker(&self) -> Option<&circuit_breaker::Inner> {
        self.breaker.as_ref().map(|breaker| &*breaker.0)
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.classify
    }
}

impl<C> bulkhead::Bounding for Parts<C> {
    #[inline(always)]
    fn bulkhead(&self) -> Option<&bulkhead::Inner> {
        self.bulkhead.as_ref().map(|bulkhead| &*bulkhead.0)
    }
}
