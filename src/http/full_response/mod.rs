//! Patterns that cover the whole response, its body included.
//!
//! # The problem
//!
//! A response is there when its headers are, and for the layers of this crate the call ends then: the permit comes home,
//! the breaker counts, the timeout stops. The body may still take an hour, or break off.
//!
//! [`FullResponseLayer`] wraps layers so that for them the call lasts until the body has ended, while the caller gets
//! the response as soon as its headers are there:
//!
//! - a bulkhead's permit is held until the body ends, or is dropped;
//! - a timeout covers headers and body: it breaks the body off with its [`Rejection`](crate::Rejection);
//! - a breaker judges by all there is to know: a body that broke off, gRPC's status in the trailers, the time it all took.
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_rampart::{
//!     bulkhead::Bulkhead, circuit_breaker::CircuitBreaker,
//!     http::{HttpClassifier, HttpRepeat, full_response::{BodyTimeoutLayer, FullResponseLayer}},
//!     retry::Retry, timeout::Timeout,
//! };
//!
//! let (retry, breaker) = (Retry::attempts("files", 3)?, CircuitBreaker::new("files"));
//! let whole = ServiceBuilder::new()
//!     .layer(breaker.layer().classify(HttpClassifier::new()))
//!     .layer(Bulkhead::new("files", 16)?.layer())
//!     .layer(Timeout::new("files.total", Duration::from_secs(60)).layer())
//!     .into_inner();
//! let layers = ServiceBuilder::new()
//!     .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new())) // of what is known by the headers
//!     .layer(FullResponseLayer::new(whole))
//!     .layer(BodyTimeoutLayer::new(&Timeout::new("files.idle", Duration::from_secs(5)))); // between two pieces
//! # let _ = layers;
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! # Why it is not the default
//!
//! Because it is right for some responses and wrong for others, and the wrong ones do the more harm. A caller that reads
//! slowly, or streams events all day, would hold a permit of the dependency, and make it look slow to the breaker,
//! through no fault of its own; a total timeout would cut off healthy downloads. Most responses are small and arrive with
//! their headers: for them both are the same. So the call ends with the headers, unless you wrap the layers: where bodies
//! are large and what is limited is the work of making them, where a service fails in the middle of its bodies, and for
//! gRPC, whose status comes last.
//!
//! # What counts
//!
//! A body is over when it has been read to its end, broke off, or was dropped. Dropped by a caller that had seen enough,
//! the call was cancelled, which says nothing unless it was slow already; but a response whose status says that it failed
//! has failed, read or not. A retry must be outside, where responses are what they were: inside it does not compile, as
//! the request, a [`TrackedRequest`] one, cannot be copied.
//!
//! A call costs three allocations, and each piece of the body a poll of the layers.

mod body;
mod body_timeout;
mod channel;
mod completed_response;
mod inner_service;
mod layer;
mod service;
mod tracked_request;

pub use body::FullResponseBody;
pub use body_timeout::{BodyTimeout, BodyTimeoutLayer, TimedBody};
pub use completed_response::CompletedResponse;
pub use inner_service::InnerService;
pub use layer::FullResponseLayer;
pub use service::FullResponse;
pub use tracked_request::TrackedRequest;

/// Futures of the services in this module.
pub mod future {
    pub use super::{body_timeout::BodyTimeoutFuture, inner_service::InnerServiceFuture, service::FullResponseFuture};
}
