use crate::{
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    event::{CircuitState, EventKind},
    rate_limit::RateLimiter,
    retry::Retry,
    timeout::Timeout,
};

/// The state that is lost if a handle is evicted: how it differs from a handle that is built for
/// its key later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EvictionLoss {
    /// None: a new handle would behave the same.
    Nothing,
    /// The history of earlier calls: consecutive failures, failed or slow calls in a window, a
    /// circuit that is half-open or whose open time is over, a retry budget that is not full.
    History,
    /// State that is in force: a call in flight, another reference to the handle, an open time or a
    /// debt of tokens that has not passed, a setting that was changed at run time.
    InForce,
}

/// A handle that can be kept per key. It knows what evicting it would lose.
///
/// The map holds no lock while it calls these methods, or clones, compares or drops a handle or a
/// key: all of them may use the map. A handle that is passed out meanwhile is not evicted.
pub trait Evict: Clone {
    /// Returns the loss, if this handle and the map's own are the only references left.
    ///
    /// `overflow` is the map's overflow handle. State that it shares with this handle, such as a
    /// retry budget, is not lost.
    fn eviction_loss(&self, overflow: &Self) -> EvictionLoss;

    /// Reports to the handle's observer that it was evicted along with its history.
    fn report_eviction(&self);
}

/// Nothing if `as_built`, or else state that is in force.
fn unless(as_built: bool) -> EvictionLoss {
    if as_built { EvictionLoss::Nothing } else { EvictionLoss::InForce }
}

impl Evict for CircuitBreaker {
    fn eviction_loss(&self, _: &Self) -> EvictionLoss {
        if self.0.is_in_use() {
            return EvictionLoss::InForce;
        }
        match self.state() {
            CircuitState::Closed if self.0.circuit.is_as_built(self.0.now()) => EvictionLoss::Nothing,
            CircuitState::Closed | CircuitState::HalfOpen => EvictionLoss::History,
            CircuitState::Open if self.snapshot().open_for.is_none_or(|left| left.is_zero()) => EvictionLoss::History,
            _ => EvictionLoss::InForce,
        }
    }

    /// Closes the circuit first, so that its last reported state is that of the next handle.
    fn report_eviction(&self) {
        self.0.close_evicted();
        self.0.events.emit(|| EventKind::Evicted);
    }
}

impl Evict for Bulkhead {
    fn eviction_loss(&self, _: &Self) -> EvictionLoss {
        let snapshot = self.snapshot();
        let idle = snapshot.in_flight == 0 && snapshot.waiting == 0;
        unless(!self.0.is_in_use() && idle && snapshot.limit == self.0.built_limit)
    }

    fn report_eviction(&self) {
        self.0.events.emit(|| EventKind::Evicted);
    }
}

impl Evict for RateLimiter {
    fn eviction_loss(&self, _: &Self) -> EvictionLoss {
        if self.0.is_in_use() {
            return EvictionLoss::InForce;
        }
        let snapshot = self.snapshot();
        unless(snapshot.full_after.is_zero() && (snapshot.rate, snapshot.burst) == self.0.built_rate)
    }

    fn report_eviction(&self) {
        self.0.events.emit(|| EventKind::Evicted);
    }
}

impl Evict for Timeout {
    fn eviction_loss(&self, _: &Self) -> EvictionLoss {
        unless(!self.0.is_in_use() && self.0.has_built_limit())
    }

    fn report_eviction(&self) {
        self.0.events.emit(|| EventKind::Evicted);
    }
}

impl Evict for Retry {
    fn eviction_loss(&self, overflow: &Self) -> EvictionLoss {
        if self.0.is_in_use() || self.0.max_attempts() != self.0.built_max_attempts {
            return EvictionLoss::InForce;
        }
        let lost = self.budget().filter(|budget| overflow.budget().is_none_or(|other| !budget.shares_with(other)));
        if lost.is_some_and(|budget| !budget.is_full()) { EvictionLoss::History } else { EvictionLoss::Nothing }
    }

    fn report_eviction(&self) {
        self.0.events.emit(|| EventKind::Evicted);
    }
}

impl<A: Evict, B: Evict> Evict for (A, B) {
    fn eviction_loss(&self, overflow: &Self) -> EvictionLoss {
        self.0.eviction_loss(&overflow.0).max(self.1.eviction_loss(&overflow.1))
    }

    fn report_eviction(&self) {
        self.0.report_eviction();
        self.1.report_eviction();
    }
}

impl<A: Evict, B: Evict, C: Evict> Evict for (A, B, C) {
    fn eviction_loss(&self, overflow: &Self) -> EvictionLoss {
        let others = self.1.eviction_loss(&overflow.1).max(self.2.eviction_loss(&overflow.2));
        self.0.eviction_loss(&overflow.0).max(others)
    }

    fn report_eviction(&self) {
        self.0.report_eviction();
        self.1.report_eviction();
        self.2.report_eviction();
    }
}
