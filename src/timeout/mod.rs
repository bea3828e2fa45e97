//! Limits the time of a call.
//!
//! # The problem
//!
//! A call without a limit waits as long as the other side likes, and meanwhile holds a task, a
//! connection and a pool slot. Every other protection relies on calls ending: a breaker counts
//! results, a bulkhead releases permits, a retry starts after an error.
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
//! The same layer has two uses: outermost it limits the total time of a call, innermost the time of
//! one attempt. Requests may have limits of their own:
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
//! At the first poll of the response future, so that a call that is ready immediately reads no
//! clock and registers no timer. Waiting for readiness does not count; use
//! [`deadline::scope`](crate::deadline::scope) for a deadline that includes it. Timers have a
//! resolution of a millisecond: a call may run that much longer than its limit.
//!
//! The inner service sees the limit as a [`deadline`](crate::deadline). Nesting only shortens it:
//! of two nested timeouts the shorter one fires, and the rejection names it. If a deadline that was
//! set with `scope` has passed already, the call is rejected without calling the service
//! (`attempted: false`).
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's own. A timeout rejects nothing before `call`.
//!
//! # Order
//!
//! The total timeout goes outside of retry. The attempt timeout goes innermost, so that a call that
//! hangs counts as a failure in the breaker. A timeout covers the time until the response is ready,
//! but not the response's body; the feature `http` has layers that cover the body too
//! (`http::full_response`).
//!
//! # How to choose the numbers
//!
//! The attempt timeout: somewhat above the 99.9th percentile of the dependency's latency, so that
//! ordinary slowness does not time out. The total timeout: the time that your own caller waits,
//! less the time that you need to respond. At most the number of attempts times the attempt
//! timeout, and never less than one attempt.
//!
//! # Differences
//!
//! - `tower::timeout` polls a bare timer after the inner future: a future that exhausts tokio's
//!   cooperative budget at each poll never times out. It registers a timer for every call, and
//!   boxes the error.
//! - tower-resilience's timeout boxes its future.

mod builder;
pub mod future;
mod handle;
mod inner;
mod layer;
mod service;
mod timed_call;

pub use builder::TimeoutBuilder;
pub use handle::{Timeout, TimeoutSnapshot};
pub use layer::{Fixed, PerRequest, RequestLimit, TimeoutLayer};
pub use service::TimeoutService;

#[cfg(feature = "http")]
pub(crate) use inner::Expired;
pub(crate) use inner::{Standalone, TimeoutInner, TimeoutOf};
pub(crate) use service::WithTimeout;
pub(crate) use timed_call::TimedCall;
