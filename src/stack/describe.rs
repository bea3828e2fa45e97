//! Short descriptions of stacks and their parts.

use std::fmt;

use crate::{
    bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, name::Name, rate_limit::RateLimiter, retry::Retry,
    timeout::Timeout,
};

/// Writes the description of a stack, from its outermost part to the service.
pub(super) fn stack<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    kind: &str,
    name: &Name,
    parts: [Option<String>; N],
) -> fmt::Result {
    write!(f, "{kind} stack `{name}`: ")?;
    for part in parts.into_iter().flatten() {
        write!(f, "{part} -> ")?;
    }
    f.write_str("service")
}

pub(super) fn timeout(label: &str, timeout: &Timeout) -> String {
    format!("{label} {:?}", timeout.limit())
}

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
