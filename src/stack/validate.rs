//! Contradictions between the parts of a stack.

use std::time::Duration;

use super::parts::StackParts;
use crate::{circuit_breaker::CircuitBreaker, error::ConfigError};

/// Checks that no part waits or runs for longer than the timeout around it.
pub(super) fn validate<C>(parts: &StackParts<C>, retry_deadline: Option<Duration>) -> Result<(), ConfigError> {
    let (total, attempt) = (parts.total_limit(), parts.attempt_limit());
    if total == Some(Duration::ZERO) {
        return Err(ConfigError::new("total_timeout", "is zero: no call could complete"));
    }
    below("attempt_timeout", "", attempt, "total timeout", total)?;
    // A deadline that equals the total timeout is redundant but harmless.
    let above_total = total.map(|total| total.saturating_add(Duration::from_nanos(1)));
    below("retry", "a deadline of ", retry_deadline, "total timeout", above_total)?;
    let queue = parts.bulkhead.as_option().map(|bulkhead| bulkhead.snapshot().max_wait);
    below("bulkhead", "a wait of ", queue.filter(|wait| !wait.is_zero()), "total timeout", total)?;
    let pace = parts.limiter.as_option().map(|limiter| limiter.snapshot().max_wait);
    below("rate_limiter", "a wait of ", pace.filter(|wait| !wait.is_zero()), "total timeout", total)?;
    let slow = parts.breaker.as_option().and_then(CircuitBreaker::slow_after);
    below("circuit_breaker", "no call could be slow and complete: ", slow, "attempt timeout", attempt)
}

fn below(
    field: &'static str,
    prefix: &str,
    inner: Option<Duration>,
    outer_name: &str,
    outer: Option<Duration>,
) -> Result<(), ConfigError> {
    match (inner, outer) {
        (Some(inner), Some(outer)) if inner >= outer && outer != Duration::MAX => {
            Err(ConfigError::new(field, format!("{prefix}{inner:?} is not below the {outer_name} of {outer:?}")))
        }
        _ => Ok(()),
    }
}
