use std::{convert::Infallible, error::Error as StdError, io};

use crate::error::{Error, Rejection};

/// What an HTTP client's error says of the request.
///
/// Implemented for boxed errors, for [`Error`](crate::Error) of what has it, for `std::io::Error`, and, with their
/// features, for the errors of hyper-util's client, reqwest and tonic. For an error of your own that has the client's
/// as its source, [`was_attempted`] answers:
///
/// ```
/// use tower_rampart::http::{TransportError, was_attempted};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the inventory cannot be reached")]
/// struct Unreachable(#[source] std::io::Error);
///
/// impl TransportError for Unreachable {
///     fn was_attempted(&self) -> bool {
///         was_attempted(self)
///     }
/// }
/// assert!(!Unreachable(std::io::ErrorKind::ConnectionRefused.into()).was_attempted());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell whether the request was attempted",
    note = "implement `tower_rampart::http::TransportError` for it: `tower_rampart::http::was_attempted` has the answer",
    note = "hyper-util's, reqwest's and tonic's errors have it with the features of these names"
)]
pub trait TransportError {
    /// Whether the server may have seen to the request; `false` only if it surely has not, because no connection came to
    /// be, or because it said so by HTTP/2.
    fn was_attempted(&self) -> bool;

    /// Whether the request itself was wrong, so that the error says nothing about the service.
    fn is_request_invalid(&self) -> bool {
        false
    }
}

/// Whether the server may have seen to the request before this error: `false` if the error or one of its sources says that
/// it surely has not.
///
/// Knows a refused connection in `std::io::Error`, and with the features of these names whatever went wrong before a
/// connection was there (names that do not resolve, TLS, a connect timeout) in the errors of hyper-util's client, of
/// reqwest and of tonic. With the feature `h2` (a part of `tonic`) it also knows streams that the server refused, or that
/// it had not begun when it said that it goes away.
pub fn was_attempted(error: &(dyn StdError + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if is_connect(error) || is_refused(error) {
            return false;
        }
        next = error.source();
    }
    true
}

fn is_connect(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "hyper-util")]
    if error.downcast_ref::<hyper_util::client::legacy::Error>().is_some_and(|error| error.is_connect()) {
        return true;
    }
    #[cfg(feature = "reqwest")]
    if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) {
        return true;
    }
    #[cfg(feature = "tonic")]
    if error.is::<tonic::ConnectError>() {
        return true;
    }
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// By RFC 9113, 8.7: "requests that have not been processed".
#[cfg(feature = "h2")]
fn is_refused(error: &(dyn StdError + 'static)) -> bool {
    use h2::Reason;

    error.downcast_ref::<h2::Error>().filter(|error| error.is_remote()).is_some_and(|error| {
        (error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
            || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR))
    })
}

#[cfg(not(feature = "h2"))]
fn is_refused(_error: &(dyn StdError + 'static)) -> bool {
    false
}

impl TransportError for Box<dyn StdError + Send + Sync> {
    fn was_attempted(&self) -> bool {
        was_attempted(&**self)
    }
}

impl TransportError for io::Error {
    fn was_attempted(&self) -> bool {
        was_attempted(self)
    }
}

impl TransportError for Infallible {
    fn was_attempted(&self) -> bool {
        match *self {}
    }
}

impl TransportError for Rejection {
    fn was_attempted(&self) -> bool {
        self.was_attempted()
    }
}

impl<E: TransportError> TransportError for Error<E> {
    fn was_attempted(&self) -> bool {
        match self {
            Self::Rejected(rejection) => rejection.was_attempted(),
            Self::Service(error) => error.was_attempted(),
        }
    }

    fn is_request_invalid(&self) -> bool {
        self.as_service().is_some_and(E::is_request_invalid)
    }
}

#[cfg(feature = "hyper-util")]
impl TransportError for hyper_util::client::legacy::Error {
    fn was_attempted(&self) -> bool {
        was_attempted(self)
    }
}

#[cfg(feature = "reqwest")]
impl TransportError for reqwest::Error {
    fn was_attempted(&self) -> bool {
        was_attempted(self)
    }

    /// It could not be built.
    fn is_request_invalid(&self) -> bool {
        self.is_builder()
    }
}

#[cfg(feature = "tonic")]
impl TransportError for tonic::transport::Error {
    fn was_attempted(&self) -> bool {
        was_attempted(self)
    }
}

#[cfg(feature = "tonic")]
impl TransportError for tonic::Status {
    fn was_attempted(&self) -> bool {
        was_attempted(self)
    }
}
