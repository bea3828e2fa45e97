//! At most N calls at once.
//!
//! # The problem
//!
//! A dependency turns slow. Every call to it now holds its task, its connection and its memory for seconds instead of
//! milliseconds, and by Little's law their number grows with the latency: at 200 calls a second, 10 ms of latency are 2
//! calls in flight and 10 s are 2,000. Soon nothing is left for the calls that have nothing to do with that dependency.
//! A bulkhead bounds the number: the ship keeps afloat with one compartment full.
//!
//! # Example
//!
//! ```
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{BoxError, Rejection, bulkhead::Bulkhead};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let bulkhead = Bulkhead::new("payments", 16)?;
//! let service = ServiceBuilder::new()
//!     .layer(bulkhead.layer())
//!     .service_fn(|amount: u32| async move { Ok::<_, BoxError>(amount) });
//!
//! assert_eq!(service.oneshot(7).await?, 7);
//! assert_eq!(bulkhead.snapshot().in_flight, 0);
//! # Ok(()) }
//! ```
//!
//! A short queue takes the edge off a burst. It is bounded in time and in length, and first come first served:
//!
//! ```
//! # use std::time::Duration;
//! # use tower_rampart::bulkhead::Bulkhead;
//! let bulkhead = Bulkhead::builder("payments")
//!     .max_concurrent(16)
//!     .max_wait(Duration::from_millis(50))
//!     .max_queue(32)
//!     .build()?;
//! let layer = bulkhead.layer().wait();
//! # let _ = layer;
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! # Readiness
//!
//! - [`layer()`](Bulkhead::layer) refuses: `poll_ready` is the service's own, `call` answers
//!   [`BulkheadFull`](crate::Rejection::BulkheadFull).
//! - [`.wait()`](BulkheadLayer::wait): the response future waits, then calls. The service must be `Clone`.
//! - [`.backpressure()`](BulkheadLayer::backpressure): the permit is taken in `poll_ready` and held until the call.
//!   While the service within is not ready the permit is given back, so readiness may turn to pending again.
//!
//! # Order
//!
//! Inside of retry, so that a wait between attempts holds no permit; outside of the attempt's timeout, which then does
//! not count the wait for a permit. A timeout around everything does count it. The permit is held until the response
//! future ends, which for HTTP is when the headers are there, not the body
//! (`http::full_response` covers both).
//!
//! # How to choose the numbers
//!
//! `max_concurrent`: the highest rate you expect times the 99th percentile of latency on a good day, and half as much
//! again. Not more than the dependency's own workers or your connection pool: what is beyond them only waits. `max_wait`:
//! zero, unless traffic comes in bursts; then less than the latency that a caller notices, and always less than its
//! timeout. `max_queue`: what can be served within `max_wait`.
//!
//! # Differences
//!
//! - `tower::limit::ConcurrencyLimit` takes its permit in `poll_ready` always, so an idle connection holds one, and it
//!   never refuses. Under `LoadShed` its waiter stays in the queue and steals capacity. Its plain layer makes a new limit
//!   for every service. Here the handle is shared, and nothing waits unless asked to.
//! - tower-resilience's bulkhead boxes its future and has an error type of its own.
//! - resilience4j's `maxConcurrentCalls` and `maxWaitDuration`, Polly's `permitLimit` and `queueLimit` are
//!   `max_concurrent`, `max_wait` and `max_queue`.

mod builder;
pub mod future;
mod handle;
mod inner;
mod layer;
#[cfg(all(test, rampart_loom))]
mod models;
mod service;

pub use builder::BulkheadBuilder;
pub use handle::{Bulkhead, BulkheadSnapshot, OwnedPermit, Permit};
pub use layer::BulkheadLayer;
pub use service::BulkheadService;

pub(crate) use inner::{BulkheadInner, HasBulkhead};
pub(crate) use service::{BulkheadCall, WithBulkhead};
