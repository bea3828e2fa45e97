use std::{fmt, time::Duration};

use ::http::StatusCode;

use super::{ResponseHead, TransportError, hint};
use crate::{
    classify::{Classify, DefaultClassifier, Verdict},
    error::{AsRejection, Rejection},
};

/// Judges HTTP responses by their status.
///
/// | result | verdict |
/// |---|---|
/// | 429 | throttled |
/// | 408, 425, 5xx | failure |
/// | any other status | success: the service did its work, and a 404 is an answer |
/// | a body that broke off, where it is watched ([`full_response`](super::full_response)) | failure |
/// | an error of the client | failure; ignored, if the request itself was wrong |
/// | a rejection by a layer inside | ignored; a timeout is a failure, as with [`DefaultClassifier`] |
///
/// It tells a retry how long to wait ([`retry_after`](super::retry_after), and for a 429 also
/// [`rate_limit_reset`](super::rate_limit_reset)), and what was surely not attempted: what found no connection, and what
/// was answered with 421, 425 or 429. A wait that is longer than the retry's
/// [`max_retry_after`](crate::retry::RetryBuilder::max_retry_after) is not waited for: the caller gets the response.
///
/// For `http::Response` and reqwest's.
#[derive(Clone, Copy, Default)]
pub struct HttpClassifier<F = ByStatus> {
    adjust: F,
}

/// Adjusts no status. See [`HttpClassifier::adjust`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ByStatus;

/// What a status means, where it is not the usual.
pub trait Adjust {
    /// The verdict on this status; `None` for the usual one.
    fn adjust(&self, status: StatusCode) -> Option<Verdict>;
}

impl Adjust for ByStatus {
    fn adjust(&self, _status: StatusCode) -> Option<Verdict> {
        None
    }
}

impl<F: Fn(StatusCode) -> Option<Verdict>> Adjust for F {
    fn adjust(&self, status: StatusCode) -> Option<Verdict> {
        self(status)
    }
}

impl HttpClassifier {
    /// Judges as the table says.
    pub const fn new() -> Self {
        Self { adjust: ByStatus }
    }
}

impl<A> HttpClassifier<A> {
    /// Judges some statuses otherwise; `None` for the usual verdict.
    ///
    /// ```
    /// use tower_rampart::{Verdict, http::HttpClassifier};
    ///
    /// let classify = HttpClassifier::new().adjust(|status| match status.as_u16() {
    ///     501 => Some(Verdict::Success), // a feature it does not have
    ///     423 => Some(Verdict::Failure), // locked, for a moment
    ///     _ => None,
    /// });
    /// # let _ = classify;
    /// ```
    pub fn adjust<F>(self, adjust: F) -> HttpClassifier<F>
    where
        F: Fn(StatusCode) -> Option<Verdict>,
    {
        HttpClassifier { adjust }
    }
}

impl<A: Adjust> HttpClassifier<A> {
    /// The verdict on a status.
    pub fn status(&self, status: StatusCode) -> Verdict {
        self.adjust.adjust(status).unwrap_or_else(|| verdict_for_status(status))
    }
}

pub(super) fn verdict_for_status(status: StatusCode) -> Verdict {
    match status {
        StatusCode::TOO_MANY_REQUESTS => Verdict::Throttled,
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Verdict::Failure,
        _ if status.is_server_error() => Verdict::Failure,
        _ => Verdict::Success,
    }
}

/// The verdict on an error, of whatever protocol.
pub(super) fn verdict_for_error<E: AsRejection + TransportError>(error: &E) -> Verdict {
    if error.is_request_invalid() {
        return Verdict::Ignored;
    }
    DefaultClassifier.classify(Err::<&(), _>(error))
}

impl<A, T, E> Classify<T, E> for HttpClassifier<A>
where
    A: Adjust,
    T: ResponseHead,
    E: AsRejection + TransportError,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(response) => match self.status(response.status()) {
                Verdict::Success if response.is_broken() => Verdict::Failure,
                verdict => verdict,
            },
            Err(error) => verdict_for_error(error),
        }
    }

    fn rejection<'e>(&self, error: &'e E) -> Option<&'e Rejection> {
        error.as_rejection()
    }

    fn was_attempted(&self, result: Result<&T, &E>) -> bool {
        match result {
            Ok(response) => !matches!(
                response.status(),
                StatusCode::MISDIRECTED_REQUEST | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            ),
            Err(error) => error.was_attempted(),
        }
    }

    fn retry_after(&self, result: Result<&T, &E>) -> Option<Duration> {
        let response = result.ok()?;
        let hint = hint::retry_after(response.headers());
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            return hint.or_else(|| hint::rate_limit_reset(response.headers()));
        }
        hint
    }
}

impl<A> fmt::Debug for HttpClassifier<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClassifier").finish_non_exhaustive()
    }
}
