//! Protecting a tonic server.
//!
//! The layers go around all services of the server, and rejections become gRPC statuses:
//!
//! ```
//! use std::time::Duration;
//! use tonic::{body::Body, transport::Server};
//! use tower::ServiceBuilder;
//! use tower_rampart::{http::{DeadlineHeader, grpc_response}, stack};
//!
//! let stack = stack::server("greeter").total_timeout(Duration::from_secs(5)).build()?;
//! let layers = ServiceBuilder::new()
//!     .layer(DeadlineHeader::grpc().receive()) // the caller's grpc-timeout is the call's deadline
//!     .layer(stack.respond(grpc_response::<Body>))
//!     .into_inner();
//! let server = Server::builder().layer(layers);
//! // server.add_service(GreeterServer::new(greeter)).serve(address).await?;
//! # async fn serve(mut server: Server<impl Clone>) {}
//! # let _ = serve(server);
//! # Ok::<(), tower_rampart::ConfigError>(())
//! ```
//!
//! | rejection | status |
//! |---|---|
//! | `CircuitOpen` | `UNAVAILABLE` |
//! | `BulkheadFull`, `QueueTimeout`, `RateLimited` | `RESOURCE_EXHAUSTED` |
//! | `TimedOut` | `DEADLINE_EXCEEDED` |
//!
//! - **Hints.** Where it is known when to come back, `grpc-retry-pushback-ms` says so, to clients that know it; those in
//!   C++ and Java do, and [`GrpcClassifier`](crate::http::GrpcClassifier).
//! - **Keys.** The peer is in the extensions:
//!   `ClientIp::from_peer(|extensions| Some(extensions.get::<tonic::transport::server::TcpConnectInfo>()?.remote_addr()?.ip()))`.
//! - **In a handler**, `breaker.run(..)` and its sisters answer with a `tonic::Status` themselves, with the feature `tonic`:
//!   it is an error that can hold a [`Rejection`](crate::Rejection).
//! - **Streams.** A response that streams is covered until its headers only, unless the layers are wrapped in a
//!   [`FullResponseLayer`](crate::http::full_response::FullResponseLayer).
