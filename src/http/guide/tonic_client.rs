//! Wrapping a tonic channel (feature `tonic`).
//!
//! Around the channel, the layers see HTTP requests and responses, and generated clients are built over them. The stack
//! judges by [`GrpcClassifier`](crate::http::GrpcClassifier):
//!
//! ```
//! use http::Request;
//! use tonic::{body::Body, transport::Endpoint};
//! use tower::ServiceBuilder;
//! use tower_rampart::{
//!     AdaptErrorLayer, circuit_breaker::CircuitBreaker,
//!     http::{DeadlineHeader, GrpcClassifier, HttpRepeat, ReplayBody, ReplayLayer, full_response::FullResponseLayer},
//!     retry::Retry, timeout::Timeout,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let channel = Endpoint::from_static("http://greeter:50051").connect_lazy();
//! let (retry, breaker) = (Retry::attempts("greeter", 3)?, CircuitBreaker::new("greeter"));
//! let total = Timeout::new("greeter", std::time::Duration::from_secs(2));
//!
//! // Every call is a POST: say which may be sent twice.
//! let idempotent = |request: &Request<ReplayBody<Body>>| Some(request.uri().path().starts_with("/greeter.Greeter/Get"));
//! let service = ServiceBuilder::new()
//!     .layer(ReplayLayer::new()) // gRPC bodies stream
//!     .layer(total.layer())
//!     .layer(retry.layer().classify(GrpcClassifier).repeat(HttpRepeat::new().idempotent_if(idempotent)))
//!     .layer(FullResponseLayer::new(breaker.layer().classify(GrpcClassifier))) // the status comes last
//!     .layer(DeadlineHeader::grpc().send()) // grpc-timeout
//!     .layer(AdaptErrorLayer::new())
//!     .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
//!     .service(channel);
//! // let client = GreeterClient::new(service);
//! # fn takes_it<S: tonic::client::GrpcService<Body>>(_: S) {}
//! # takes_it(service);
//! # Ok(()) }
//! ```
//!
//! - **Where the status is.** A call that fails before it has anything to answer says so in its headers, and the retry
//!   sees that. Otherwise the status is in the trailers: the breaker sees it, where it covers the
//!   [`full_response`](crate::http::full_response) response, but the retry does not, since by then the response is with the caller.
//! - **One level up**, around a generated client's method, results are a `tonic::Response` or a `tonic::Status`, and
//!   everything is known: `retry.run_with(GrpcClassifier, |_| ..)`, `breaker.run_with(GrpcClassifier, ..)`. A
//!   [`Rejection`](crate::Rejection) becomes a `Status` there with its code, and is found in it again.
//! - **Rejections** of layers around the channel arrive as a `Status` of code `Unknown`, in which
//!   [`as_rejection`](crate::AsRejection) finds them.
//! - **Not sent.** A `Status` that comes of a connection that did not come to be says so
//!   ([`TransportError`](crate::http::TransportError)): such a call is repeated, idempotent or not.
