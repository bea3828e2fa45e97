//! Resilience middleware for Tower.

#![forbid(unsafe_code)]

#[cfg(feature = "tower")]
mod builder;
pub mod bulkhead;
pub mod circuit_breaker;
mod classify;
pub mod clock;
pub mod deadline;
pub mod error;
pub mod event;
pub mod fallback;
mod guarded;
mod hold;
mod name;
mod random;
pub mod rate_limit;
pub mod readiness;
pub mod retry;
pub mod stack;
mod state;
pub mod timeout;
mod wake;

#[cfg(feature = "tower")]
pub use builder::ServiceBuilderExt;
pub use classify::{Classify, ClassifyFn, DefaultClassifier, ResultClassifier, Verdict};
pub use error::{AdaptErrorLayer, AsRejection, ConfigError, Error, Rejection, RespondLayer, adapt};
pub use event::{Event, EventKind, Observer};
pub use name::Name;

/// The boxed error of Tower's own middleware. It can absorb a [`Rejection`], and one can be found in it again.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
