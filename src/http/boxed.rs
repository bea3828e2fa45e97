//! The outermost error in a box.
//!
//! [`TransportError`] must hold for boxes of any lifetime: without that, a service with such errors
//! could not be called in a spawned task (see `error::as_rejection`). The sources of such an error
//! can be downcast, the error itself cannot. Its name is in its `Debug` output.

use std::{
    error::Error as StdError,
    fmt::{self, Write},
};

use super::{
    TransportError,
    origin::{ErrorOrigin, error_origin, last_exchange_origin},
};
use crate::error::inner_error;

/// Recognizes the error in the box if it is an [`Error`](crate::Error) of this crate, and otherwise
/// its sources.
///
/// A source's word that the request was not sent counts only if the error itself is recognized, as
/// an [`Error`](crate::Error) or by its `Debug` output: it may be that of a client that follows
/// redirects, and an earlier exchange may have been processed.
/// [`single_exchange`](super::HttpClassifier::single_exchange) declares that there was none. Typed
/// errors ([`AdaptErrorLayer`](crate::AdaptErrorLayer)) always say as much as they can.
impl TransportError for Box<dyn StdError + Send + Sync + '_> {
    fn origin(&self) -> ErrorOrigin {
        if let Some(inner) = inner_error(&**self).filter(|_| is_error_of_this_crate(&**self)) {
            return error_origin(inner);
        }
        let origin = self.last_exchange_origin();
        if Outermost::of(&**self).makes_one_exchange() { origin } else { origin.after_other_exchanges() }
    }

    fn last_exchange_origin(&self) -> ErrorOrigin {
        Outermost::of(&**self)
            .at_fault()
            .or_else(|| inner_error(&**self).map(last_exchange_origin))
            .unwrap_or(ErrorOrigin::Service)
    }
}

/// Whether the error's source differs while this crate searches it, as only that of its own errors
/// does.
fn is_error_of_this_crate(error: &(dyn StdError + '_)) -> bool {
    match (inner_error(error), error.source()) {
        (Some(inner), Some(source)) => !std::ptr::addr_eq(inner, source),
        (inner, source) => inner.is_some() != source.is_some(),
    }
}

/// The beginning of an error's `Debug` output.
struct Outermost {
    text: [u8; 48],
    len: usize,
}

impl Outermost {
    fn of(error: &(dyn StdError + '_)) -> Self {
        let mut outermost = Self { text: [0; 48], len: 0 };
        // Ends with an error where the buffer does.
        let _ = write!(outermost, "{error:?}");
        outermost
    }

    fn starts_with(&self, name: &str) -> bool {
        self.text[..self.len].starts_with(name.as_bytes())
    }

    /// The request or the caller, if the error names it. Such errors have no source that does.
    fn at_fault(&self) -> Option<ErrorOrigin> {
        let names = [
            ("hyper_util::client::legacy::Error(User", ErrorOrigin::Request),
            ("reqwest::Error { kind: Builder", ErrorOrigin::Request),
            ("hyper::Error(User(", ErrorOrigin::Caller),
        ];
        names.into_iter().find(|(name, _)| self.starts_with(name)).map(|(_, origin)| origin)
    }

    fn makes_one_exchange(&self) -> bool {
        self.starts_with("hyper_util::client::legacy::Error(") || self.starts_with("tonic::transport::Error(")
    }
}

impl Write for Outermost {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let free = &mut self.text[self.len..];
        let len = text.len().min(free.len());
        free[..len].copy_from_slice(&text.as_bytes()[..len]);
        self.len += len;
        if len < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}
