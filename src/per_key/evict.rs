use crate::{
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    rate_limit::RateLimiter,
    retry::Retry,
    timeout::Timeout,
};

/// A handle that can be kept per key. It knows whether evicting it would lose state.
pub trait Evict: Clone {
    /// Whether a new handle would behave the same from now on.
    fn is_evictable(&self) -> bool;
}

impl Evict for CircuitBreaker {
    fn is_evictable(&self) -> bool {
        match self.state() {
            CircuitState::Closed | CircuitState::HalfOpen => true,
            CircuitState::Open => self.snapshot().open_for.is_none_or(|left| left.is_zero()),
            _ => false,
        }
    }
}

impl Evict for Bulkhead {
    fn is_evictable(&self) -> bool {
        let snapshot = self.snapshot();
        snapshot.in_flight == 0 && snapshot.waiting == 0
    }
}

impl Evict for RateLimiter {
    fn is_evictable(&self) -> bool {
        self.snapshot().full_after.is_zero()
    }
}

impl Evict for Timeout {
    fn is_evictable(&self) -> bool {
        true
    }
}

impl Evict for Retry {
    fn is_evictable(&self) -> bool {
        true
    }
}

impl<A: Evict, B: Evict> Evict for (A, B) {
    fn is_evictable(&self) -> bool {
        self.0.is_evictable() && self.1.is_evictable()
    }
}

impl<A: Evict, B: Evict, C: Evict> Evict for (A, B, C) {
    fn is_evictable(&self) -> bool {
        self.0.is_evictable() && self.1.is_evictable() && self.2.is_evictable()
    }
}
