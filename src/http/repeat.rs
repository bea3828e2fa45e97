use std::fmt;

use ::http::{Method, Request};

use super::{RequestHead, SavedRequest, idempotency::has_idempotency_key, replay::RecordingStatus};
use crate::request::{Repeat, ReplaySafety};

/// Decides which HTTP requests may be retried.
///
/// GET, HEAD, OPTIONS, TRACE, PUT and DELETE are idempotent: they are retried after failures and
/// after timeouts. Other methods (POST, PATCH) are idempotent if the request has an
/// `Idempotency-Key` that is not empty ([`IdempotencyKeyLayer`](super::IdempotencyKeyLayer) adds
/// one). Without one, or with several, they are retried only if the service certainly has not
/// processed the request ([`ReplaySafety::IfUnprocessed`]): an inner layer rejected it, it found no
/// connection, or the server says that it did not process it
/// ([`HttpClassifier`](super::HttpClassifier)).
///
/// Works with `http::Request` if its body is `Clone`, which is expected to be cheap: `Full<Bytes>`,
/// `Empty`. Its head is saved as a [`SavedRequest`], with at most one allocation for all headers of
/// up to 255 bytes. A [`ReplayLayer`](super::ReplayLayer) around the retry records a streaming body
/// while it is sent, up to a limit; a request with a longer body is not retried. With the feature
/// `reqwest`, it also works with `reqwest::Request`, by its `try_clone`: a request with a streaming
/// body is sent once.
///
/// ```
/// use tower_rampart::{http::{HttpClassifier, HttpRepeat}, retry::Retry, stack};
///
/// let retry = Retry::attempts("inventory", 3)?;
/// let layer = retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new());
/// // The same, in a ready-made stack:
/// let stack = stack::client("inventory").classify(HttpClassifier::new()).repeat(HttpRepeat::new()).build()?;
/// # let _ = (layer, stack);
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
#[derive(Clone, Copy, Default)]
pub struct HttpRepeat<F = ByMethod> {
    idempotent: F,
}

/// Decides by method and `Idempotency-Key` whether a request is idempotent. See [`HttpRepeat`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ByMethod;

/// Decides whether a request is idempotent.
pub trait Idempotent<Req> {
    /// Returns whether sending the request twice has the same effect as sending it once. Called
    /// before an `http::Request` is sent, and after an attempt of a `reqwest::Request` has failed.
    fn is_idempotent(&self, request: &Req) -> bool;
}

impl<Req: RequestHead> Idempotent<Req> for ByMethod {
    fn is_idempotent(&self, request: &Req) -> bool {
        is_idempotent_method(request.method()) || has_idempotency_key(request.headers())
    }
}

pub(super) fn is_idempotent_method(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE)
}

impl<F, Req> Idempotent<Req> for F
where
    Req: RequestHead,
    F: Fn(&Req) -> Option<bool>,
{
    fn is_idempotent(&self, request: &Req) -> bool {
        self(request).unwrap_or_else(|| ByMethod.is_idempotent(request))
    }
}

impl HttpRepeat {
    /// Decides by method and `Idempotency-Key`.
    pub const fn new() -> Self {
        Self { idempotent: ByMethod }
    }
}

impl<A> HttpRepeat<A> {
    /// Decides by the request itself whether it is idempotent; `None` decides by method and
    /// `Idempotency-Key`. Use it for gRPC, where every call is a POST, and for a POST that only
    /// reads.
    ///
    /// ```
    /// use http::Request;
    /// use tower_rampart::http::HttpRepeat;
    ///
    /// let repeat = HttpRepeat::new().idempotent_if(|request: &Request<String>| match request.uri().path() {
    ///     "/shop.Catalog/GetItem" => Some(true),
    ///     _ => None,
    /// });
    /// # let _ = repeat;
    /// ```
    pub fn idempotent_if<F, Req>(self, idempotent: F) -> HttpRepeat<F>
    where
        F: Fn(&Req) -> Option<bool>,
    {
        HttpRepeat { idempotent }
    }
}

fn replay_safety(idempotent: bool) -> ReplaySafety {
    if idempotent { ReplaySafety::AfterFailure } else { ReplaySafety::IfUnprocessed }
}

#[diagnostic::do_not_recommend]
impl<A, B> Repeat<Request<B>> for HttpRepeat<A>
where
    A: Idempotent<Request<B>>,
    B: Clone,
{
    type Saved = SavedRequest<B>;

    fn save(&self, request: &Request<B>) -> Option<SavedRequest<B>> {
        Some(SavedRequest::new(request, self.idempotent.is_idempotent(request)))
    }

    fn restore(&self, saved: SavedRequest<B>) -> Request<B> {
        saved.restore()
    }

    fn is_idempotent(&self, saved: &SavedRequest<B>) -> Option<bool> {
        Some(saved.is_idempotent)
    }

    fn replay_safety(&self, saved: &SavedRequest<B>) -> ReplaySafety {
        match saved.extensions.get::<RecordingStatus>() {
            Some(status) if !status.is_complete() => ReplaySafety::Never,
            _ => replay_safety(saved.is_idempotent),
        }
    }
}

#[cfg(feature = "reqwest")]
#[diagnostic::do_not_recommend]
impl<A> Repeat<reqwest::Request> for HttpRepeat<A>
where
    A: Idempotent<reqwest::Request>,
{
    type Saved = reqwest::Request;

    fn save(&self, request: &reqwest::Request) -> Option<reqwest::Request> {
        request.try_clone()
    }

    fn restore(&self, saved: reqwest::Request) -> reqwest::Request {
        saved
    }

    fn is_idempotent(&self, saved: &reqwest::Request) -> Option<bool> {
        Some(self.idempotent.is_idempotent(saved))
    }

    fn replay_safety(&self, saved: &reqwest::Request) -> ReplaySafety {
        replay_safety(self.idempotent.is_idempotent(saved))
    }
}

impl<A> fmt::Debug for HttpRepeat<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRepeat").finish_non_exhaustive()
    }
}
