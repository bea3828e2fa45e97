use std::{cell::Cell, error::Error as StdError};

use super::Rejection;

/// Errors from which a [`Rejection`] can be recovered.
///
/// Breaker and retry use it to tell a layer's rejection from the service's own failure. Implement
/// it beside `From<Rejection>` for your own error type. Boxed errors and `std::io::Error` are
/// searched along their sources. With the features of these names, it is also implemented for the
/// errors of hyper-util's client, of reqwest and of tonic, so that a retry can wrap such a client
/// directly.
#[diagnostic::on_unimplemented(
    message = "a `Rejection` cannot be recovered from `{Self}`",
    label = "`{Self}: AsRejection` is missing, by which breaker and retry recognize rejections",
    note = "for your own error type, implement `tower_rampart::AsRejection` (three lines)",
    note = "for a foreign error, put `AdaptErrorLayer` innermost: it turns `{Self}` into `tower_rampart::Error<{Self}>`",
    note = "for a single future, `tower_rampart::adapt` does the same"
)]
pub trait AsRejection {
    /// Returns the rejection in this error, if there is one.
    fn as_rejection(&self) -> Option<&Rejection>;
}

/// Errors that can hold a [`Rejection`]: exactly those that implement `From<Rejection>`.
///
/// Layers require it of a service's error. Do not implement it manually: it exists only so that the
/// compiler can explain what is missing, which `From` cannot.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot hold a `Rejection`, which a layer of `tower-rampart` may return",
    label = "`{Self}: From<Rejection>` is missing",
    note = "for your own error type, implement `From<tower_rampart::Rejection>` (`#[from]` with thiserror)",
    note = "for a foreign error, put `AdaptErrorLayer` innermost: it turns `{Self}` into `tower_rampart::Error<{Self}>`",
    note = "for a single future, `tower_rampart::adapt` does the same"
)]
pub trait FromRejection: From<Rejection> {}

#[diagnostic::do_not_recommend]
impl<E: From<Rejection>> FromRejection for E {}

/// Returns the first rejection in `error` or its sources.
///
/// Finds it behind wrappers that skip their inner error in `source()`, such as
/// [`Error`](super::Error), `std::io::Error` and `#[error(transparent)]`.
pub fn find_rejection<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Rejection> {
    chain(error).find_map(|error| error.downcast_ref())
}

/// Iterates over an error and the errors inside it, down to a rejection.
pub(crate) fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| if error.is::<Rejection>() { None } else { inner_error(error) })
}

thread_local! {
    static LOOKUP: Cell<bool> = const { Cell::new(false) };
}

/// Returns the next error inside: the error's source, the error itself if it is a rejection, or the
/// service's error in an [`Error`](super::Error).
///
/// When the compiler checks whether an async block is `Send`, it no longer knows that a boxed error
/// in it is `'static`. So `AsRejection` must hold for boxes of any lifetime: without that, a stack
/// that is called with `oneshot` in a spawned block would not compile. An error that may not be
/// `'static` cannot be downcast, but its source can, always. So during a lookup, a rejection
/// returns itself as its own source. An `Error` returns its inner error, which its `source()` skips
/// otherwise, and whose type this module does not know.
pub(crate) fn inner_error<'e>(error: &'e (dyn StdError + '_)) -> Option<&'e (dyn StdError + 'static)> {
    /// Ends the lookup if no error did, even if `source` panics.
    struct EndLookup;

    impl Drop for EndLookup {
        fn drop(&mut self) {
            LOOKUP.set(false);
        }
    }

    LOOKUP.set(true);
    let _end = EndLookup;
    error.source()
}

/// Returns whether [`inner_error`] is looking into an error, and ends the lookup.
pub(crate) fn take_lookup() -> bool {
    LOOKUP.take()
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

impl AsRejection for Box<dyn StdError + Send + Sync + '_> {
    fn as_rejection(&self) -> Option<&Rejection> {
        inner_error(&**self).and_then(find_rejection)
    }
}

impl AsRejection for Box<dyn StdError + Send + '_> {
    fn as_rejection(&self) -> Option<&Rejection> {
        inner_error(&**self).and_then(find_rejection)
    }
}

impl AsRejection for Box<dyn StdError + '_> {
    fn as_rejection(&self) -> Option<&Rejection> {
        inner_error(&**self).and_then(find_rejection)
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
