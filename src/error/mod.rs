//! One error taxonomy for every layer.
//!
//! A layer never wraps the error of its inner service: `type Error = S::Error`. To reject a call it
//! makes a [`Rejection`], and requires only that the service's error can be made from one
//! (`S::Error: From<Rejection>`). So a stack of five layers, in any order, has one flat error type.
//! There are three ways to have such a type.
//!
//! **1. `BoxError`, `std::io::Error`, `anyhow::Error`**: nothing to do.
//!
//! ```
//! use tower_rampart::{AsRejection, Rejection};
//!
//! type BoxError = Box<dyn std::error::Error + Send + Sync>;
//!
//! let error: BoxError = Rejection::bulkhead_full("db", 16).into();
//! assert_eq!(error.as_rejection().unwrap().name(), "db");
//! ```
//!
//! **2. Your own error type**: one `#[from]` and a three-line trait.
//!
//! ```
//! use tower_rampart::{AsRejection, Rejection};
//!
//! #[derive(Debug, thiserror::Error)]
//! enum PaymentError {
//!     #[error("card declined")]
//!     Declined,
//!     #[error("payment service is protected")]
//!     Rejected(#[from] Rejection),
//! }
//!
//! impl AsRejection for PaymentError {
//!     fn as_rejection(&self) -> Option<&Rejection> {
//!         if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
//!     }
//! }
//! ```
//!
//! **3. A foreign error** (reqwest's, hyper-util's, tonic's): [`AdaptErrorLayer`] as the innermost
//! layer turns `E` into [`Error<E>`], and the caller matches [`Error::Service`] with the foreign
//! error, typed and unchanged, or [`Error::Rejected`]. It displays as the error it holds. For a
//! single future there is [`adapt`].
//!
//! If the compiler says that an error [cannot hold a `Rejection`](FromRejection), use the third
//! way. If it only says that a service "doesn't satisfy `Service<_>`" at a method call (`ready`,
//! `call`, `oneshot`), name the request type, as in `ServiceExt::<Request>::ready(&mut service)`:
//! the compiler then gives the reason.
//!
//! For servers that must not fail (axum wants `Infallible`), [`RespondLayer`] wraps a whole stack:
//! it adapts on the inside and turns rejections into responses on the outside.
//!
//! # What a rejection means
//!
//! | rejection | request sent | retried | default verdict | HTTP, gRPC |
//! |---|---|---|---|---|
//! | [`CircuitOpen`](Rejection::CircuitOpen) | no | on another instance | ignored | 503, `UNAVAILABLE` |
//! | [`CircuitRecovering`](Rejection::CircuitRecovering) | no | on another instance | ignored | 503, `UNAVAILABLE` |
//! | [`BulkheadFull`](Rejection::BulkheadFull) | no | on another instance | ignored | 503, `RESOURCE_EXHAUSTED` |
//! | [`QueueTimeout`](Rejection::QueueTimeout) | no | on another instance | ignored | 503, `RESOURCE_EXHAUSTED` |
//! | [`RateLimited`](Rejection::RateLimited) | no | after `retry_after` | ignored | 429, `RESOURCE_EXHAUSTED` |
//! | `RateLimited`, without `retry_after` | no | no | ignored | 429, `RESOURCE_EXHAUSTED` |
//! | [`TimedOut`](Rejection::TimedOut) | maybe | if idempotent | failure | 504, `DEADLINE_EXCEEDED` |
//! | `TimedOut`, cut short by the caller | maybe | no | ignored | 504, `DEADLINE_EXCEEDED` |
//! | `TimedOut`, not attempted | no | no | ignored | 504, `DEADLINE_EXCEEDED` |
//!
//! A request that was not sent is safe to retry, even if it is not idempotent.
//! [`Retry`](crate::retry) retries it where another attempt may succeed; "on another instance"
//! requires [`retry_on_other_instance`](crate::retry::RetryBuilder::retry_on_other_instance). The
//! default verdict is that of [`DefaultClassifier`](crate::DefaultClassifier), and a breaker
//! outside counts it.
//!
//! Exhausted retries and an exhausted retry budget are not rejections: the caller gets the last
//! result, unchanged.

mod adapt;
mod as_rejection;
mod config;
mod rejection;
mod respond;
mod semantics;
mod unified;

pub use crate::state::time::CompactDuration;
pub use adapt::{AdaptError, AdaptErrorLayer, adapt};
pub use as_rejection::{AsRejection, FromRejection, find_rejection};
#[cfg(feature = "http")]
pub(crate) use as_rejection::{chain, inner_error, take_lookup};
pub use config::ConfigError;
pub use rejection::Rejection;
pub use respond::{Respond, RespondLayer, RespondOnce, Responder};
pub(crate) use semantics::RetryWhen;
pub use unified::Error;

/// Futures of this module's services.
pub mod future {
    pub use super::{adapt::AdaptFuture, respond::RespondFuture};
}
