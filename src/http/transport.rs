use std::{convert::Infallible, io};

use super::origin::{ErrorOrigin, error_origin, last_exchange_origin};
use crate::error::{Error, Rejection};

/// An HTTP client's error that knows its origin: the request, the caller, the network or the
/// service.
///
/// Implemented for boxed errors, for [`Error<E>`](crate::Error) where `E` implements it, for
/// `std::io::Error`, and, with the features of these names, for the errors of hyper, hyper-util's
/// client, reqwest and tonic. For an error of your own that has the client's error as its source,
/// call [`error_origin`]:
///
/// ```
/// use tower_rampart::http::{ErrorOrigin, TransportError, error_origin};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the inventory cannot be reached")]
/// struct Unreachable(#[source] std::io::Error);
///
/// impl TransportError for Unreachable {
///     fn origin(&self) -> ErrorOrigin {
///         error_origin(self)
///     }
/// }
/// assert!(!Unreachable(std::io::ErrorKind::ConnectionRefused.into()).was_attempted());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say where it comes from: the request, the network or the service",
    note = "implement `tower_rampart::http::TransportError` for it, by calling `tower_rampart::http::error_origin`",
    note = "the errors of hyper, hyper-util, reqwest and tonic implement it with the features of these names"
)]
pub trait TransportError {
    /// Returns the error's origin.
    fn origin(&self) -> ErrorOrigin;

    /// Returns the origin of the last exchange that the client made for the call, if it may have
    /// made several. The default is [`origin`](Self::origin).
    fn last_exchange_origin(&self) -> ErrorOrigin {
        self.origin()
    }

    /// Returns whether clients with this error follow redirects, so that a call may take several
    /// exchanges. The default is `false`.
    fn client_follows_redirects() -> bool
    where
        Self: Sized,
    {
        false
    }

    /// Returns whether the server may have processed the request. `false` only if it certainly has
    /// not: the request was not sent, or the server said so over HTTP/2.
    ///
    /// This is about the attempt that failed. Under a retry, the server may have processed an
    /// earlier one.
    fn was_attempted(&self) -> bool {
        self.origin().was_attempted()
    }
}

impl TransportError for Infallible {
    fn origin(&self) -> ErrorOrigin {
        match *self {}
    }
}

/// A rejected call was not sent, unless it timed out.
impl TransportError for Rejection {
    fn origin(&self) -> ErrorOrigin {
        if self.was_attempted() { ErrorOrigin::TimedOut } else { ErrorOrigin::Unsent }
    }
}

impl<E: TransportError> TransportError for Error<E> {
    fn origin(&self) -> ErrorOrigin {
        match self {
            Self::Rejected(rejection) => rejection.origin(),
            Self::Service(error) => error.origin(),
        }
    }

    fn last_exchange_origin(&self) -> ErrorOrigin {
        match self {
            Self::Rejected(rejection) => rejection.origin(),
            Self::Service(error) => error.last_exchange_origin(),
        }
    }

    fn client_follows_redirects() -> bool {
        E::client_follows_redirects()
    }
}

macro_rules! by_sources {
    ($($(#[$attribute:meta])* $error:ty $(: $follows_redirects:literal)?),+ $(,)?) => {$(
        $(#[$attribute])*
        impl TransportError for $error {
            fn origin(&self) -> ErrorOrigin {
                error_origin(self)
            }

            fn last_exchange_origin(&self) -> ErrorOrigin {
                last_exchange_origin(self)
            }

            $(fn client_follows_redirects() -> bool {
                $follows_redirects
            })?
        }
    )+};
}

by_sources! {
    io::Error,
    #[cfg(feature = "tonic")]
    tonic::Status,
}

/// Implements the traits for the errors of clients, which reject nothing themselves. A rejection
/// among their sources belongs to another exchange, such as the upload of a proxy.
macro_rules! client_errors {
    ($($(#[$attribute:meta])* $error:ty $(: $follows_redirects:literal)?),+ $(,)?) => {$(
        by_sources! { $(#[$attribute])* $error $(: $follows_redirects)? }

        $(#[$attribute])*
        impl crate::AsRejection for $error {
            fn as_rejection(&self) -> Option<&Rejection> {
                None
            }
        }
    )+};
}

client_errors! {
    #[cfg(feature = "h2")]
    h2::Error,
    #[cfg(feature = "hyper")]
    hyper::Error,
    #[cfg(feature = "hyper-util")]
    hyper_util::client::legacy::Error,
    #[cfg(feature = "reqwest")]
    reqwest::Error: true,
    #[cfg(feature = "tonic")]
    tonic::transport::Error,
}
