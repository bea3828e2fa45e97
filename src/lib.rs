//! Resilience middleware for Tower: circuit breaker, retry, timeout, bulkhead, rate limiter and
//! fallback, with one error taxonomy, one event hook and a lock-free core.
//!
//! # The five-minute tour
//!
//! Each pattern is a **handle**: it has a name, is cheap to clone, and every clone shares its
//! state. A handle makes layers:
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
//!     .layer(Timeout::new("payments", Duration::from_secs(2)).layer()) // total
//!     .layer(Retry::attempts("payments", 3)?.layer())
//!     .layer(breaker.layer())
//!     .layer(Bulkhead::new("payments", 16)?.layer())
//!     .layer(Timeout::new("payments.attempt", Duration::from_millis(500)).layer())
//!     .service_fn(|amount: u32| async move { Ok::<_, BoxError>(format!("charged {amount}")) });
//! assert_eq!(service.clone().oneshot(7).await?, "charged 7");
//!
//! // Inspect and control a handle while calls run:
//! assert_eq!(breaker.snapshot().time_window.unwrap().calls, 1);
//! breaker.force_open();
//!
//! // The error type is the service's own, and a rejection can be recovered from it.
//! let error = service.oneshot(8).await.unwrap_err();
//! let rejection = error.as_rejection().unwrap();
//! assert_eq!((rejection.name().as_str(), rejection.was_attempted()), ("payments", false));
//! # Ok(()) }
//! ```
//!
//! - **Order**: the layers above are in the order of the ready-made stacks, [`stack::client`] and
//!   [`stack::server`], whose numbers fit together. [`stack`] explains the order and when to choose
//!   another.
//! - **Errors** stay flat in any order: a layer keeps the service's error type and only requires
//!   that it can be made from a [`Rejection`]. [`error`] shows three ways to have such a type.
//! - **Failures**: a [`Classify`] implementation gives each result a [`Verdict`]. A closure will
//!   do.
//! - **Events**: an [`Observer`] receives them. [`event`] has adapters for `tracing` and `metrics`.
//! - **Reject, wait, or apply backpressure**: choose a [`readiness`] mode on the layer. No layer
//!   ever fails `poll_ready`.
//! - **Without Tower**: every handle has `run(future)`, and a guard where that makes sense.
//! - **Deadlines**: code inside a timeout sees the time left: [`deadline`].
//! - **Cancellation** is an outcome of its own: a dropped future releases everything it holds, and
//!   counts neither as a failure nor as a success.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `tracing` | yes | `event::TracingObserver` |
//! | `tower` | yes | `ServiceBuilderExt` |
//! | `metrics` | no | `event::MetricsObserver` |
//! | `anyhow` | no | [`AsRejection`] for `anyhow::Error` |
//! | `quanta` | no | [`CycleClock`](clock), a clock by the cycle counter |
//! | `http` | no | `http`: HTTP and gRPC semantics, for clients and servers |
//! | `h2`, `hyper-util`, `reqwest`, `tonic` | no | `http` for the types of these crates |
//!
//! # Runtime
//!
//! Handles, layers and services can be made anywhere, and a call that need not wait runs on any
//! executor. Waits and time limits use tokio's timers. A call that has to wait (in a queue, for a
//! token, between two attempts, for a circuit in backpressure mode), or that is not ready at its
//! first poll under a timeout, panics outside of a tokio runtime with time enabled.
//!
//! Calls that wait under a timeout or in a bulkhead's queue share one timer per thread and runtime.
//! When it expires and further calls wait, a task is spawned that registers it again and ends; with
//! steady traffic, about once per thread in the length of a limit. A deadline that has passed when
//! it is registered spawns a task that wakes its call. The feature `http` spawns tasks to drain
//! failed responses, and when a time limit over a response's body passes. Nothing else spawns.
//!
//! In tests, pause tokio's clock before calls are made. If it is paused later, an idle runtime may
//! move it to the time of a timer that no call needs any more.
//!
//! # Cost
//!
//! A healthy call through a pattern allocates nothing, boxes nothing and takes no lock, other than
//! to save a request for a retry and in the first call of a thread. ([`per_key`] takes a read lock,
//! and `http::full_response` boxes its call.) A call that is not ready immediately under a timeout
//! takes the lock of its thread's queue of timers, twice. The breaker and a full retry budget only
//! read the state that threads share: a success in a count window without failures is two loads.
//! This holds for as many threads as there are processors, up to 64; beyond that, some threads
//! share a line of counters. A bulkhead and a rate limiter each write their own atomic word. The
//! comment at each service's `call` counts its read-modify-writes and clock reads; tests assert
//! those of the state core.

#![cfg_attr(docsrs, feature(doc_cfg))]
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
mod pattern;
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
mod verdict;

pub use classify::{Classify, DefaultClassifier, Verdict};
pub use error::{AdaptErrorLayer, AsRejection, ConfigError, Error, Rejection, RespondLayer, adapt};
pub use event::{Event, EventKind, Observer};
pub use name::Name;
pub use pattern::Pattern;
#[cfg(feature = "tower")]
pub use service_builder::ServiceBuilderExt;

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// The boxed error of Tower's own middleware. It can be made from a [`Rejection`], and
/// [`AsRejection`] finds the rejection in it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
