//! Repeats what failed, with care.
//!
//! # The problem
//!
//! Some failures are over a moment later: a connection that was reset, an instance that was restarted. Trying again is
//! right then. But the same reflex makes outages worse: when a dependency fails under load, clients that try three times
//! send it three times the load, all at the same moment, and keep it down after the cause has gone. So: few attempts,
//! spread in time by a random backoff, and a budget, which lets single failures be retried freely and an outage hardly at
//! all.
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
//! use tower_rampart::retry::{Backoff, Jitter, Retry, RetryBudget};
//!
//! let budget = RetryBudget::builder().ratio(0.2).capacity(50).build()?; // share it between clients of one dependency
//! let retry = Retry::builder("inventory")
//!     .max_attempts(4)
//!     .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_secs(1)).jitter(Jitter::Equal))
//!     .budget(&budget)
//!     .build()?;
//! let layer = retry
//!     .layer()
//!     .clone_with(reqwest::Request::try_clone)
//!     .idempotent_if(|request: &reqwest::Request| request.method().is_idempotent());
//! # let _ = layer;
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! # What is repeated
//!
//! | result | repeated |
//! |---|---|
//! | judged [`Success`](crate::Verdict::Success) or [`Ignored`](crate::Verdict::Ignored) | no |
//! | judged [`Failure`](crate::Verdict::Failure) or [`Throttled`](crate::Verdict::Throttled) | yes, after the backoff, or the response's own hint if that is longer |
//! | `RateLimited` by a layer below | after its `retry_after`, if that is at most `max_retry_after` |
//! | `TimedOut` by a layer below | if the request is idempotent: it may have been done |
//! | `CircuitOpen`, `BulkheadFull`, `QueueTimeout` by a layer below | no, unless [`retry_on_other_instance`](RetryBuilder::retry_on_other_instance) |
//!
//! A request can say that it must not be repeated unless the service has surely not seen it, or not at all:
//! [`Repeat::replay_safety`](crate::request::Repeat::replay_safety).
//!
//! To know a rejection, the classifier has to be asked for it: the default one is, and so is a closure given to
//! [`classify_with`](RetryLayer::classify_with), but a bare closure given to [`classify`](RetryLayer::classify) or
//! [`run_with`](Retry::run_with) is not ([`Classify::rejection`](crate::Classify::rejection)). There the verdict alone
//! decides, and a timeout or an open circuit that it calls a failure is repeated.
//!
//! Nothing is repeated when attempts, time or budget are used up, when the request cannot be copied, or when the failure
//! comes from another retry further in that has given up: nested retries do not multiply. The caller then gets the last
//! result, unchanged.
//!
//! # Readiness
//!
//! `poll_ready` is the service's own, and pays for the first attempt. Further attempts are made on a clone, which is
//! polled ready after the delay ([`WhenNotReady`]).
//!
//! # Order
//!
//! Outside of breaker, bulkhead and attempt timeout, inside of the total timeout: every attempt is counted, an open
//! circuit ends the retries at once, and a wait between attempts holds no permit. A rate limiter inside counts every
//! attempt, one outside counts calls.
//!
//! # How to choose the numbers
//!
//! [`interactive`](RetryBuilder::interactive) and [`background`](RetryBuilder::background) are two good sets of them.
//! Attempts: 3. The budget's ratio is the load you allow an outage to add: 0.1 is a tenth. Its capacity comes on top, once,
//! from each client: small where there are many, larger for one client with a lot of traffic. Base delay: the time a restart
//! of a connection takes, tens of milliseconds; the cap: what a caller would still wait for. More important than any of
//! them is a total timeout around.
//!
//! # Differences
//!
//! - `tower::retry` needs a policy written by hand; its jitter truncates to whole seconds, its budget rounds the ratio
//!   (0.6 becomes 1), takes a lock on every success, and its result is lost when the service is not ready again.
//! - tower-resilience's boxes its future and allocates per call.
//! - resilience4j's and Polly's have no budget.

mod backoff;
mod budget;
mod builder;
mod call_site;
pub mod future;
mod handle;
mod inner;
mod layer;
mod retry_call;
mod service;
mod when_not_ready;

pub use backoff::{Backoff, Delays, Jitter};
pub use budget::{RetryBudget, RetryBudgetBuilder, RetryBudgetSnapshot};
pub use builder::RetryBuilder;
pub use handle::{Retry, RetrySnapshot};
pub use layer::RetryLayer;
pub use service::RetryService;
pub use when_not_ready::WhenNotReady;

pub(crate) use inner::RetryInner;
pub(crate) use retry_call::{AttemptSource, HasRetry, RetryCall};
pub(crate) use service::WithRetry;
