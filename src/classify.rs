//! Classification: how a result counts.
//!
//! A breaker counts [`Verdict`]s, and a retry decides by them. Both get them from a [`Classify`]
//! implementation. The [`DefaultClassifier`] tells `Ok` from `Err`, and a layer's rejection from
//! the service's own failure. For anything else, write a closure:
//!
//! ```
//! use tower_rampart::{Classify, Verdict};
//!
//! // An `Ok` with an error status is a failure, too. (The closure needs the argument types.)
//! let by_status = |result: Result<&u16, &std::io::Error>| match result {
//!     Ok(429) => Verdict::Throttled,
//!     Ok(500..) => Verdict::Failure,
//!     Ok(_) => Verdict::Success,
//!     Err(_) => Verdict::Failure,
//! };
//! assert_eq!(by_status.classify(Ok(&503)), Verdict::Failure);
//! ```

use std::{fmt, time::Duration};

use crate::error::{AsRejection, Rejection};
pub use crate::verdict::Verdict;

/// Classifies results.
///
/// Implemented by every `Fn(Result<&T, &E>) -> Verdict`. The other three methods have defaults that
/// make no assumptions, so a closure requires nothing of the error type. [`ClassifyFn`] wraps a
/// closure and also recognizes rejections.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot classify results with the error `{E}`",
    label = "the default classifier needs `{E}: AsRejection`",
    note = "for your own error type, implement `tower_rampart::AsRejection` (three lines)",
    note = "for a foreign error, put `AdaptErrorLayer` innermost: it turns `{E}` into `tower_rampart::Error<{E}>`",
    note = "or give the layer your own classifier, such as a closure (`.classify(..)`), which needs no `AsRejection`"
)]
pub trait Classify<T, E> {
    /// Returns how this result counts.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;

    /// Returns the rejection in this error, if the classifier recognizes one.
    fn rejection<'e>(&self, error: &'e E) -> Option<&'e Rejection> {
        let _ = error;
        None
    }

    /// Returns whether the service may have processed the request: `false` only if it certainly has
    /// not, because no connection was established or because the service said so. Called for
    /// results that are not rejections.
    fn was_attempted(&self, result: Result<&T, &E>) -> bool {
        let _ = result;
        true
    }

    /// Returns how long the service asks its callers to wait before the next attempt, if this
    /// result says so.
    fn retry_after(&self, result: Result<&T, &E>) -> Option<Duration> {
        let _ = result;
        None
    }
}

impl<F, T, E> Classify<T, E> for F
where
    F: Fn(Result<&T, &E>) -> Verdict,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        self(result)
    }
}

/// Classifies with a closure, and recognizes rejections.
///
/// The retry layer's and the client stack's `classify_with` make it. A retry needs more than a
/// verdict: a call that timed out may have been processed, and must not be retried merely because
/// it is a failure.
#[derive(Clone, Copy)]
pub struct ClassifyFn<F>(F);

impl<F> ClassifyFn<F> {
    /// Wraps `verdict`.
    pub const fn new(verdict: F) -> Self {
        Self(verdict)
    }
}

impl<F, T, E> Classify<T, E> for ClassifyFn<F>
where
    F: Fn(Result<&T, &E>) -> Verdict,
    E: AsRejection,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        (self.0)(result)
    }

    fn rejection<'e>(&self, error: &'e E) -> Option<&'e Rejection> {
        error.as_rejection()
    }
}

impl<F> fmt::Debug for ClassifyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClassifyFn").finish_non_exhaustive()
    }
}

/// The default classifier: `Ok` is a success and `Err` a failure. A [`Rejection`] from an inner
/// layer is ignored, unless it is a timeout, which is a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DefaultClassifier;

impl<T, E: AsRejection> Classify<T, E> for DefaultClassifier {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result.map_err(AsRejection::as_rejection) {
            Ok(_) => Verdict::Success,
            Err(None) => Verdict::Failure,
            Err(Some(rejection)) => rejection.semantics().verdict,
        }
    }

    fn rejection<'e>(&self, error: &'e E) -> Option<&'e Rejection> {
        error.as_rejection()
    }
}

/// Classifies `Ok` as a success and `Err` of any type as a failure.
///
/// Patterns without a classifier (bulkhead, rate limiter, timeout) report its verdict in their
/// events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResultClassifier;

impl<T, E> Classify<T, E> for ResultClassifier {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}
