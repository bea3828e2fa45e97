//! The states of a circuit breaker, and transitions between them.

use std::fmt;

/// The state of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CircuitState {
    /// Calls are admitted and counted.
    Closed,
    /// Calls are rejected until the open time has passed.
    Open,
    /// A few calls are admitted as probes, whose outcomes close the circuit or open it again.
    HalfOpen,
    /// Calls are rejected until the state is changed manually.
    ForcedOpen,
    /// Calls are admitted and counted, but never trip the circuit.
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

/// The reason for a transition of a circuit breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cause {
    /// Too many consecutive failures.
    ConsecutiveFailures,
    /// The failure rate of a window reached its threshold.
    FailureRate,
    /// The rate of slow calls in a window reached its threshold.
    SlowRate,
    /// The open time has passed.
    OpenTimeout,
    /// Enough probes succeeded.
    ProbeSucceeded,
    /// A probe failed, or was slow.
    ProbeFailed,
    /// The service asked the caller to retry later.
    RetryAfter,
    /// The state was set manually.
    Manual,
    /// A `PerKey` evicted the breaker. Its key starts over with a closed one.
    Evicted,
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
            Self::Evicted => "evicted",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A change of state, returned to the one caller whose compare-and-swap made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub(crate) from: CircuitState,
    pub(crate) to: CircuitState,
    /// The generation that begins with it.
    pub(crate) generation: u64,
    pub(crate) cause: Cause,
}
