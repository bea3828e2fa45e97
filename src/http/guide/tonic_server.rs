//! Protecting a tonic server.
//!
//! The layers wrap all services of the server, and rejections become gRPC statuses:
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
//! | `CircuitOpen`, `CircuitRecovering` | `UNAVAILABLE` |
//! | `BulkheadFull`, `QueueTimeout`, `RateLimited` | `RESOURCE_EXHAUSTED` |
//! | `TimedOut` | `DEADLINE_EXCEEDED` |
//!
//! - **Deadlines.** Any caller can choose `grpc-timeout`. Strip it at the edge, or bound it:
//!   [`DeadlineReceiveLayer::at_most`](crate::http::DeadlineReceiveLayer::at_most).
//! - **Hints.** If a rejection has a `retry_after`, `grpc-retry-pushback-ms` carries it, for
//!   clients that support it: those in C++ and Java, and
//!   [`GrpcClassifier`](crate::http::GrpcClassifier).
//! - **Keys.** The peer is in the extensions: `ClientIp::from_peer(|extensions|
//!   Some(extensions.get::<tonic::transport::server::TcpConnectInfo>()?.remote_addr()?.ip()))`. One
//!   client may have a whole IPv6 /48: [limit its networks
//!   too](crate::rate_limit::KeyedRateLimiter#limits-within-limits).
//! - **In a handler**, `breaker.run(..)` and the other handles' `run` can return a `tonic::Status`
//!   (feature `tonic`), since it is an error type that can carry a [`Rejection`](crate::Rejection).
//! - **Streams.** A streaming response is covered only until its headers, unless the layers are
//!   wrapped in a [`FullResponseLayer`](crate::http::full_response::FullResponseLayer).
