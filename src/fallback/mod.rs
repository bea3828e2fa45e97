//! Serves something else instead of an error.
//!
//! # The problem
//!
//! A page needs five services, and one of them is down. An error page helps nobody: the page without the
//! recommendations, with yesterday's prices, or with a friendly word in their place does. A fallback makes that choice
//! once, where the call is made, instead of in every handler.
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
//! A function of the request and the error, and for other results than the default (rejections by the layers inside):
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
//! A request with a body that streams cannot be cloned. What the function needs of it is kept instead:
//!
//! ```
//! # use tower_rampart::{BoxError, fallback::Fallback};
//! # struct Body;
//! let keep = |request: &http::Request<Body>| request.uri().path().to_owned();
//! let layer = Fallback::function_with("prices", keep, |path: String, _refused: Result<String, BoxError>| async move {
//!     Ok::<_, BoxError>(format!("nothing new at {path}"))
//! });
//! # let _ = layer;
//! ```
//!
//! # What it serves
//!
//! - [`Fallback::value`]: a clone of a value.
//! - [`Fallback::function`]: what an async function makes of a clone of the request and the result.
//! - [`Fallback::function_with`]: the same, of a part of the request, where the whole cannot be cloned.
//! - [`Fallback::service`]: another service's answer to a clone of the request. The service is polled ready when it is
//!   needed.
//!
//! Whatever the function or the service comes to is the answer, also when that is an error. What was served is told in the
//! event ([`FallbackServed`](crate::EventKind::FallbackServed)), which is the only trace: the answer itself is of the service's type.
//!
//! # Readiness
//!
//! `poll_ready` is the service's own; an error there passes.
//!
//! # Order
//!
//! Outermost, so that nothing below mistakes a fallback for the service's success: a breaker outside of a fallback never
//! trips.
//!
//! # How to choose
//!
//! Serve what is right though less, never what is wrong: an empty list of recommendations, not an empty basket. Keep it
//! local; a fallback that makes calls needs protection of its own. Fall back for rejections and timeouts by default, and
//! for other errors only if the caller could not do better.
//!
//! # Differences
//!
//! - resilience4j and Polly choose by exception type; here a predicate sees the whole result, so that a response can be
//!   replaced too.
//! - Nothing is boxed, and the request is kept only by the forms that need it.

pub mod future;
mod layer;
mod serve;
mod service;

pub use layer::{Fallback, FallbackLayer};
pub use serve::{Rejected, Serve, ServeFunction, ServeFunctionWith, ServeService, ServeValue, When};
pub use service::FallbackService;
