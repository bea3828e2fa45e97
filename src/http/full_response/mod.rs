//! Layers that cover the whole response, including its body.
//!
//! # The problem
//!
//! A response arrives when its headers do. For the layers of this crate the call completes then:
//! the permit is released, the breaker records the result, the timeout stops. The body may still
//! take an hour, or break off.
//!
//! [`FullResponseLayer`] wraps layers so that their call lasts until the body has ended, while the
//! caller still gets the response as soon as the headers arrive:
//!
//! - a bulkhead's permit is held until the body ends or is dropped;
//! - a timeout covers headers and body: it breaks the body off with its
//!   [`Rejection`](crate::Rejection);
//! - a breaker classifies the complete response: whether the body broke off, gRPC's status in the
//!   trailers, and the total time.
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
//! let covering = ServiceBuilder::new()
//!     .layer(breaker.layer().classify(HttpClassifier::new()))
//!     .layer(Bulkhead::new("files", 16)?.layer())
//!     .layer(Timeout::new("files.total", Duration::from_secs(60)).layer())
//!     .into_inner();
//! let layers = ServiceBuilder::new()
//!     .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new())) // retries on the headers alone
//!     .layer(FullResponseLayer::new(covering))
//!     .layer(BodyTimeoutLayer::new(&Timeout::new("files.idle", Duration::from_secs(5)))); // between two frames
//! # let _ = layers;
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! # Why this is not the default
//!
//! It is right for some responses and wrong for others, and being wrong costs more. A caller that
//! reads slowly, or streams events all day, would hold a permit of the dependency and make it look
//! slow to the breaker, through no fault of the dependency. A total timeout would cut off healthy
//! downloads. Most responses are small and arrive together with their headers, so for them it makes
//! no difference.
//!
//! The call therefore completes with the headers unless you wrap the layers. Wrap them where bodies
//! are large and the work of producing them needs the limit, where a service fails in the middle of
//! a body, and for gRPC, whose status comes last.
//!
//! # How a body counts
//!
//! A body ends when it has been read to its end, breaks off, or is dropped. Dropping the body
//! cancels the call, which counts neither as success nor as failure unless the call was already
//! slow. If the response's status is a failure, the call counts as a failure, whether or not the
//! body was read.
//!
//! A retry must be outside, where responses have their usual type. Inside, it does not compile,
//! because a [`TrackedRequest`] cannot be cloned.
//!
//! # Cost
//!
//! Three allocations per call. Each frame of the body polls the layers once.

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
