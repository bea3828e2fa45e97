//! States of a circuit and the ways between them.

use std::fmt;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls pass and are counted.
    Closed,
    /// Calls are refused until the open time has passed.
    Open,
    /// A few calls pass as probes; they decide whether to close or to open again.
    HalfOpen,
    /// Calls are refused until somebody decides otherwise.
    ForcedOpen,
    /// Calls pass and are counted, but nothing trips.
    Disabled,
}

impl CircuitState {
    /// A short, stable label for logs and metrics, such as `"half_open"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::ForcedOpen => "forced_open",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for CircuitState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why a circuit breaker changed its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Too many failures in a row.
    ConsecutiveFailures,
    /// Too large a share of failures in a window.
    FailureRate,
    /// Too large a share of slow calls in a window.
    SlowRate,
    /// The open time has passed.
    OpenTimeout,
    /// Enough probes succeeded.
    ProbeSucceeded,
    /// A probe failed, or was slow.
    ProbeFailed,
    /// The service asked to be left alone.
    RetryAfter,
    /// Somebody said so.
    Manual,
}

impl Cause {
    /// A short, stable label for logs and metrics, such as `"failure_rate"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::FailureRate => "failure_rate",
            Self::SlowRate => "slow_rate",
            Self::OpenTimeout => "open_timeout",
            Self::ProbeSucceeded => "probe_succeeded",
            Self::ProbeFailed => "probe_failed",
            Self::RetryAfter => "retry_after",
            Self::Manual => "manual",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A change of state. Returned to the one caller whose compare-and-swap made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    /// The generation that begins.
    pub(crate) generation: u64,
    pub(crate) cause: Cause,
}
