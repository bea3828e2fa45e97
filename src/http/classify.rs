use std::{fmt, time::Duration};

use ::http::StatusCode;

use super::{ErrorOrigin, ResponseHead, TransportError, head, hint};
use crate::{
    classify::{Classify, Verdict},
    deadline,
};

/// Classifies HTTP responses by their status.
///
/// | result | verdict |
/// |---|---|
/// | 429 | throttled |
/// | 408, 425, 5xx | failure |
/// | 504, once the [deadline](crate::deadline::scope) set by the caller has passed | ignored |
/// | any other status | success: the service did its work, and a 404 is a valid response |
/// | a body that broke off, under [`full_response`](super::full_response) | failure |
/// | a body that its reader did not read within a time limit, under `full_response` | ignored |
/// | an error of the client | that of its [origin](super::ErrorOrigin): ignored if the request or the caller is at fault |
/// | a rejection by an inner layer | its [default verdict](crate::Rejection::default_verdict): a timeout is a failure, any other rejection is ignored |
///
/// The classifier passes two things to a retry. The first is how long to wait:
/// [`retry_after`](super::retry_after), and for a 429 also
/// [`rate_limit_reset`](super::rate_limit_reset). If that exceeds the retry's
/// [`max_retry_after`](crate::retry::RetryBuilder::max_retry_after), the retry does not wait, and
/// the caller gets the response. The second is which requests were certainly not processed: those
/// that found no connection, and those that got a 421, 425 or 429.
///
/// Works with `http::Response` and `reqwest::Response`.
///
/// # Redirects
///
/// A refused connection and a 429 say that nothing was processed, but only in the last exchange. If
/// a POST is answered with a redirect, and the redirect's target with a 429, the POST has been
/// processed. reqwest follows redirects and does not say whether it did, so its results never count
/// as unprocessed, unless [`single_exchange`](Self::single_exchange) is set. hyper-util's client
/// and tonic do not follow redirects. A layer that does, such as tower-http's `FollowRedirect`,
/// belongs outside of the retry and the breaker: then each exchange is a call of its own. Inside,
/// its responses are recognized with the feature `tower-http`; its errors cannot be recognized, and
/// a redirect whose target refuses connections makes a retry send a POST again.
#[derive(Clone, Copy, Default)]
pub struct HttpClassifier<F = ByStatus> {
    adjust: F,
    single_exchange: bool,
}

/// Leaves every status at its default verdict. See [`HttpClassifier::adjust`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ByStatus;

/// Overrides the verdicts on individual statuses.
pub trait Adjust {
    /// Returns the verdict on this status, or `None` for the default.
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
    /// Creates a classifier with the verdicts of the table above.
    pub const fn new() -> Self {
        Self { adjust: ByStatus, single_exchange: false }
    }
}

impl<A> HttpClassifier<A> {
    /// Overrides the verdicts on some statuses. `None` keeps the default.
    ///
    /// ```
    /// use tower_rampart::{Verdict, http::HttpClassifier};
    ///
    /// let classify = HttpClassifier::new().adjust(|status| match status.as_u16() {
    ///     501 => Some(Verdict::Success), // an optional feature of the service
    ///     423 => Some(Verdict::Failure), // locked, but only briefly
    ///     _ => None,
    /// });
    /// # let _ = classify;
    /// ```
    pub fn adjust<F>(self, adjust: F) -> HttpClassifier<F>
    where
        F: Fn(StatusCode) -> Option<Verdict>,
    {
        HttpClassifier { adjust, single_exchange: self.single_exchange }
    }

    /// Declares that the client makes one exchange per call: it follows no redirects and has no
    /// retries of its own, except of requests that were not processed.
    ///
    /// With reqwest this is what allows a request that is not idempotent to be retried when the
    /// connection is refused, and after a 421, 425 or 429:
    ///
    /// ```
    /// # #[cfg(feature = "reqwest")]
    /// # fn example() -> Result<(), reqwest::Error> {
    /// use tower_rampart::http::HttpClassifier;
    ///
    /// let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    /// let classify = HttpClassifier::new().single_exchange();
    /// # let _ = (client, classify);
    /// # Ok(()) }
    /// ```
    pub fn single_exchange(mut self) -> Self {
        self.single_exchange = true;
        self
    }
}

impl<A: Adjust> HttpClassifier<A> {
    /// Returns the verdict on a status.
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

/// Whether this is the response of a service that has learned of the caller's deadline, which has
/// passed. It says nothing about the service.
pub(super) fn is_cut_short(status: StatusCode) -> bool {
    status == StatusCode::GATEWAY_TIMEOUT && deadline::callers_has_passed()
}

/// Returns the verdict on an error. It is the same for HTTP and gRPC.
pub(super) fn verdict_for_error<E: TransportError>(error: &E) -> Verdict {
    match error.origin() {
        ErrorOrigin::TimedOut if deadline::callers_has_passed() => Verdict::Ignored,
        origin => origin.verdict(),
    }
}

/// Whether earlier exchanges may have been processed. The response may have been converted from
/// reqwest's, so the error's type counts, too.
fn is_last_of_several<T: ResponseHead, E: TransportError>(response: &T) -> bool {
    response.may_follow_others() || E::client_follows_redirects()
}

impl<A, T, E> Classify<T, E> for HttpClassifier<A>
where
    A: Adjust,
    T: ResponseHead,
    E: TransportError,
{
    fn classify(&self, result: Result<&T, &E>) -> Verdict {
        match result {
            Ok(response) => match self.status(response.status()) {
                Verdict::Failure if is_cut_short(response.status()) => Verdict::Ignored,
                Verdict::Success if response.is_broken() => Verdict::Failure,
                Verdict::Success if response.is_unread() => Verdict::Ignored,
                verdict => verdict,
            },
            Err(error) => verdict_for_error(error),
        }
    }

    fn was_attempted(&self, result: Result<&T, &E>) -> bool {
        match result {
            Ok(response) if !self.single_exchange && is_last_of_several::<_, E>(response) => true,
            Ok(response) => !matches!(
                response.status(),
                StatusCode::MISDIRECTED_REQUEST | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            ),
            Err(error) if self.single_exchange => error.last_exchange_origin().was_attempted(),
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

    fn mark_exhausted(&self, response: &mut T) {
        if let Some(extensions) = response.extensions_mut() {
            head::mark_exhausted(extensions);
        }
    }

    fn is_exhausted(&self, response: &T) -> Option<bool> {
        response.extensions().map(head::is_exhausted)
    }
}

impl<A> fmt::Debug for HttpClassifier<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClassifier").finish_non_exhaustive()
    }
}
