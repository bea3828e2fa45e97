//! How a result counts.

use std::fmt;

/// How a result counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verdict {
    /// The service did its work. Resets the count of consecutive failures and refills a retry
    /// budget.
    Success,
    /// The service failed, and another attempt may succeed.
    Failure,
    /// The service is alive but pushes back (429, `RESOURCE_EXHAUSTED`). Degrades a breaker's rates
    /// and fails its probes, but neither extends nor resets the count of consecutive failures.
    /// Retried like a failure, after the service's hint if it gave one.
    Throttled,
    /// Says nothing about the service's health: the caller's own mistake, or a rejection by a layer
    /// on the way. Neither counted nor retried.
    Ignored,
}

impl Verdict {
    /// A short, stable label for logs and metrics, such as `"success"`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Throttled => "throttled",
            Self::Ignored => "ignored",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
