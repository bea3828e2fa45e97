//! Gives a call up that takes too long.
//!
//! # The problem
//!
//! A call without a limit waits as long as the other side likes, and holds a task, a connection and a place in
//! somebody's pool meanwhile. Everything else that protects a service needs calls to end: a breaker counts results, a
//! bulkhead gets its permits back, a retry begins after an error.
//!
//! # Example
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{AsRejection, BoxError, timeout::Timeout};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let timeout = Timeout::new("search", Duration::from_millis(300));
//! let service = ServiceBuilder::new().layer(timeout.layer()).service_fn(|seconds: u64| async move {
//!     tokio::time::sleep(Duration::from_secs(seconds)).await;
//!     Ok::<_, BoxError>("found")
//! });
//! assert_eq!(service.clone().oneshot(0).await?, "found");
//! let error = service.oneshot(5).await.unwrap_err();
//! assert!(error.as_rejection().is_some_and(|rejection| rejection.was_attempted()));
//! # Ok(()) }
//! ```
//!
//! One layer, used twice: around everything it is the total time that a caller has, innermost it is the time of one
//! attempt. Requests may bring a limit of their own:
//!
//! ```
//! # use std::time::Duration;
//! # use tower_rampart::timeout::Timeout;
//! struct Query { text: String, patience: Option<Duration> }
//!
//! let timeout = Timeout::new("search", Duration::from_secs(1));
//! let layer = timeout.layer().per_request(|query: &Query| query.patience);
//! # let _ = layer;
//! ```
//!
//! # When the clock starts
//!
//! At the first poll of the response future, so that a call which is ready at once reads no clock and registers no timer.
//! Waiting for readiness does not count: [`deadline::scope`](crate::deadline::scope) gives a deadline that does. Timers have a
//! resolution of a millisecond: a call may run that much longer than its limit.
//!
//! What is inside sees the [`deadline`](crate::deadline), and it only ever shrinks: of two nested timeouts the shorter
//! one fires, and the rejection's name tells which. A deadline that was set with `scope` and has passed already is answered
//! without calling the service (`attempted: false`).
//!
//! # Readiness
//!
//! `poll_ready` is the service's own. A timeout refuses nothing before `call`.
//!
//! # Order
//!
//! The total one outside of retry, the one of an attempt innermost, so that a call that hangs counts as a failure in the
//! breaker. A response's body is not covered, only the time until the response is there; the feature
//! `http` has layers that cover the body too (`http::full_response`).
//!
//! # How to choose the numbers
//!
//! An attempt: somewhat above the 99.9th percentile of the dependency's latency, so that ordinary slowness is not cut off.
//! The total: what your own caller will wait, less what you need to answer. Rather attempts times attempt timeout than
//! more, and never less than one attempt.
//!
//! # Differences
//!
//! - `tower::timeout` polls a bare timer after the inner future: one that uses up tokio's cooperative budget at each poll
//!   is never timed out. It registers a timer for every call, and boxes the error.
//! - tower-resilience's boxes its future.

mod builder;
pub mod future;
mod handle;
mod inner;
mod layer;
mod service;
mod timed_call;
mod timer;

pub use builder::TimeoutBuilder;
pub use handle::{Timeout, TimeoutSnapshot};
pub use layer::{Fixed, PerRequest, RequestLimit, TimeoutLayer};
pub use service::TimeoutService;

pub(crate) use inner::{Standalone, TimeoutInner, TimeoutKind, TimeoutOf};
pub(crate) use service::WithTimeout;
pub(crate) use timed_call::TimedCall;
pub(crate) use timer::{Boxed, Inline};
