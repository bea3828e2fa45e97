//! The parts in a few words each.

use crate::{bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, rate_limit::RateLimiter, retry::Retry};

pub(super) fn retry(retry: &Retry) -> String {
    let snapshot = retry.snapshot();
    let budget = match snapshot.budget {
        Some(budget) => format!("budget {} of successes, {} at most", budget.ratio, budget.capacity),
        None => "no budget".to_owned(),
    };
    format!("retry ({} attempts, {budget})", snapshot.max_attempts)
}

pub(super) fn limiter(limiter: &RateLimiter) -> String {
    let snapshot = limiter.snapshot();
    format!("rate limiter ({}, burst {}, waits {:?})", snapshot.rate, snapshot.burst, snapshot.max_wait)
}

pub(super) fn breaker(breaker: &CircuitBreaker) -> String {
    format!("circuit breaker ({})", breaker.describe())
}

pub(super) fn bulkhead(bulkhead: &Bulkhead) -> String {
    let snapshot = bulkhead.snapshot();
    format!("bulkhead ({} at once, waits {:?})", snapshot.limit, snapshot.max_wait)
}
