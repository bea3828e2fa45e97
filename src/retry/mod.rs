//! Retries failed calls, within limits.
//!
//! # The problem
//!
//! Some failures pass within moments: a connection was reset, an instance restarted. Retrying is
//! right then, but the same reflex makes outages worse: when a dependency fails under load, clients
//! that try three times send it three times the load, all at the same moment, and keep it down
//! after the cause is gone. The remedy: few attempts, spread in time by a random backoff, and a
//! budget that lets isolated failures be retried freely, but hardly any in an outage.
//!
//! # Example
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{BoxError, retry::Retry};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), BoxError> {
//! let retry = Retry::attempts("inventory", 3)?;
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let service = ServiceBuilder::new().layer(retry.layer()).service_fn(|item: &'static str| async move {
//!     match CALLS.fetch_add(1, Ordering::Relaxed) {
//!         0 => Err(BoxError::from("connection reset")),
//!         _ => Ok(item),
//!     }
//! });
//! assert_eq!(service.oneshot("apple").await?, "apple");
//! # Ok(()) }
//! ```
//!
//! Tuned, around reqwest, whose requests have a clone that may fail:
//!
//! ```
//! # use std::time::Duration;
//! use tower_rampart::{Verdict, retry::{Backoff, Jitter, Retry, RetryBudget}};
//!
//! let budget = RetryBudget::builder().ratio(0.2).capacity(50).build()?; // share it among all clients of a dependency
//! let retry = Retry::builder("inventory")
//!     .max_attempts(4)
//!     .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_secs(1)).jitter(Jitter::Equal))
//!     .budget(&budget)
//!     .build()?;
//! let layer = retry
//!     .layer()
//!     .classify_with(|result: Result<&reqwest::Response, &reqwest::Error>| match result {
//!         Ok(response) if response.status().is_server_error() => Verdict::Failure,
//!         Ok(_) => Verdict::Success,
//!         Err(_) => Verdict::Failure,
//!     })
//!     .clone_with(reqwest::Request::try_clone)
//!     .idempotent_if(|request: &reqwest::Request| request.method().is_idempotent());
//! # let _ = layer;
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! # What is retried
//!
//! | result | retried |
//! |---|---|
//! | classified as [`Success`](crate::Verdict::Success) or [`Ignored`](crate::Verdict::Ignored) | no |
//! | classified as [`Failure`](crate::Verdict::Failure) or [`Throttled`](crate::Verdict::Throttled) | yes, after the backoff, or after the response's own hint if that is longer |
//! | `RateLimited` by an inner layer | after its `retry_after`, if that is at most `max_retry_after` |
//! | `TimedOut` by an inner layer | if the request is idempotent: it may have been processed; never once the caller's deadline has passed |
//! | `CircuitOpen`, `CircuitRecovering`, `BulkheadFull`, `QueueTimeout` by an inner layer | no, unless [`retry_on_other_instance`](RetryBuilder::retry_on_other_instance) is set |
//!
//! A request can restrict its retries to cases in which the service has certainly not processed it,
//! or forbid them: [`Repeat::replay_safety`](crate::request::Repeat::replay_safety).
//!
//! A retry recognizes a rejection in the error itself ([`AsRejection`](crate::AsRejection)),
//! whatever the classifier: a closure that calls every error a failure does not make a timed-out
//! payment twice. To treat timeouts differently, declare the request idempotent
//! ([`idempotent_if`](RetryLayer::idempotent_if)), or override
//! [`Classify::classify_rejection`](crate::Classify::classify_rejection).
//!
//! A call is not retried when attempts, time or budget are exhausted, or when its request cannot be
//! copied. The caller then gets the last result, unchanged.
//!
//! # Nested retries
//!
//! Nested retries do not multiply. A retry counts as attempts of its own the retries of all calls
//! inside of its attempts that end without a success or are dropped, and retries inside stop when
//! the attempts that the outermost retry allows are used up. So calls that follow each other make
//! no more attempts than that; calls that run at the same time see each other's retries once they
//! have ended. A retry with a single attempt, or whose request cannot be copied, bounds nothing.
//!
//! For an error, and for a response of any type, nothing tells whether it is the result of the call
//! whose retries failed. A call whose failure is handled inside of the attempt is declared by
//! [`side_call`]. HTTP and gRPC responses carry a mark in their extensions
//! ([`Classify::mark_exhausted`](crate::Classify::mark_exhausted), which the classifiers of `http`
//! implement): an outer retry never retries a marked response, and an unmarked one whatever the
//! calls inside did.
//!
//! All this follows the call stack of one task. Work that is handed to another task has retries of
//! its own.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's own, and covers the first attempt. Further attempts are made
//! on a clone, which is polled ready after the delay ([`WhenNotReady`]).
//!
//! # Order
//!
//! Outside of breaker, bulkhead and attempt timeout, inside of the total timeout: the breaker
//! counts every attempt, an open circuit ends the retries immediately, and a delay between attempts
//! holds no permit. A rate limiter inside counts attempts, one outside counts calls.
//!
//! # How to choose the numbers
//!
//! [`interactive`](RetryBuilder::interactive) and [`background`](RetryBuilder::background) are two
//! good sets. Attempts: 3. The budget's ratio is the extra load that you allow in an outage: 0.1 is
//! a tenth. Its capacity comes on top, once per client: small if there are many, larger for a
//! single client with a lot of traffic. Base delay: the time it takes to reconnect, tens of
//! milliseconds. The cap: the longest delay that a caller would wait for. More important than any
//! of these is a total timeout around the retry.
//!
//! # Differences
//!
//! - `tower::retry` needs a policy that you write yourself. Its jitter truncates to whole seconds,
//!   its budget rounds the ratio (0.6 becomes 1) and takes a lock on every success, and it loses
//!   the result if the service is not ready again.
//! - tower-resilience's retry boxes its future and allocates per call.
//! - The retries of resilience4j and Polly have no budget.

mod backoff;
mod budget;
mod builder;
mod call_site;
pub mod future;
mod handle;
mod inner;
mod layer;
mod retry_call;
mod retrying;
mod run;
mod scope;
mod service;
mod when_not_ready;

pub use backoff::{Backoff, Delays, Jitter};
pub use budget::{RetryBudget, RetryBudgetBuilder, RetryBudgetSnapshot};
pub use builder::RetryBuilder;
pub use handle::{Retry, RetrySnapshot};
pub use layer::RetryLayer;
pub use scope::{SideCall, side_call};
pub use service::RetryService;
pub use when_not_ready::WhenNotReady;

pub(crate) use inner::RetryInner;
pub(crate) use retry_call::{AttemptSource, HasRetry, RetryCall};
pub(crate) use service::WithRetry;
