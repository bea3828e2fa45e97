//! Refuses calls to a dependency that fails.
//!
//! # The problem
//!
//! A dependency is down. Every call to it takes its timeout to find out what the calls before it have found out already,
//! holds resources meanwhile, and adds to the load of something that tries to get up again. A circuit breaker remembers:
//! when too many calls fail it opens and answers at once, for a while; then it lets a few calls through as probes, and
//! closes when they succeed.
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
//! Tuned: trips when 40% of the last 200 calls failed or 60% took longer than a second, and comes back gently.
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
//! | state | calls | leaves it |
//! |---|---|---|
//! | closed | pass, and are counted | when a rule is met: open |
//! | open | are refused, with the time left | when the open time is over, with the next call: half-open |
//! | half-open | up to `probes` at once pass | `probe_successes` succeeded: closed; one failed: open, for longer |
//! | forced open | are refused | by hand |
//! | disabled | pass, and are counted | by hand |
//!
//! What a call that was let in under one state has to say does not count in a later one. A probe that is cancelled gives
//! its place back. One that never ends loses it after `probe_timeout`, so nothing leaves the breaker stuck.
//!
//! # What counts
//!
//! | verdict | rates | run of failures | as a probe |
//! |---|---|---|---|
//! | success | counted | reset | succeeds |
//! | failure | degraded | extended | fails |
//! | throttled | degraded | unchanged | fails |
//! | ignored | not counted | unchanged | place given back |
//! | cancelled | not counted; slow, if it was | unchanged | place given back; fails, if it was slow |
//! | panicked | degraded | extended | fails |
//!
//! By default an error is a failure, except for rejections by layers inside, which are ignored, except for timeouts, which
//! are failures. See [`Classify`](crate::Classify) to judge by what you know.
//!
//! # Readiness
//!
//! - [`layer()`](CircuitBreaker::layer) refuses: while the circuit would, `poll_ready` is ready at once, without asking
//!   the service, and `call` answers [`CircuitOpen`](crate::Rejection::CircuitOpen). A task that waits for a service that
//!   is not ready is woken, and refused, when the circuit opens.
//! - [`.backpressure()`](CircuitBreakerLayer::backpressure): `poll_ready` is pending until the circuit would let the call
//!   in, and reserves the place of a probe. For use under a balancer, which then sends its traffic elsewhere: a breaker
//!   that is ready and refuses fast attracts it. Between `poll_ready` and `call` the circuit may still trip; the call is
//!   refused then, and `poll_ready` pending again. So is a call with a probe's place that was kept idle for longer than
//!   `probe_timeout`, if another has it now. During a gradual recovery `poll_ready` is ready, and `call` may refuse.
//!   WaitForChange needs tokio's timer: outside of a runtime with time enabled it panics.
//!
//! # Order
//!
//! Inside of retry, so that every attempt is counted and an open circuit ends the retries; outside of bulkhead and attempt
//! timeout, so that a call that hangs counts as a failure. Around the retry instead, it counts one verdict per user's call,
//! and a refusal costs nothing at all.
//!
//! # How to choose the numbers
//!
//! The failure rate: where the answers that still come are no longer worth asking for. A breaker that trips at half gives
//! away the other half, and takes down what is well behind the same client: 0.8 is the lowest with which it cost nothing in
//! the fault lab. Lower, to 0.5, where calls can go elsewhere (under a balancer), or the server has no limit of its own. The window: as many calls as make the rate mean something (`min_calls` 20 or more),
//! in a time window if traffic is steady, in a count window if it is not, or if you want the healthy path to write
//! nothing at all. Consecutive failures: for rare calls. Open time: how long it may be refused after it is well again; let
//! it grow where probes hurt.
//!
//! # Differences
//!
//! - resilience4j, Polly, failsafe: a call admitted while closed can decide the verdict on the probes there, since results
//!   bear no generation. resilience4j needs `maxWaitDurationInHalfOpenState` and a timer against a stuck half-open state.
//! - tower-resilience takes an async lock twice per call; its count window does not slide.
//! - recloser admits without limit while half-open.

mod builder;
pub mod future;
mod handle;
mod inner;
mod layer;
mod ready_state;
mod service;

pub use builder::CircuitBreakerBuilder;
pub use handle::{CircuitBreaker, CircuitBreakerSnapshot, Permit, WindowSnapshot};
pub use layer::CircuitBreakerLayer;
pub use service::CircuitBreakerService;

pub use crate::event::{Cause, CircuitState};

pub(crate) use inner::{CircuitBreakerInner, HasBreaker};
pub(crate) use service::{BreakerCall, WithBreaker};
