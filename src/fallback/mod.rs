//! Serves a fallback in place of an error.
//!
//! # The problem
//!
//! A page needs five services, and one of them is down. An error page helps no user; the page
//! without recommendations, with yesterday's prices, or with a friendly message instead does. A
//! fallback makes that choice once, where the call is made, instead of in every handler.
//!
//! # Example
//!
//! ```
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{BoxError, circuit_breaker::CircuitBreaker, fallback::Fallback};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breaker = CircuitBreaker::new("recommendations");
//! breaker.force_open();
//! let service = ServiceBuilder::new()
//!     .layer(Fallback::value("recommendations", vec!["bestseller"]))
//!     .layer(breaker.layer())
//!     .service_fn(|_user: u32| async { Ok::<_, BoxError>(vec!["for you"]) });
//!
//! assert_eq!(service.oneshot(7).await?, ["bestseller"]);
//! # Ok(()) }
//! ```
//!
//! By default a fallback replaces the rejections of the layers inside. This one replaces every
//! error, by a function of the request and the error:
//!
//! ```
//! # use tower_rampart::{BoxError, fallback::Fallback};
//! let layer = Fallback::function("prices", |item: u32, _error: Result<u64, BoxError>| async move {
//!     Ok::<_, BoxError>(u64::from(item) * 100) // the list price
//! })
//! .when(|result: Result<&u64, &BoxError>| result.is_err());
//! # let _ = layer;
//! ```
//!
//! A request with a streaming body cannot be cloned. Here only the part that the function needs is
//! copied:
//!
//! ```
//! # use tower_rampart::{BoxError, fallback::Fallback};
//! # struct Body;
//! let keep = |request: &http::Request<Body>| request.uri().path().to_owned();
//! let layer = Fallback::function_with("prices", keep, |path: String, _rejected: Result<String, BoxError>| async move {
//!     Ok::<_, BoxError>(format!("nothing new at {path}"))
//! });
//! # let _ = layer;
//! ```
//!
//! # What it serves
//!
//! - [`Fallback::value`]: a clone of a value.
//! - [`Fallback::function`]: the output of an async function, called with a clone of the request
//!   and the result.
//! - [`Fallback::function_with`]: the output of an async function, called with a part of the
//!   request and the result. For requests that cannot be cloned.
//! - [`Fallback::service`]: the response of another service to a clone of the request. That service
//!   is polled ready only when it is needed.
//!
//! The output of the function or the service is the response, even if it is an error. The event
//! ([`FallbackServed`](crate::EventKind::FallbackServed)) is the only trace of a fallback: the
//! response itself has the service's type.
//!
//! The layer is the handle: [`FallbackLayer`] has the name and `run`, and it is cheap to clone.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's own. Its errors are not replaced.
//!
//! # Order
//!
//! Outermost, so that no other layer mistakes a fallback for a success of the service: a breaker
//! outside of a fallback never trips.
//!
//! # How to choose
//!
//! Serve less than the real response if need be, never a wrong one: an empty list of
//! recommendations, but not an empty basket. Keep the fallback local; one that makes calls needs
//! protection of its own. Fall back for rejections and timeouts by default, and for other errors
//! only if the caller has no better option.
//!
//! # Differences
//!
//! - resilience4j and Polly select by exception type; here a predicate sees the whole result, so it
//!   can also replace a response.
//! - Nothing is boxed, and only the forms that need the request copy it.

mod builder;
mod fallback_call;
pub mod future;
mod inner;
mod layer;
mod serve;
mod service;

pub use builder::Fallback;
pub use layer::FallbackLayer;
pub use serve::{Rejected, Serve, ServeFunction, ServeFunctionWith, ServeService, ServeValue, When};
pub use service::FallbackService;
