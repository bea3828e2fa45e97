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
//! # When a body ends
//!
//! A reader need not poll a body to its end: servers drop it as soon as the protocol allows. The
//! call completes when the body
//!
//! - says that it has ended, yields trailers, or fails;
//! - is dropped after it has delivered its announced length: the `Content-Length`, or the exact
//!   length of its [`size_hint`](http_body::Body::size_hint);
//! - is not sent at all: in responses to HEAD, after a successful CONNECT, and with the statuses
//!   1xx, 204 and 304. An upgraded connection is not covered.
//!
//! When the announced length is reached, the body is polled once more, ahead of the reader, to find
//! its end or its trailers. A body that ends by itself earlier or later than announced is complete
//! all the same; a server or client that checks the length reports its own error.
//!
//! Dropping a body earlier cancels the call, which counts neither as success nor as failure unless
//! the call was already slow. If the response's status is a failure, the call counts as a failure,
//! whether or not the body was read.
//!
//! # Slow readers
//!
//! Time limits do not depend on the reader. When a timer of a layer fires, a task polls the layers'
//! call, even if the body is never polled again. The permit is released, and the service's body is
//! dropped with its connection. When the reader polls again, it gets an error:
//!
//! - If it was waiting for the service (its last poll was pending), that is the timeout's
//!   [`Rejection`](crate::Rejection), and the call is a failure.
//! - If the service was waiting for the reader, that is [`SlowReader`]. The service is not to
//!   blame, so the call counts as ignored
//!   ([`ResponseHead::is_unread`](crate::http::ResponseHead::is_unread)), and peers that do not
//!   read cannot open a circuit. Only timeouts of this crate make the distinction.
//!
//! Without a timeout among the layers, a reader that neither reads nor drops its body holds the
//! permit for as long as it likes: put one there.
//!
//! # Runtime
//!
//! The task is spawned on the tokio runtime in which the response arrived. If that runtime shuts
//! down, time limits no longer apply to a body that outlives it; the call still ends with the body.
//! Outside of a tokio runtime, layers without timers work, and a layer of your own that wakes its
//! task is polled when the reader polls.
//!
//! # Requirements
//!
//! The futures of the layers and of the service are `Send + 'static`. Requests implement
//! [`RequestHead`](crate::http::RequestHead). A retry must be outside, where responses have their
//! usual type. Inside, it does not compile, because a [`TrackedRequest`] cannot be cloned.
//!
//! # Cost
//!
//! Three allocations per call, and two more for a body that has not ended when the response
//! arrives. Each frame of the body takes an uncontended lock twice. Tasks are spawned only when
//! timers fire.

mod announced_length;
mod body;
mod body_timeout;
mod channel;
mod completed_response;
mod covered_body;
mod covered_call;
mod inner_service;
mod layer;
mod service;
mod tracked_request;

pub(super) use announced_length::has_no_body;
pub use body::FullResponseBody;
pub use body_timeout::{BodyTimeout, BodyTimeoutLayer, TimedBody};
pub use completed_response::CompletedResponse;
pub use covered_body::SlowReader;
pub use inner_service::InnerService;
pub use layer::FullResponseLayer;
pub use service::FullResponse;
pub use tracked_request::TrackedRequest;

/// Futures of the services in this module.
pub mod future {
    pub use super::{body_timeout::BodyTimeoutFuture, inner_service::InnerServiceFuture, service::FullResponseFuture};
}
