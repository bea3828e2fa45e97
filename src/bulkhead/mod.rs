//! Limits the number of concurrent calls.
//!
//! # The problem
//!
//! A dependency slows down. Every call to it now holds its task, connection and memory for seconds
//! instead of milliseconds, and by Little's law the number of calls in flight grows with the
//! latency: at 200 calls a second, 10 ms of latency mean 2 calls in flight, and 10 s mean 2,000.
//! Soon nothing is left for calls that do not use that dependency at all. A bulkhead bounds the
//! number: the ship stays afloat with one compartment flooded.
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
//! A short queue absorbs bursts. It is bounded in time and in length, and first come, first served:
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
//! - [`layer()`](Bulkhead::layer) rejects: `poll_ready` is the inner service's own, and `call`
//!   returns [`BulkheadFull`](crate::Rejection::BulkheadFull).
//! - [`.wait()`](BulkheadLayer::wait): the response future waits for a permit, then calls the inner
//!   service, which must be `Clone`.
//! - [`.backpressure()`](BulkheadLayer::backpressure): `poll_ready` reserves a permit for the call.
//!   While the inner service is not ready the permit is released, so readiness may turn to pending
//!   again.
//!
//! # Idle reservations
//!
//! A permit is reserved from `poll_ready` to `call`, and from the moment it is granted to a waiter
//! until that waiter is polled. The owner of a reservation may never be polled again: `LoadShed`
//! leaves its waiter in the queue, an idle balancer keeps ready endpoints, a `select!` loop stops
//! polling a branch. So a reservation lapses once its owner has not used it for 5 ms **and**
//! another caller needs a permit:
//!
//! - A caller that needs a permit gets that of an idle reservation after 10 ms at most, whether it
//!   waits or asks again, if the owner had been idle before. A waiter in the queue may need another
//!   10 ms for every `max_concurrent` waiters ahead of it. Timers round up to a millisecond.
//! - As long as no other caller needs the permit, the reservation is kept.
//! - `poll_ready` renews the reservation of a service that is ready. If it has lapsed, readiness
//!   may turn to pending again.
//! - `call` on a service whose reservation has lapsed takes another permit. If none is free, the
//!   call is rejected with [`BulkheadFull`](crate::Rejection::BulkheadFull).
//! - A waiter whose grant has lapsed rejoins the queue at the front when it is polled, and its next
//!   grant does not lapse before 5 ms. Its `max_wait` goes on.
//! - After a grant has lapsed, other callers may take the permits granted to waiters immediately,
//!   until a waiter takes up its grant: a queue of abandoned waiters does not cost 10 ms for each.
//!
//! Permits of calls in flight never lapse, polled or not; bound them by a
//! [`timeout`](crate::timeout) inside. At most 65,535 reservations at a time can lapse; further
//! ones are kept until they are used or dropped.
//!
//! # Order
//!
//! Inside of retry, so that a wait between attempts holds no permit; outside of the attempt
//! timeout, which then excludes the wait for a permit. A timeout around everything includes it. The
//! permit is held until the response future completes, which for HTTP is when the headers arrive,
//! not the body (`http::full_response` covers both).
//!
//! # How to choose the numbers
//!
//! `max_concurrent`: the highest rate you expect times the 99th percentile of latency on a good
//! day, plus half as much again. Not more than the dependency's own workers or your connection
//! pool: calls beyond that only wait. `max_wait`: zero, unless traffic is bursty; then less than
//! the latency that a caller notices, and always less than its timeout. `max_queue`: the number of
//! calls that can be served within `max_wait`.
//!
//! # Differences
//!
//! - `tower::limit::ConcurrencyLimit` always acquires its permit in `poll_ready`, so an idle
//!   connection holds one, and it never rejects. A permit that is granted to an idle waiter, as
//!   under `LoadShed`, is lost until that waiter is dropped; here it lapses. Its plain layer
//!   creates a new limit for every service. Here the handle is shared, and calls wait only where
//!   waiting is requested.
//! - tower-resilience's bulkhead boxes its future and has its own error type.
//! - resilience4j's `maxConcurrentCalls` and `maxWaitDuration`, Polly's `permitLimit` and
//!   `queueLimit` are `max_concurrent`, `max_wait` and `max_queue`.

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
