use std::{convert::Infallible, error::Error as StdError, io};

#[cfg(any(feature = "hyper-util", feature = "reqwest", feature = "tonic"))]
use crate::error::AsRejection;
use crate::error::{Error, Rejection, chain};

/// An HTTP client's error that knows whether the server may have processed the request.
///
/// Implemented for boxed errors, for [`Error<E>`](crate::Error) where `E` implements it, for
/// `std::io::Error`, and, with the features of these names, for the errors of hyper-util's client,
/// reqwest and tonic. For an error of your own that has the client's error as its source, call
/// [`was_attempted`]:
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
    message = "`{Self}` does not say whether the request was attempted",
    note = "implement `tower_rampart::http::TransportError` for it, by calling `tower_rampart::http::was_attempted`",
    note = "the errors of hyper-util, reqwest and tonic implement it with the features of these names"
)]
pub trait TransportError {
    /// Returns whether the server may have processed the request. `false` only if it certainly has
    /// not: no connection was established, or the server said so over HTTP/2.
    fn was_attempted(&self) -> bool;

    /// Returns whether the request itself was invalid, so that the error says nothing about the
    /// service.
    fn is_request_invalid(&self) -> bool {
        false
    }
}

/// Returns whether the server may have processed the request before this error. `false` if the
/// error or one of its sources shows that it certainly has not.
///
/// Recognizes a refused connection in `std::io::Error`. With the features of these names, it also
/// recognizes everything that fails before a connection is established (names that do not resolve,
/// TLS, a connect timeout) in the errors of hyper-util's client, reqwest and tonic. With the
/// feature `h2` (implied by `tonic`), it also recognizes streams that the server refused, or had
/// not begun when it sent GOAWAY.
pub fn was_attempted(error: &(dyn StdError + 'static)) -> bool {
    !chain(error).any(|error| is_connect(error) || is_refused(error))
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

/// RFC 9113, section 8.7: "requests that have not been processed".
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

    /// Returns whether the request could not be built.
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

/// Implements [`AsRejection`] for the errors of clients, which reject nothing themselves. A
/// rejection among their sources belongs to another exchange, such as the upload of a proxy.
#[cfg(any(feature = "hyper-util", feature = "reqwest", feature = "tonic"))]
macro_rules! never_a_rejection {
    ($(#[$feature:meta] $error:ty)*) => {
        $(
            #[$feature]
            impl AsRejection for $error {
                fn as_rejection(&self) -> Option<&Rejection> {
                    None
                }
            }
        )*
    };
}

#[cfg(any(feature = "hyper-util", feature = "reqwest", feature = "tonic"))]
never_a_rejection! {
    #[cfg(feature = "hyper-util")] hyper_util::client::legacy::Error
    #[cfg(feature = "reqwest")] reqwest::Error
    #[cfg(feature = "tonic")] tonic::transport::Error
}
