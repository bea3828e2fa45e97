use std::{fmt, time::Duration};

use super::as_rejection::take_lookup;
use crate::{name::Name, pattern::Pattern, state::time::CompactDuration, verdict::Verdict};

/// Why a layer rejected or abandoned a call.
///
/// At most 32 bytes, cheap to clone, and independent of the service's error type. It says which
/// pattern rejected ([`kind`](Self::kind)), which instance ([`name`](Self::name)), when to retry
/// ([`retry_after`](Self::retry_after)), and whether the service may have processed the request
/// ([`was_attempted`](Self::was_attempted)). The [module docs](super#what-a-rejection-means) have a
/// table of all variants.
///
/// Variants may gain fields: match with `..`, and use the constructors to make one, in tests for
/// instance.
// The tag is a whole word, the small fields come before the large ones, and the name is in one
// place: moving a rejection in pieces of unequal size, or looking for its name, would cost more
// than making it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum Rejection {
    /// The circuit breaker is open, or half-open with all its probes in flight.
    #[non_exhaustive]
    CircuitOpen {
        /// The breaker's name.
        name: Name,
        /// Time until the breaker admits a probe; `None` if unknown, as when it was forced open
        /// manually.
        retry_after: Option<CompactDuration>,
    },
    /// The circuit breaker is closed again after an outage, and admits only a part of the calls for
    /// now, which grows
    /// ([`gradual_recovery`](crate::circuit_breaker::CircuitBreakerBuilder::gradual_recovery)).
    #[non_exhaustive]
    CircuitRecovering {
        /// The share of the calls that it admits, in percent.
        admitted_percent: u32,
        /// The breaker's name.
        name: Name,
    },
    /// The bulkhead had no free permit and no free queue slot.
    #[non_exhaustive]
    BulkheadFull {
        /// The number of calls it admits concurrently.
        limit: u32,
        /// The bulkhead's name.
        name: Name,
    },
    /// The call got no permit from the bulkhead within the maximum wait.
    #[non_exhaustive]
    QueueTimeout {
        /// The bulkhead's name.
        name: Name,
        /// The maximum wait.
        after: CompactDuration,
    },
    /// The rate limiter has no token for this call.
    #[non_exhaustive]
    RateLimited {
        /// The limiter's burst: the most it admits at one instant.
        limit: u32,
        /// The limiter's name.
        name: Name,
        /// Time until the call would conform; `None` if it never can, because it costs more than
        /// the burst.
        retry_after: Option<CompactDuration>,
    },
    /// The call did not complete in time.
    #[non_exhaustive]
    TimedOut {
        /// Whether the service was called at all: `false` if the deadline had already passed.
        attempted: bool,
        /// Whether a deadline set by the caller ended the call before the timeout's own limit, so
        /// that this says nothing about the service.
        cut_short: bool,
        /// The timeout's name.
        name: Name,
        /// The limit that was exceeded: the timeout's own, or the time that the caller's deadline
        /// left.
        after: CompactDuration,
    },
}

// The documented size: rejections travel by value through every result.
const _: () = assert!(size_of::<Rejection>() <= 32);

impl Rejection {
    /// Creates a [`CircuitOpen`](Self::CircuitOpen) of the breaker `name`.
    #[inline]
    pub fn circuit_open(name: impl Into<Name>, retry_after: Option<Duration>) -> Self {
        Self::CircuitOpen { name: name.into(), retry_after: retry_after.map(CompactDuration::from) }
    }

    /// Creates a [`CircuitRecovering`](Self::CircuitRecovering) of the breaker `name`.
    #[inline]
    pub fn circuit_recovering(name: impl Into<Name>, admitted_percent: u32) -> Self {
        Self::CircuitRecovering { name: name.into(), admitted_percent }
    }

    /// Creates a [`BulkheadFull`](Self::BulkheadFull) of the bulkhead `name`.
    #[inline]
    pub fn bulkhead_full(name: impl Into<Name>, limit: u32) -> Self {
        Self::BulkheadFull { name: name.into(), limit }
    }

    /// Creates a [`QueueTimeout`](Self::QueueTimeout) of the bulkhead `name`.
    #[inline]
    pub fn queue_timeout(name: impl Into<Name>, after: Duration) -> Self {
        Self::QueueTimeout { name: name.into(), after: after.into() }
    }

    /// Creates a [`RateLimited`](Self::RateLimited) of the limiter `name`.
    #[inline]
    pub fn rate_limited(name: impl Into<Name>, retry_after: Option<Duration>, limit: u32) -> Self {
        Self::RateLimited { limit, name: name.into(), retry_after: retry_after.map(CompactDuration::from) }
    }

    /// Creates a [`TimedOut`](Self::TimedOut) of the timeout `name`.
    #[inline]
    pub fn timed_out(name: impl Into<Name>, after: Duration, attempted: bool) -> Self {
        Self::TimedOut { attempted, cut_short: false, name: name.into(), after: after.into() }
    }

    /// Creates a [`TimedOut`](Self::TimedOut) of a call that the caller's deadline ended before the
    /// limit of the timeout `name`.
    #[inline]
    pub fn cut_short(name: impl Into<Name>, after: Duration) -> Self {
        Self::TimedOut { attempted: true, cut_short: true, name: name.into(), after: after.into() }
    }

    /// Returns the pattern that rejected the call.
    pub fn kind(&self) -> Pattern {
        self.semantics().pattern
    }

    /// Returns the name of the instance that rejected the call.
    pub fn name(&self) -> &Name {
        match self {
            Self::CircuitOpen { name, .. }
            | Self::CircuitRecovering { name, .. }
            | Self::BulkheadFull { name, .. }
            | Self::QueueTimeout { name, .. }
            | Self::RateLimited { name, .. }
            | Self::TimedOut { name, .. } => name,
        }
    }

    /// Returns the reason as a short, stable label for logs and metrics, such as `"circuit_open"`.
    pub fn reason(&self) -> &'static str {
        self.semantics().reason
    }

    /// Returns how long to wait before another attempt makes sense, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen { retry_after, .. } | Self::RateLimited { retry_after, .. } => {
                retry_after.map(CompactDuration::get)
            }
            Self::CircuitRecovering { .. }
            | Self::BulkheadFull { .. }
            | Self::QueueTimeout { .. }
            | Self::TimedOut { .. } => None,
        }
    }

    /// Returns how the rejection counts unless a classifier decides otherwise
    /// ([`Classify::classify_rejection`](crate::Classify::classify_rejection)): a timeout is a
    /// failure, any other rejection is ignored.
    pub fn default_verdict(&self) -> Verdict {
        self.semantics().verdict
    }

    /// Returns whether the inner service may have processed the request. If `false`, retrying is
    /// safe even if the request is not idempotent.
    pub fn was_attempted(&self) -> bool {
        self.semantics().attempted
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CircuitOpen { name, retry_after: Some(after) } => {
                write!(f, "circuit breaker `{name}` is open, retry after {after:?}")
            }
            Self::CircuitOpen { name, retry_after: None } => write!(f, "circuit breaker `{name}` is open"),
            Self::CircuitRecovering { name, admitted_percent } => {
                write!(f, "circuit breaker `{name}` is recovering and admits {admitted_percent}% of the calls")
            }
            Self::BulkheadFull { name, limit } => write!(f, "bulkhead `{name}` is full at its limit of {limit}"),
            Self::QueueTimeout { name, after } => {
                write!(f, "bulkhead `{name}` had no permit within {after:?}")
            }
            Self::RateLimited { name, retry_after: Some(after), .. } => {
                write!(f, "rate limiter `{name}` rejected the call, retry after {after:?}")
            }
            Self::RateLimited { name, retry_after: None, limit } => {
                write!(f, "rate limiter `{name}` rejected the call: its cost exceeds the burst of {limit}")
            }
            Self::TimedOut { name, after, attempted: true, cut_short: false } => {
                write!(f, "timeout `{name}` fired after {after:?}")
            }
            Self::TimedOut { name, after, attempted: true, cut_short: true } => {
                write!(f, "timeout `{name}` fired after {after:?}, at the caller's deadline")
            }
            Self::TimedOut { name, after, attempted: false, .. } => {
                write!(f, "timeout `{name}` of {after:?} had no time left to call the service")
            }
        }
    }
}

impl std::error::Error for Rejection {
    /// None, except while this crate looks for a rejection in an error of unknown lifetime: then
    /// the rejection itself.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if take_lookup() { Some(self) } else { None }
    }
}

impl From<Rejection> for std::io::Error {
    /// Keeps the rejection as the inner error. The kind is
    /// [`TimedOut`](std::io::ErrorKind::TimedOut) for a timeout and
    /// [`Other`](std::io::ErrorKind::Other) for all others.
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection.kind() {
            Pattern::Timeout => std::io::ErrorKind::TimedOut,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, rejection)
    }
}
