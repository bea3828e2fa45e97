//! How a result counts: [`Verdict`] and the [`Classify`] trait that gives it.
//!
//! A breaker counts verdicts and a retry repeats by them. Both ask a classifier, and both come with
//! [`DefaultClassifier`], which knows `Ok` from `Err` and a refusal by a layer from a failure of the service. Anything
//! that knows more is a closure away:
//!
//! ```
//! use tower_rampart::{Classify, Verdict};
//!
//! // `Ok` with a status can be a failure too. (Types are given for the closure's sake.)
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

/// Judges results.
///
/// Implemented by every `Fn(Result<&T, &E>) -> Verdict`. The three hints have defaults that know nothing, so that a
/// closure asks nothing of the error type. [`ClassifyFn`] is a closure that knows rejections.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot judge results with the error `{E}`",
    label = "the default classifier needs `{E}: AsRejection`",
    note = "for an error of your own, implement `tower_rampart::AsRejection` (three lines)",
    note = "for a foreign error, put `AdaptErrorLayer` innermost: it turns `{E}` into `tower_rampart::Error<{E}>`",
    note = "or give the layer a classifier of your own, such as a closure (`.classify(..)`), which needs no `AsRejection`"
)]
pub trait Classify<T, E> {
    /// How this result counts.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;

    /// The rejection in this error, if the classifier can tell.
    fn rejection<'e>(&self, error: &'e E) -> Option<&'e Rejection> {
        let _ = error;
        None
    }

    /// Whether the service may have seen the request; `false` only if it surely has not, because no connection came to
    /// be, or because the service said so. Asked of results that are not rejections.
    fn was_attempted(&self, result: Result<&T, &E>) -> bool {
        let _ = result;
        true
    }

    /// How long the service itself asked to be left alone, if this result says so.
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

/// Judges by a closure, and knows a rejection when it sees one. Made by the `classify_with` of what repeats calls: there
/// a verdict is not enough, since a call that timed out may have been done, and must not be repeated for a failure.
#[derive(Clone, Copy)]
pub struct ClassifyFn<F>(F);

impl<F> ClassifyFn<F> {
    /// Judges by `verdict`.
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

/// The classifier of a layer that was given none: `Ok` is a success and `Err` a failure, but a [`Rejection`] by a
/// layer below is ignored, unless it is a timeout, which is a failure.
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

/// `Ok` is a success, `Err` a failure, of whatever type.
///
/// What patterns that do not judge (bulkhead, rate limiter, timeout) report in their events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ResultClassifier;

impl<T, E> Classify<T, E> for ResultClassifier {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}
