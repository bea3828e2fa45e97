use std::{fmt, time::Duration};

use super::as_rejection::is_asked;
use crate::{name::Name, pattern::Pattern};

/// Why a layer refused a call, or gave it up.
///
/// At most 40 bytes, cheap to clone, and independent of the service's error type. It answers four questions: which
/// pattern ([`kind`](Self::kind)), which instance ([`name`](Self::name)), when to come back
/// ([`retry_after`](Self::retry_after)), and whether the service may have seen the request
/// ([`was_attempted`](Self::was_attempted)).
///
/// Variants may gain fields: match with `..`, and use the constructors to make one, in tests for instance.
// The tag is a whole word and the small fields come before the large ones: moved in pieces of unequal size, a rejection
// would cost more than the refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u32)]
pub enum Rejection {
    /// The circuit breaker is open, or half-open with all its probes in flight.
    #[non_exhaustive]
    CircuitOpen {
        /// The breaker's name.
        name: Name,
        /// Time until the breaker will look again; `None` when it is unknown, as when it was forced open by hand.
        retry_after: Option<Duration>,
    },
    /// The bulkhead had no free permit and no free place in its queue.
    #[non_exhaustive]
    BulkheadFull {
        /// Calls it lets in at once.
        limit: u32,
        /// The bulkhead's name.
        name: Name,
    },
    /// The call waited for a permit of the bulkhead for as long as it was allowed to.
    #[non_exhaustive]
    QueueTimeout {
        /// The bulkhead's name.
        name: Name,
        /// How long it was allowed to wait.
        after: Duration,
    },
    /// The rate limiter has no token for this call.
    #[non_exhaustive]
    RateLimited {
        /// The limiter's burst: the most it admits at one instant.
        limit: u32,
        /// The limiter's name.
        name: Name,
        /// Time until the call would conform; `None` when it never can, because it costs more than the burst.
        retry_after: Option<Duration>,
    },
    /// The call did not end in time.
    #[non_exhaustive]
    TimedOut {
        /// Whether the service was called at all: `false` when the deadline had passed before.
        attempted: bool,
        /// The timeout's name.
        name: Name,
        /// The limit that was exceeded.
        after: Duration,
    },
}

// The size is a promise: rejections travel by value through every result.
const _: () = assert!(size_of::<Rejection>() <= 40);

impl Rejection {
    /// A [`CircuitOpen`](Self::CircuitOpen) of the breaker `name`.
    #[inline]
    pub fn circuit_open(name: impl Into<Name>, retry_after: Option<Duration>) -> Self {
        Self::CircuitOpen { name: name.into(), retry_after }
    }

    /// A [`BulkheadFull`](Self::BulkheadFull) of the bulkhead `name`.
    #[inline]
    pub fn bulkhead_full(name: impl Into<Name>, limit: u32) -> Self {
        Self::BulkheadFull { name: name.into(), limit }
    }

    /// A [`QueueTimeout`](Self::QueueTimeout) of the bulkhead `name`.
    #[inline]
    pub fn queue_timeout(name: impl Into<Name>, after: Duration) -> Self {
        Self::QueueTimeout { name: name.into(), after }
    }

    /// A [`RateLimited`](Self::RateLimited) of the limiter `name`.
    #[inline]
    pub fn rate_limited(name: impl Into<Name>, retry_after: Option<Duration>, limit: u32) -> Self {
        Self::RateLimited { name: name.into(), retry_after, limit }
    }

    /// A [`TimedOut`](Self::TimedOut) of the timeout `name`.
    #[inline]
    pub fn timed_out(name: impl Into<Name>, after: Duration, attempted: bool) -> Self {
        Self::TimedOut { name: name.into(), after, attempted }
    }

    /// Which pattern refused.
    pub fn kind(&self) -> Pattern {
        self.semantics().pattern
    }

    /// Which instance refused.
    pub fn name(&self) -> &Name {
        match self {
            Self::CircuitOpen { name, .. }
            | Self::BulkheadFull { name, .. }
            | Self::QueueTimeout { name, .. }
            | Self::RateLimited { name, .. }
            | Self::TimedOut { name, .. } => name,
        }
    }

    /// The reason as a short, stable label for logs and metrics, such as `"circuit_open"`.
    pub fn reason(&self) -> &'static str {
        self.semantics().reason
    }

    /// When it makes sense to come back, if that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::CircuitOpen { retry_after, .. } | Self::RateLimited { retry_after, .. } => *retry_after,
            Self::BulkheadFull { .. } | Self::QueueTimeout { .. } | Self::TimedOut { .. } => None,
        }
    }

    /// Whether the service below may have seen the request. `false` means that repeating it is surely safe, also when
    /// the request is not idempotent.
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
            Self::BulkheadFull { name, limit } => write!(f, "bulkhead `{name}` is full at its limit of {limit}"),
            Self::QueueTimeout { name, after } => {
                write!(f, "bulkhead `{name}` had no permit within {after:?}")
            }
            Self::RateLimited { name, retry_after: Some(after), .. } => {
                write!(f, "rate limiter `{name}` refused, retry after {after:?}")
            }
            Self::RateLimited { name, retry_after: None, limit } => {
                write!(f, "rate limiter `{name}` refused, the cost exceeds its burst of {limit}")
            }
            Self::TimedOut { name, after, attempted: true } => write!(f, "timeout `{name}` fired after {after:?}"),
            Self::TimedOut { name, after, attempted: false } => {
                write!(f, "timeout `{name}` of {after:?} had no time left to call the service")
            }
        }
    }
}

impl std::error::Error for Rejection {
    /// None; what looks for a rejection in an error of unknown lifetime is answered with the rejection itself.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if is_asked() { Some(self) } else { None }
    }
}

impl From<Rejection> for std::io::Error {
    /// Keeps the rejection as the inner error; a timeout has the kind [`TimedOut`](std::io::ErrorKind::TimedOut), all
    /// others have [`Other`](std::io::ErrorKind::Other).
    fn from(rejection: Rejection) -> Self {
        let kind = match rejection.kind() {
            Pattern::Timeout => std::io::ErrorKind::TimedOut,
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, rejection)
    }
}
