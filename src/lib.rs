//! Resilience middleware for Tower: circuit breaker, retry, timeout, bulkhead, rate limiter and fallback, with one error
//! taxonomy, one event hook and a lock-free core.
//!
//! # The five-minute tour
//!
//! A pattern is a **handle**: cheap to clone, shared by everything made from it, with a name. It makes a layer:
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{
//!     AsRejection, BoxError, bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, retry::Retry, timeout::Timeout,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreaker::new("payments");
//! let service = ServiceBuilder::new()
//!     .layer(Timeout::new("payments", Duration::from_secs(2)).layer()) // in all
//!     .layer(Retry::attempts("payments", 3)?.layer())
//!     .layer(breaker.layer())
//!     .layer(Bulkhead::new("payments", 16)?.layer())
//!     .layer(Timeout::new("payments.attempt", Duration::from_millis(500)).layer())
//!     .service_fn(|amount: u32| async move { Ok::<_, BoxError>(format!("charged {amount}")) });
//! assert_eq!(service.clone().oneshot(7).await?, "charged 7");
//!
//! // Looked at and steered while calls run:
//! assert_eq!(breaker.snapshot().time_window.unwrap().calls, 1);
//! breaker.force_open();
//!
//! // The error is the service's own; what a layer refused is found in it.
//! let error = service.oneshot(8).await.unwrap_err();
//! let rejection = error.as_rejection().unwrap();
//! assert_eq!((rejection.name().as_str(), rejection.was_attempted()), ("payments", false));
//! # Ok(()) }
//! ```
//!
//! - **The order above is that of the ready-made stacks**: [`stack::client`] and [`stack::server`], with numbers that fit
//!   together. [`stack`] says why, and when to choose another.
//! - **Errors** are flat in whatever order: a layer keeps the service's error type and asks only that a [`Rejection`] can
//!   become one. Three ways to have such an error: [`error`].
//! - **What counts as a failure** is a [`Verdict`], given by a [`Classify`]; a closure will do.
//! - **What happens** is told to an [`Observer`]: [`event`], with adapters for `tracing` and `metrics`.
//! - **Refuse, wait, or hold back**: the [`readiness`] modes, on the layer. No layer ever fails `poll_ready`.
//! - **Without Tower**: every handle has `run(future)`, and a guard where that makes sense.
//! - **Deadlines**: what is inside of a timeout sees the time left: [`deadline`].
//! - **Cancelled** is an outcome of its own: a dropped future gives back what it holds, and counts neither as a failure nor
//!   as a success.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `tracing` | yes | `event::TracingObserver` |
//! | `tower` | yes | `ServiceBuilderExt` |
//! | `metrics` | no | `event::MetricsObserver` |
//! | `anyhow` | no | [`AsRejection`] for `anyhow::Error` |
//! | `http` | no | `http`: what is known about HTTP and gRPC, for clients and servers |
//! | `h2`, `hyper-util`, `reqwest`, `tonic` | no | the same, with the types of these: see `http` |
//!
//! # Cost
//!
//! A healthy call allocates nothing, boxes nothing and takes no lock. The comment at each service's `call` counts its
//! read-modify-writes and clock reads; the state core's are asserted by tests. A success in a count window without failures
//! is two loads.

#![forbid(unsafe_code)]

#[macro_use]
mod macros;
pub mod bulkhead;
mod call;
pub mod circuit_breaker;
mod classify;
pub mod clock;
pub mod deadline;
pub mod error;
pub mod event;
pub mod fallback;
#[cfg(feature = "http")]
pub mod http;
mod name;
pub mod per_key;
pub mod rate_limit;
pub mod readiness;
pub mod request;
pub mod retry;
#[cfg(feature = "tower")]
mod service_builder;
mod shared;
pub mod stack;
mod state;
pub mod timeout;

pub use classify::{Classify, ClassifyFn, DefaultClassifier, ResultClassifier, Verdict};
pub use error::{AdaptErrorLayer, AsRejection, ConfigError, Error, Rejection, RespondLayer, adapt};
pub use event::{Event, EventKind, Observer};
pub use name::Name;
#[cfg(feature = "tower")]
pub use service_builder::ServiceBuilderExt;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The boxed error of Tower's own middleware. It can absorb a [`Rejection`], and one can be found in it again.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
