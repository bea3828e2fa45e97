use std::fmt;

use super::{AsRejection, Rejection, as_rejection::take_lookup};

/// A service's own error, or a rejection by a layer around it.
///
/// [`AdaptErrorLayer`](super::AdaptErrorLayer) makes it from a foreign error. It is exhaustive on
/// purpose: there will never be a third case. There is no `From<E>`, which would overlap with
/// `From<Rejection>`: map with [`Error::Service`].
///
/// As a `std::error::Error` it is transparent: its `Display` is the text of the rejection or of the
/// service's error, and its `source()` is that error's source, so that a log shows why a call
/// failed and shows it once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// A layer rejected or abandoned the call.
    Rejected(Rejection),
    /// The service's own error, unchanged.
    Service(E),
}

impl<E> Error<E> {
    /// Returns the service's error, if it is one.
    pub fn into_service(self) -> Option<E> {
        match self {
            Self::Rejected(_) => None,
            Self::Service(error) => Some(error),
        }
    }

    /// Returns a reference to the service's error, if it is one.
    pub fn as_service(&self) -> Option<&E> {
        match self {
            Self::Rejected(_) => None,
            Self::Service(error) => Some(error),
        }
    }

    /// Returns the rejection, if it is one.
    pub fn into_rejection(self) -> Option<Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Service(_) => None,
        }
    }

    /// Maps the service's error and leaves a rejection as it is.
    pub fn map_service<F>(self, map: impl FnOnce(E) -> F) -> Error<F> {
        match self {
            Self::Rejected(rejection) => Error::Rejected(rejection),
            Self::Service(error) => Error::Service(map(error)),
        }
    }
}

impl<E> Error<Error<E>> {
    /// Removes one level of nesting, from a stack that was adapted twice.
    pub fn flatten(self) -> Error<E> {
        match self {
            Self::Rejected(rejection) => Error::Rejected(rejection),
            Self::Service(inner) => inner,
        }
    }
}

impl<E> From<Rejection> for Error<E> {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

/// Finds only this stack's own rejections. A rejection from an inner service's own stack (a
/// client's, inside a handler) is that service's failure, not a rejection here.
impl<E> AsRejection for Error<E> {
    fn as_rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Service(_) => None,
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(rejection) => rejection.fmt(f),
            Self::Service(error) => error.fmt(f),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    /// The source of the rejection or of the service's error; while this crate searches an error
    /// for what it knows, the service's error itself.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(rejection) => rejection.source(),
            Self::Service(error) if take_lookup() => Some(error),
            Self::Service(error) => error.source(),
        }
    }
}
