//! Wrapping a tonic channel (feature `tonic`).
//!
//! Around the channel, the layers see HTTP requests and responses; build the generated client on
//! top of them. The layers classify by [`GrpcClassifier`](crate::http::GrpcClassifier):
//!
//! ```
//! use std::time::Duration;
//! use http::Request;
//! use tonic::{body::Body, transport::Endpoint};
//! use tower::ServiceBuilder;
//! use tower_rampart::{
//!     circuit_breaker::CircuitBreaker,
//!     http::{AdaptClientErrorLayer, DeadlineHeader, GrpcClassifier, HttpRepeat, ReplayBody, ReplayLayer, full_response::FullResponseLayer},
//!     retry::Retry, timeout::Timeout,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let channel = Endpoint::from_static("http://greeter:50051").connect_lazy();
//! let (retry, breaker) = (Retry::attempts("greeter", 3)?, CircuitBreaker::new("greeter"));
//! let total = Timeout::new("greeter", Duration::from_secs(2));
//! let attempt = Timeout::new("greeter-attempt", Duration::from_millis(800));
//!
//! // Every call is a POST: decide which may be sent twice.
//! let idempotent = |request: &Request<ReplayBody<Body>>| Some(request.uri().path().starts_with("/greeter.Greeter/Get"));
//! let service = ServiceBuilder::new()
//!     .layer(ReplayLayer::new()) // gRPC bodies stream
//!     .layer(total.layer())
//!     .layer(retry.layer().classify(GrpcClassifier).repeat(HttpRepeat::new().idempotent_if(idempotent)))
//!     .layer(FullResponseLayer::new(breaker.layer().classify(GrpcClassifier))) // the status comes last
//!     .layer(attempt.layer()) // a hang is a failure
//!     .layer(DeadlineHeader::grpc().send()) // grpc-timeout
//!     .layer(AdaptClientErrorLayer::new())
//!     .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
//!     .service(channel);
//! // let client = GreeterClient::new(service);
//! # fn accepts<S: tonic::client::GrpcService<Body>>(_: S) {}
//! # accepts(service);
//! # Ok(()) }
//! ```
//!
//! - **Where the status is.** A call that fails before it has sent a message has its status in the
//!   headers, and the retry sees it. Otherwise the status is in the trailers. A breaker that covers
//!   the [full response](crate::http::full_response) sees it; the retry does not, because the
//!   caller has the response by then.
//! - **One level up**, around a generated client's method, the result is a `tonic::Response` or a
//!   `tonic::Status`, and the status is always known: `retry.run_with(GrpcClassifier, |_| ..)`,
//!   `breaker.run_with(GrpcClassifier, ..)`. There, a [`Rejection`](crate::Rejection) becomes a
//!   `Status` with its code, and can be recovered from it.
//! - **tonic's own timeouts.** The channel itself ends a call at its `grpc-timeout` and after
//!   `Endpoint::timeout`. [`DeadlineHeader::send`](crate::http::DeadlineHeader::send) and
//!   [`AdaptClientErrorLayer`](crate::http::AdaptClientErrorLayer) turn that into the same
//!   [`TimedOut`](crate::Rejection::TimedOut) that the timeouts around it return. It is a failure,
//!   unless the limit was the caller's own and shorter than the attempt timeout
//!   (`Request::set_timeout`, or a deadline that this process has received).
//! - **Rejections** by layers around the channel arrive as a `Status` of code `Unknown`, in which
//!   [`as_rejection`](crate::AsRejection) finds them.
//! - **Not sent.** A `Status` caused by a failure to connect says so
//!   ([`TransportError`](crate::http::TransportError)). Such a call is retried, idempotent or not.
