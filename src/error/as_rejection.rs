use std::error::Error as StdError;

use super::Rejection;

/// Errors in which a [`Rejection`] can be found again.
///
/// The default classifiers use it to tell a refusal by a layer from a failure of the service. Implement it beside
/// `From<Rejection>` for an error type of your own; boxed errors and `std::io::Error` are walked along their sources.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not tell whether it holds a `Rejection`",
    label = "the default classifier needs `AsRejection`",
    note = "for an error of your own, implement `tower_rampart::AsRejection` (three lines)",
    note = "for a foreign error, put `AdaptErrorLayer` innermost: it turns `{Self}` into `tower_rampart::Error<{Self}>`",
    note = "or give the layer a classifier of your own, which needs no `AsRejection`"
)]
pub trait AsRejection {
    /// The rejection in this error, if it is one.
    fn as_rejection(&self) -> Option<&Rejection>;
}

/// The first rejection in `error` or its sources.
///
/// Looks into `std::io::Error` as well, whose `source()` skips the error it was made from. A wrapper that is
/// `#[error(transparent)]` hides what it holds, also from this walk.
pub fn find_rejection<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Rejection> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rejection) = error.downcast_ref::<Rejection>() {
            return Some(rejection);
        }
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

impl AsRejection for Rejection {
    fn as_rejection(&self) -> Option<&Rejection> {
        Some(self)
    }
}

impl AsRejection for std::convert::Infallible {
    fn as_rejection(&self) -> Option<&Rejection> {
        match *self {}
    }
}

impl AsRejection for Box<dyn StdError + Send + Sync> {
    fn as_rejection(&self) -> Option<&Rejection> {
        find_rejection(&**self)
    }
}

impl AsRejection for Box<dyn StdError + Send> {
    fn as_rejection(&self) -> Option<&Rejection> {
        find_rejection(&**self)
    }
}

impl AsRejection for Box<dyn StdError> {
    fn as_rejection(&self) -> Option<&Rejection> {
        find_rejection(&**self)
    }
}

impl AsRejection for std::io::Error {
    fn as_rejection(&self) -> Option<&Rejection> {
        find_rejection(self)
    }
}

#[cfg(feature = "anyhow")]
impl AsRejection for anyhow::Error {
    fn as_rejection(&self) -> Option<&Rejection> {
        self.chain().find_map(find_rejection)
    }
}
