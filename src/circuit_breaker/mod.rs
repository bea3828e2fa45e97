//! Rejects calls to a failing dependency.
//!
//! # The problem
//!
//! A dependency is down. Each call spends its full timeout to learn what earlier calls have already
//! found out, holds resources meanwhile, and adds load to a service that is trying to recover. A
//! circuit breaker remembers: when too many calls fail, it opens and rejects calls immediately for
//! a while. Then it admits a few calls as probes, and closes when they succeed.
//!
//! # Example
//!
//! ```
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{AsRejection, BoxError, circuit_breaker::CircuitBreaker};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreaker::consecutive("payments", 2)?;
//! let service = ServiceBuilder::new()
//!     .layer(breaker.layer())
//!     .service_fn(|_: u32| async { Err::<(), BoxError>("connection refused".into()) });
//!
//! assert!(service.clone().oneshot(1).await.unwrap_err().as_rejection().is_none());
//! assert!(service.clone().oneshot(2).await.unwrap_err().as_rejection().is_none());
//! let error = service.oneshot(3).await.unwrap_err();
//! assert_eq!(error.as_rejection().unwrap().name(), "payments");
//! # Ok(()) }
//! ```
//!
//! Tuned: trips when 40% of the last 200 calls failed or 60% took longer than a second, and
//! recovers gradually.
//!
//! ```
//! # use std::time::Duration;
//! # use tower_rampart::circuit_breaker::CircuitBreaker;
//! let breaker = CircuitBreaker::builder("payments")
//!     .no_time_window()
//!     .count_window(200)
//!     .min_calls(50)
//!     .failure_rate(0.4)
//!     .slow_calls(Duration::from_secs(1), 0.6)
//!     .open_growth(2.0, Duration::from_secs(30))
//!     .gradual_recovery(Duration::from_secs(10))
//!     .build()?;
//! # let _ = breaker;
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! # States
//!
//! | state | calls | next state |
//! |---|---|---|
//! | closed | admitted and counted | open, when a rule is met |
//! | open | rejected, with the time left | half-open, with the first call after the open time |
//! | half-open | up to `probes` admitted concurrently | closed, after `probe_successes` successes; open, after one failure, for longer if `open_growth` is set |
//! | forced open | rejected | changed only manually |
//! | disabled | admitted and counted | changed only manually |
//!
//! The result of a call that was admitted in one state does not count in a later one. A cancelled
//! probe releases its slot. A probe that never completes loses its slot after `probe_timeout`, so
//! the breaker never gets stuck.
//!
//! # What counts
//!
//! | verdict | rates | consecutive failures | as a probe |
//! |---|---|---|---|
//! | success | counted | reset | succeeds |
//! | failure | counted as a failure | one more | fails |
//! | throttled | counted as a failure | unchanged | fails |
//! | ignored | not counted | unchanged | slot released |
//! | cancelled, or cut short by its caller's deadline | counted only if it was slow, as slow | unchanged | slot released; fails if it was slow |
//! | panicked | counted as a failure | one more | fails |
//!
//! By default an error is a failure. A rejection by an inner layer is ignored, unless it is a
//! timeout, which is a failure. Use your own [`Classify`](crate::Classify) for other criteria.
//!
//! # Readiness
//!
//! - [`layer()`](CircuitBreaker::layer) rejects: while the circuit would reject a call,
//!   `poll_ready` is ready immediately, without polling the inner service, and `call` returns
//!   [`CircuitOpen`](crate::Rejection::CircuitOpen). A task that waits for the inner service is
//!   woken, and its call rejected, when the circuit opens.
//! - [`.backpressure()`](CircuitBreakerLayer::backpressure): `poll_ready` is pending until the
//!   circuit would admit the call, and reserves a probe slot if the call would be a probe. Use it
//!   under a balancer, which then sends its traffic elsewhere: a breaker that is ready and rejects
//!   fast attracts traffic. The circuit may still trip between `poll_ready` and `call`; the call is
//!   then rejected, and `poll_ready` is pending again. A reserved probe slot lapses once its owner
//!   has not used it for 5 ms and another caller needs a slot: an idle balancer does not keep the
//!   circuit half-open. The owner's call is then rejected, unless another slot is free or the
//!   circuit has closed; polling it renews the reservation. During a gradual recovery `poll_ready`
//!   is ready, but `call` may return [`CircuitRecovering`](crate::Rejection::CircuitRecovering).
//!   Waiting needs tokio's timer: it panics outside of a runtime with time enabled.
//!
//! # Order
//!
//! Inside of retry, so that every attempt counts and an open circuit ends the retries; outside of
//! bulkhead and attempt timeout, so that a call that hangs counts as a failure. Outside of retry
//! instead, it counts one verdict per request of the caller, and a rejection costs nothing at all.
//!
//! # How to choose the numbers
//!
//! Failure rate: the rate at which the remaining successes are no longer worth the calls. A breaker
//! that trips at 0.5 gives up the half that still succeeds, and cuts off the healthy parts behind
//! the same client: 0.8 is the lowest rate that cost nothing in the fault lab. Use a lower one,
//! down to 0.5, where calls can go elsewhere (under a balancer), or where the server has no limit
//! of its own. Window: enough calls for the rate to mean something (`min_calls` of 20 or more); a
//! time window for steady traffic, a count window for unsteady traffic, or if the healthy path must
//! write nothing at all. Consecutive failures: for rare calls. Open time: how long rejecting a
//! recovered dependency is acceptable; let it grow where probes hurt.
//!
//! # Differences
//!
//! - resilience4j, Polly, failsafe: a call admitted while closed can decide the outcome of the
//!   probes, since results carry no generation. resilience4j needs `maxWaitDurationInHalfOpenState`
//!   and a timer against a stuck half-open state.
//! - tower-resilience takes an async lock twice per call; its count window does not slide.
//! - recloser admits any number of calls while half-open.

mod admitted;
mod builder;
pub mod future;
mod handle;
mod inner;
mod layer;
mod ready_state;
mod reserved_probes;
mod service;

pub use builder::CircuitBreakerBuilder;
pub use handle::{CircuitBreaker, CircuitBreakerSnapshot, Permit, WindowSnapshot};
pub use layer::CircuitBreakerLayer;
pub use service::CircuitBreakerService;

pub use crate::event::{Cause, CircuitState};

pub(crate) use inner::{CircuitBreakerInner, HasBreaker};
pub(crate) use service::{BreakerCall, WithBreaker};
