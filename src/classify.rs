//! Classification: how a result counts.
//!
//! A breaker counts [`Verdict`]s, and a retry decides by them. They ask a [`Classify`]
//! implementation about the service's own results: the [`DefaultClassifier`] tells `Ok` from `Err`,
//! and for anything else, write a closure. A [`Rejection`] by an inner layer is not such a result.
//! Breaker and retry recognize it themselves ([`AsRejection`](crate::AsRejection)), whatever the
//! classifier: to a breaker, a timeout is a failure and any other rejection is ignored; a retry
//! follows the [table of rejections](crate::error#what-a-rejection-means).
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

use std::time::Duration;

use crate::error::Rejection;
pub use crate::verdict::Verdict;

/// Classifies the results of a service.
///
/// Implemented by every `Fn(Result<&T, &E>) -> Verdict`. The other methods have defaults: a
/// rejection has its [default verdict](Rejection::default_verdict), a request may have been
/// processed, and no response says when to retry.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot classify a `Result<&{T}, &{E}>`",
    note = "a closure must name the types of its argument: `|result: Result<&Response, &Error>| ..`"
)]
pub trait Classify<T, E> {
    /// Returns how this result counts. Not called for rejections.
    fn classify(&self, result: Result<&T, &E>) -> Verdict;

    /// Returns how a rejection by an inner layer counts. The default is its [default
    /// verdict](Rejection::default_verdict).
    ///
    /// A retry asks only about a timeout, and retries one that is a failure if the request is
    /// idempotent. For the other rejections it has rules of its own: see the
    /// [table](crate::error#what-a-rejection-means).
    fn classify_rejection(&self, rejection: &Rejection) -> Verdict {
        rejection.default_verdict()
    }

    /// Returns whether the service may have processed the request: `false` only if it certainly has
    /// not, because no connection was established or because the service said so. Not called for
    /// rejections.
    fn was_attempted(&self, result: Result<&T, &E>) -> bool {
        let _ = result;
        true
    }

    /// Marks a response with which a retry stops although it could be retried: attempts, time or
    /// budget are used up. A retry outside does not retry a response that [is
    /// marked](Self::is_exhausted). By default, responses cannot be marked.
    fn mark_exhausted(&self, response: &mut T) {
        let _ = response;
    }

    /// Returns whether the response [is marked](Self::mark_exhausted), or `None` if it cannot be.
    ///
    /// An unmarked response may be retried whatever retries inside did for other calls. Where
    /// responses cannot be marked, as for errors, the attempts of nested retries are
    /// [bounded](crate::retry#nested-retries) together.
    fn is_exhausted(&self, response: &T) -> Option<bool> {
        let _ = response;
        None
    }

    /// Returns how long the service asks its callers to wait before the next attempt, if this
    /// result says so. Not called for rejections.
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

/// The default classifier: `Ok` is a success and `Err` a failure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DefaultClassifier;

impl<T, E> Classify<T, E> for DefaultClassifier {
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        if result.is_ok() { Verdict::Success } else { Verdict::Failure }
    }
}
