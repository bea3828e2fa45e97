use std::fmt;

use super::{AsRejection, Rejection};

/// A service's own error, or a refusal by a layer around it.
///
/// [`AdaptErrorLayer`](super::AdaptErrorLayer) makes it from a foreign error. Exhaustive on purpose: there will never
/// be a third case. There is no `From<E>`, which would overlap with `From<Rejection>`: map with [`Error::Service`].
///
/// As an `std::error::Error` its `source()` is what it holds, and its `Display` does not repeat that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<E> {
    /// A layer refused the call, or gave it up.
    Rejected(Rejection),
    /// The service's own error, unchanged.
    Service(E),
}

impl<E> Error<E> {
    /// The service's error, if that is what it is.
    pub fn into_service(self) -> Option<E> {
        match self {
            Self::Rejected(_) => None,
            Self::Service(error) => Some(error),
        }
    }

    /// The service's error, by reference.
    pub fn as_service(&self) -> Option<&E> {
        match self {
            Self::Rejected(_) => None,
            Self::Service(error) => Some(error),
        }
    }

    /// The rejection, if that is what it is.
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
    /// Makes one level of two: stacks that were adapted twice.
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

/// Finds this stack's own rejection only: one that a service below made with a stack of its own (a client's, inside a
/// handler) is that service's failure, not a refusal here.
impl<E> AsRejection for Error<E> {
    fn as_rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Service(_) => None,
        }
    }
}

impl<E> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(_) => f.write_str("the call was rejected"),
            Self::Service(_) => f.write_str("the service failed"),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for Error<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Service(error) => Some(error),
        }
    }
}
