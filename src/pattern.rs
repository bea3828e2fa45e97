//! The list of patterns.

use std::fmt;

/// The patterns of this crate.
///
/// Names the pattern in a [`Rejection`](crate::Rejection) and in an [`Event`](crate::Event).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pattern {
    /// [`circuit_breaker`](crate::circuit_breaker)
    CircuitBreaker,
    /// [`retry`](crate::retry)
    Retry,
    /// [`timeout`](crate::timeout)
    Timeout,
    /// [`bulkhead`](crate::bulkhead)
    Bulkhead,
    /// [`rate_limit`](crate::rate_limit)
    RateLimiter,
    /// [`fallback`](crate::fallback)
    Fallback,
}

impl Pattern {
    /// Every pattern, in the order of declaration.
    pub const ALL: &'static [Self] =
        &[Self::CircuitBreaker, Self::Retry, Self::Timeout, Self::Bulkhead, Self::RateLimiter, Self::Fallback];

    /// A short, stable label for logs and metrics, such as `"circuit_breaker"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CircuitBreaker => "circuit_breaker",
            Self::Retry => "retry",
            Self::Timeout => "timeout",
            Self::Bulkhead => "bulkhead",
            Self::RateLimiter => "rate_limiter",
            Self::Fallback => "fallback",
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests;
