//! At most so many calls in so much time.
//!
//! # The problem
//!
//! A dependency allows so many calls a second, or charges for them; a client of yours sends more than its share. A rate
//! limiter keeps the peace: what exceeds the rate is refused with the time to come back, or waits its turn.
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
//! Paced, with costs: calls are spread evenly and wait for up to half a second.
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
//! One limit per client, in memory that is bounded whatever keys come:
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
//! # How it counts
//!
//! By the generic cell rate algorithm (ITU-T I.371), which is a token bucket that needs one number: a bucket of `burst`
//! tokens that fills at `rate`. In any interval of length t at most `burst + rate * t` calls pass, so there is no double
//! burst at a window's edge. A refused call leaves no trace. The time for one token is kept in eighths of a nanosecond and
//! rounded up: a rate around a million a second comes out up to 0.013% short, and none ever above.
//!
//! # Readiness
//!
//! - [`layer()`](RateLimiter::layer) refuses: `call` answers [`RateLimited`](crate::Rejection::RateLimited).
//! - [`.wait()`](RateLimitLayer::wait): the response future waits for its tokens, for up to `max_wait`, in order of arrival.
//! - [`.backpressure()`](RateLimitLayer::backpressure): `poll_ready` waits for a token. It is given back when the
//!   readiness is dropped unused, or the service within stops being ready. The token counts from the time when it was
//!   due: services that are ready and idle for long may all be called at once, and then exceed the rate by a call each.
//!
//! A wait is a reservation: its token is taken at once, and due at a known time. So waiters pass in order of arrival and
//! none starves. The place of one who gives up goes to the next who comes, even if others wait already for later ones.
//!
//! # Order
//!
//! On the client, inside of retry, so that every attempt counts. On the server, outermost but for the timeout: a refusal
//! should cost nothing.
//!
//! # How to choose the numbers
//!
//! The rate is given, by a contract or by what you can serve. The burst: what may come at once without harm; a whole
//! period's worth (the default) for people's clients, less for machines, 1 for a dependency that minds. Against a contract
//! of N per T, `burst + N` may pass within the first T: take a smaller burst, or a lower rate, if that counts.
//!
//! # Differences
//!
//! - `tower::limit::RateLimit` counts in fixed windows, passes nearly twice the rate around an edge, cannot be cloned, and
//!   only ever waits.
//! - governor counts the same way; its keyed limiter keeps every key until told to forget, waiters do not reserve and so may
//!   starve, and there is no refund.
//! - resilience4j's counts in fixed periods; its refused calls write.

mod builder;
pub mod future;
mod handle;
mod inner;
mod keyed;
mod layer;
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
