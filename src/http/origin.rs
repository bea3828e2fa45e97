//! The origin of an HTTP client's error, found along its sources.

use std::{error::Error as StdError, io};

use super::{CallerError, ReplayError, UploadError, caller::CallersFault};
use crate::{error::chain, verdict::Verdict};

/// The origin of an HTTP client's error, and how far the request got.
///
/// | origin | verdict | was attempted |
/// |---|---|---|
/// | [`Request`](Self::Request) | ignored | no |
/// | [`Caller`](Self::Caller) | ignored | yes |
/// | [`Unsent`](Self::Unsent) | failure | no |
/// | [`Unprocessed`](Self::Unprocessed) | failure | no |
/// | [`Throttled`](Self::Throttled) | throttled | yes |
/// | [`TimedOut`](Self::TimedOut) | failure | yes |
/// | [`Connection`](Self::Connection) | failure | yes |
/// | [`Service`](Self::Service) | failure | yes |
///
/// "Yes" means that the service may have processed the request. The first two say nothing about the
/// service: anyone who can send a request can cause them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorOrigin {
    /// The request: the client did not send it, because it has no absolute URI, or a scheme, method
    /// or HTTP version that the client does not support.
    Request,
    /// The caller, after sending had begun: the request's body failed or ended early, the call was
    /// ended locally, or the server reset the HTTP/2 stream as malformed.
    Caller,
    /// The network, before the request was sent: no connection was established, or it closed before
    /// the request's turn.
    Unsent,
    /// The server, which did not process the request: over HTTP/2 it refused the stream, or had not
    /// begun with it when it sent a graceful GOAWAY.
    Unprocessed,
    /// The server, which asks for fewer requests: `ENHANCE_YOUR_CALM` over HTTP/2.
    Throttled,
    /// A time limit that the client itself enforces, after sending had begun.
    TimedOut,
    /// The network, after sending had begun: the connection broke, or ended without a response.
    Connection,
    /// The service, which responded with something invalid or abandoned the response. Also every
    /// error whose origin is unknown.
    Service,
}

impl ErrorOrigin {
    /// Returns the verdict on errors of this origin.
    pub fn verdict(self) -> Verdict {
        match self {
            Self::Request | Self::Caller => Verdict::Ignored,
            Self::Throttled => Verdict::Throttled,
            Self::Unsent | Self::Unprocessed | Self::TimedOut | Self::Connection | Self::Service => Verdict::Failure,
        }
    }

    /// Returns whether the service may have processed the request.
    pub fn was_attempted(self) -> bool {
        !matches!(self, Self::Request | Self::Unsent | Self::Unprocessed)
    }

    /// The origin of the error of a whole call, if this is the origin of its last exchange, and
    /// earlier exchanges may have been processed.
    pub(super) fn after_other_exchanges(self) -> Self {
        match self {
            Self::Request => Self::Caller,
            Self::Unsent | Self::Unprocessed => Self::Connection,
            origin => origin,
        }
    }
}

/// Returns the origin of `error`, by the types of the error and its sources.
///
/// Recognizes a refused or broken connection in `std::io::Error`, tokio's `Elapsed`,
/// [`ReplayError`], [`UploadError`] and [`CallerError`]; with the features of these names, the
/// errors of hyper, hyper-util's client, reqwest and tonic; and with the feature `h2` (implied by
/// `tonic`), the reasons for which HTTP/2 streams and connections end. Without `h2`, errors of an
/// HTTP/2 connection are [`ErrorOrigin::Service`].
///
/// The outermost error that is recognized decides. Its sources may belong to another exchange: if a
/// proxy passes on a request, a failure to read it is the source of a failure to send it.
///
/// reqwest follows redirects, and its errors do not say whether it followed one. Its failures to
/// connect are therefore [`Connection`](ErrorOrigin::Connection): an earlier exchange may have been
/// processed. See [`HttpClassifier::single_exchange`](super::HttpClassifier::single_exchange).
pub fn error_origin(error: &(dyn StdError + 'static)) -> ErrorOrigin {
    origin_of_last_exchange_or(error, follows_redirects)
}

/// Returns the origin of `error` for a client that makes a single exchange per call, or of the last
/// exchange of several.
pub(super) fn last_exchange_origin(error: &(dyn StdError + 'static)) -> ErrorOrigin {
    origin_of_last_exchange_or(error, |_| false)
}

fn origin_of_last_exchange_or(
    error: &(dyn StdError + 'static),
    follows_redirects: impl Fn(&(dyn StdError + 'static)) -> bool,
) -> ErrorOrigin {
    let mut is_last_of_several = false;
    for error in chain(error) {
        is_last_of_several |= follows_redirects(error);
        if let Some(origin) = decide(error) {
            return if is_last_of_several { origin.after_other_exchanges() } else { origin };
        }
    }
    ErrorOrigin::Service
}

/// Whether the client of this error may have made other exchanges before the one that failed.
fn follows_redirects(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "reqwest")]
    return error.is::<reqwest::Error>();
    #[cfg(not(feature = "reqwest"))]
    {
        let _ = error;
        false
    }
}

/// Returns the origin, if this error decides it without its sources.
fn decide(error: &(dyn StdError + 'static)) -> Option<ErrorOrigin> {
    let is_callers = error.is::<CallerError>()
        || error.is::<ReplayError>()
        || error.is::<UploadError>()
        || error.is::<CallersFault>();
    if is_callers {
        return Some(ErrorOrigin::Caller);
    }
    if error.is::<tokio::time::error::Elapsed>() {
        return Some(ErrorOrigin::TimedOut);
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return by_reqwest(error);
    }
    #[cfg(feature = "hyper-util")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return by_hyper_util(error);
    }
    #[cfg(feature = "hyper-util")]
    if let Some(error) = error.downcast_ref::<HttpConnectError>() {
        return Some(by_http_connector(error));
    }
    #[cfg(feature = "hyper")]
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return Some(by_hyper(error));
    }
    #[cfg(feature = "h2")]
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return Some(by_h2(error));
    }
    #[cfg(feature = "tonic")]
    if let Some(origin) = by_tonic(error) {
        return Some(origin);
    }
    error.downcast_ref::<io::Error>().and_then(by_io)
}

fn by_io(error: &io::Error) -> Option<ErrorOrigin> {
    // `source` skips the inner error.
    let inner = error.get_ref().and_then(|inner| decide(inner));
    inner.or_else(|| match error.kind() {
        io::ErrorKind::ConnectionRefused => Some(ErrorOrigin::Unsent),
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::UnexpectedEof
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable
        | io::ErrorKind::TimedOut => Some(ErrorOrigin::Connection),
        _ => None,
    })
}

#[cfg(feature = "reqwest")]
fn by_reqwest(error: &reqwest::Error) -> Option<ErrorOrigin> {
    if error.is_builder() {
        return Some(ErrorOrigin::Request);
    }
    if error.is_redirect() || error.is_status() || error.is_decode() {
        return Some(ErrorOrigin::Service);
    }
    // `is_connect` and `is_timeout` search all sources, and so find those of the request's body:
    // the client's own come last.
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(origin) = decide(source) {
            return Some(origin);
        }
        next = source.source();
    }
    error.is_timeout().then_some(ErrorOrigin::TimedOut)
}

#[cfg(feature = "hyper-util")]
fn by_hyper_util(error: &hyper_util::client::legacy::Error) -> Option<ErrorOrigin> {
    if !error.is_connect() {
        // The errors without a source are those of requests that the client does not send. The
        // others have hyper's as their source.
        return error.source().is_none().then_some(ErrorOrigin::Request);
    }
    let mut next = error.source();
    while let Some(source) = next {
        if let Some(error) = source.downcast_ref::<HttpConnectError>() {
            return Some(by_http_connector(error));
        }
        next = source.source();
    }
    Some(ErrorOrigin::Unsent)
}

/// The connector's error type, which has no public name.
#[cfg(feature = "hyper-util")]
type HttpConnectError =
    <hyper_util::client::legacy::connect::HttpConnector as tower_service::Service<::http::Uri>>::Error;

#[cfg(feature = "hyper-util")]
fn by_http_connector(error: &HttpConnectError) -> ErrorOrigin {
    // The network's errors have a source. The others are about the URI: no host, or a scheme other
    // than `http`.
    if error.source().is_some() { ErrorOrigin::Unsent } else { ErrorOrigin::Request }
}

#[cfg(feature = "hyper")]
fn by_hyper(error: &hyper::Error) -> ErrorOrigin {
    // First of all: the source is then the caller's error, of another exchange.
    if error.is_user() {
        return ErrorOrigin::Caller;
    }
    if error.is_canceled() {
        return ErrorOrigin::Unsent;
    }
    if error.is_parse() {
        return ErrorOrigin::Service;
    }
    #[cfg(feature = "h2")]
    if let Some(error) = error.source().and_then(|source| source.downcast_ref::<h2::Error>()) {
        return by_h2(error);
    }
    let is_io = error.source().is_some_and(|source| source.is::<io::Error>());
    if error.is_incomplete_message() || error.is_closed() || error.is_timeout() || is_io {
        return ErrorOrigin::Connection;
    }
    ErrorOrigin::Service
}

#[cfg(feature = "h2")]
fn by_h2(error: &h2::Error) -> ErrorOrigin {
    use h2::Reason;

    if error.is_io() {
        return ErrorOrigin::Connection;
    }
    // A user error: h2 did not accept the request.
    let Some(reason) = error.reason() else { return ErrorOrigin::Request };
    if error.is_library() {
        return ErrorOrigin::Service;
    }
    let is_frame = error.is_reset() || error.is_go_away();
    if is_frame && !error.is_remote() {
        // Sent by this side, which is how a client ends a stream whose body failed.
        return ErrorOrigin::Caller;
    }
    match reason {
        // RFC 9113, section 8.7: "requests that have not been processed".
        Reason::REFUSED_STREAM if error.is_reset() => ErrorOrigin::Unprocessed,
        Reason::NO_ERROR if error.is_go_away() => ErrorOrigin::Unprocessed,
        // RFC 9113, section 8.1.1: the request is malformed. A connection error is about the
        // connection's preceding frames.
        Reason::PROTOCOL_ERROR if error.is_reset() => ErrorOrigin::Caller,
        Reason::ENHANCE_YOUR_CALM => ErrorOrigin::Throttled,
        _ if error.is_go_away() => ErrorOrigin::Connection,
        _ => ErrorOrigin::Service,
    }
}

#[cfg(feature = "tonic")]
fn by_tonic(error: &(dyn StdError + 'static)) -> Option<ErrorOrigin> {
    if error.is::<tonic::TimeoutExpired>() {
        return Some(ErrorOrigin::TimedOut);
    }
    if error.is::<tonic::ConnectError>() {
        return Some(ErrorOrigin::Unsent);
    }
    // A channel's error without a source is that of its settings.
    let is_transport = error.is::<tonic::transport::Error>();
    (is_transport && error.source().is_none()).then_some(ErrorOrigin::Request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_several_exchanges_is_never_known_to_be_unprocessed() {
        use ErrorOrigin::*;
        for origin in [Request, Caller, Unsent, Unprocessed, Throttled, TimedOut, Connection, Service] {
            let call = origin.after_other_exchanges();
            assert!(call.was_attempted(), "{origin:?}");
            assert_eq!(call.verdict(), origin.verdict(), "{origin:?}");
        }
    }
}
