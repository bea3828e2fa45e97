//! Limits the rate of calls.
//!
//! # The problem
//!
//! A dependency allows a fixed number of calls per second, or charges for them; or one of your
//! clients sends more than its share. A rate limiter enforces the limit: calls above the rate are
//! rejected with the time to retry after, or wait their turn.
//!
//! # Example
//!
//! ```
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{AsRejection, BoxError, rate_limit::{Rate, RateLimiter}};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let limiter = RateLimiter::new("geocoding", Rate::per_minute(2))?;
//! let service =
//!     ServiceBuilder::new().layer(limiter.layer()).service_fn(|place: &'static str| async move { Ok::<_, BoxError>(place) });
//!
//! assert!(service.clone().oneshot("Graz").await.is_ok());
//! assert!(service.clone().oneshot("Oslo").await.is_ok());
//! let error = service.oneshot("Lima").await.unwrap_err();
//! assert!(error.as_rejection().unwrap().retry_after().is_some());
//! # Ok(()) }
//! ```
//!
//! Paced, with a cost per request: calls are spread evenly and wait for up to half a second.
//!
//! ```
//! # use std::time::Duration;
//! use tower_rampart::rate_limit::{Rate, RateLimiter};
//!
//! let limiter = RateLimiter::builder("geocoding", Rate::per_second(50))
//!     .burst(5)
//!     .max_wait(Duration::from_millis(500))
//!     .build()?;
//! let layer = limiter.layer().cost(|places: &Vec<String>| places.len() as u32).wait();
//! # let _ = layer;
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! One limit per client, in bounded memory, regardless of the number of keys:
//!
//! ```
//! use tower_rampart::rate_limit::{KeyedRateLimiter, Rate};
//!
//! struct Request { user: Option<String> }
//!
//! let limiter = KeyedRateLimiter::<str>::builder("per-user", Rate::per_minute(100)).max_keys(100_000).build()?;
//! let layer = limiter.layer(|request: &Request| request.user.clone());
//! # let _ = layer;
//! assert!(limiter.check_key("alice").is_ok());
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! A client may have many keys: a whole IPv6 network, the users of a tenant. For these, put one
//! limiter [within another](KeyedRateLimiter#limits-within-limits).
//!
//! # How it counts
//!
//! With the generic cell rate algorithm (ITU-T I.371), a token bucket whose state is a single
//! number: the bucket holds `burst` tokens and refills at `rate`. In any interval of length t at
//! most `burst + rate * t` calls are admitted (`burst + rate * (t + 10 ms)` if calls wait, by when
//! they start), so there is no double burst at a window's edge. A rejected call leaves no trace.
//! The time per token is kept in eighths of a nanosecond and rounded up: a rate around a million a
//! second comes out up to 0.013% lower, no rate by more than 1%, and none comes out higher.
//!
//! # Readiness
//!
//! - [`layer()`](RateLimiter::layer) rejects: `call` returns
//!   [`RateLimited`](crate::Rejection::RateLimited).
//! - [`.wait()`](RateLimitLayer::wait): the response future waits for its tokens, for up to
//!   `max_wait`, in order of arrival.
//! - [`.backpressure()`](RateLimitLayer::backpressure): `poll_ready` waits for a token. The token
//!   is returned if the service is dropped before the call, or if the inner service stops being
//!   ready. A service that stays ready and idle for more than 10 ms after its token was due may
//!   lose it: `poll_ready` then waits for another, and `call` rejects the call if none is
//!   available.
//!
//! Calls that wait are a queue, in order of arrival; no later call overtakes them. A call in the
//! queue owns no tokens, so one that is cancelled leaves no debt, whatever its place. Tokens that
//! are returned unused (by a dropped readiness or [`Token::refund`]) are available again
//! immediately, in any number and order; but each stands for a period of time, and the part of it
//! that has passed is not returned.
//!
//! A call whose turn has come, but which is not polled for 10 ms, is passed over: its tokens go to
//! the next call in the queue that is polled, and it comes first when it is polled again. Each time
//! 10 ms pass in vain, twice as many calls are passed over. So 5,000 shed clones that are no longer
//! polled delay the next call by about 0.2 s, once.
//!
//! A call that waits is counted from when its tokens were due, but at most 10 ms before it starts.
//! A task that is polled later than that loses the time in between, so calls that are late do not
//! start all at once.
//!
//! # Order
//!
//! On the client, inside of retry, so that every attempt counts. On the server, outermost except
//! for the timeout: a rejection should cost nothing.
//!
//! # How to choose the numbers
//!
//! The rate is given, by a contract or by your capacity. The burst: the number of calls that may
//! arrive at the same instant without harm; a whole period's worth (the default) for human users,
//! less for machines, 1 for a dependency that is sensitive to bursts. Against a contract of N per
//! T, `burst + N` calls may be admitted within the first T: choose a smaller burst or a lower rate
//! if that matters.
//!
//! # Differences
//!
//! - `tower::limit::RateLimit` counts in fixed windows, admits nearly twice the rate around an
//!   edge, is not `Clone`, and always waits.
//! - governor uses the same algorithm; its keyed limiter keeps every key until told to discard the
//!   idle ones, its waiters have no queue and so may starve, and it has no refund.
//! - resilience4j's limiter counts in fixed periods, and its rejected calls write.

mod builder;
pub mod future;
mod handle;
mod inner;
mod keyed;
mod layer;
#[cfg(all(test, rampart_loom))]
mod models;
mod queue;
mod rate;
mod service;

pub use builder::RateLimiterBuilder;
pub use handle::{RateLimiter, RateLimiterSnapshot, Token};
pub use keyed::{
    KeyedRateLimitLayer, KeyedRateLimitService, KeyedRateLimiter, KeyedRateLimiterBuilder, KeyedRateLimiterSnapshot,
    MissingKey, WhenFull,
};
pub use layer::{Cost, CostOf, One, RateLimitLayer};
pub use rate::Rate;
pub use service::RateLimitService;

pub(crate) use inner::RateLimiterInner;
pub(crate) use service::{RateLimitCall, WithRateLimit};
