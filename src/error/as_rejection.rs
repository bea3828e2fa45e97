use std::{cell::Cell, error::Error as StdError};

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

/// Errors that can hold a [`Rejection`]: every one that is `From<Rejection>`, and no other.
///
/// What the layers ask of a service's error. It is not implemented by hand, and exists for what the compiler says when an
/// error cannot: `From` is not ours to explain.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot hold a `Rejection`, which a layer of `tower-rampart` may answer with",
    label = "`{Self}: From<Rejection>` is missing",
    note = "for an error of your own, implement `From<tower_rampart::Rejection>` (`#[from]` with thiserror)",
    note = "for a foreign error, put `AdaptErrorLayer` innermost: it turns `{Self}` into `tower_rampart::Error<{Self}>`",
    note = "for a single future, `tower_rampart::adapt` does the same"
)]
pub trait FromRejection: From<Rejection> {}

#[diagnostic::do_not_recommend]
impl<E: From<Rejection>> FromRejection for E {}

/// The first rejection in `error` or its sources.
///
/// Sees through wrappers whose `source()` is that of what they hold: `std::io::Error`, and what is
/// `#[error(transparent)]`.
pub fn find_rejection<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e Rejection> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(rejection) = error.downcast_ref::<Rejection>() {
            return Some(rejection);
        }
        next = source_or_rejection(error);
    }
    None
}

thread_local! {
    static ASKED: Cell<bool> = const { Cell::new(false) };
}

/// The error's source, where a rejection that is asked for its source answers with itself.
///
/// When the compiler looks at an async block from outside (to see whether it is `Send`) it has forgotten that a boxed
/// error in it is `'static`. So `AsRejection` must hold for boxes of any lifetime, or a stack that is called with
/// `oneshot` in a spawned block would not compile; and what may not be `'static` cannot be downcast. Its source can be,
/// always. So the question goes there, by a way that is open in safe code.
fn source_or_rejection<'e>(error: &'e (dyn StdError + '_)) -> Option<&'e (dyn StdError + 'static)> {
    /// Takes the question back when nobody answered, also when `source` panicked.
    struct Asked;

    impl Drop for Asked {
        fn drop(&mut self) {
            ASKED.set(false);
        }
    }

    ASKED.set(true);
    let _asked = Asked;
    error.source()
}

/// Whether a rejection is asked by [`source_or_rejection`]; true once per question.
pub(super) fn is_asked() -> bool {
    ASKED.take()
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
        source_or_rejection(&**self).and_then(find_rejection)
    }
}

impl AsRejection for Box<dyn StdError + Send + '_> {
    fn as_rejection(&self) -> Option<&Rejection> {
        source_or_rejection(&**self).and_then(find_rejection)
    }
}

impl AsRejection for Box<dyn StdError + '_> {
    fn as_rejection(&self) -> Option<&Rejection> {
        source_or_rejection(&**self).and_then(find_rejection)
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
