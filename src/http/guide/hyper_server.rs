//! Protecting a plain hyper server.
//!
//! hyper closes the connection when a service fails, so wrap the layers in a
//! [`RespondLayer`](crate::RespondLayer), which turns rejections into responses:
//!
//! ```
//! use std::convert::Infallible;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use hyper::body::Incoming;
//! use hyper_util::{rt::{TokioExecutor, TokioIo}, server::conn::auto, service::TowerToHyperService};
//! use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
//! use tower_rampart::{
//!     RespondLayer, bulkhead::Bulkhead,
//!     http::{ClientIp, IpKey, PeerAddr, Responses},
//!     rate_limit::{KeyedRateLimiter, Rate},
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let limiter = KeyedRateLimiter::<IpKey>::builder("per-client", Rate::per_minute(2)).build()?;
//! let client = ClientIp::new();
//! let layers = ServiceBuilder::new()
//!     .layer(limiter.layer(move |request: &Request<Incoming>| client.key(request)))
//!     .layer(Bulkhead::new("server", 100)?.layer())
//!     .into_inner();
//! let protect = RespondLayer::new(layers, Responses::plain().respond::<Full<Bytes>>());
//!
//! let hello = |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Full::from("hello"))) };
//! let service = protect.layer(service_fn(hello));
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("http://{}", listener.local_addr()?);
//! tokio::spawn(async move {
//!     while let Ok((stream, peer)) = listener.accept().await {
//!         let service = service.clone();
//!         // Gives the layers the client's address.
//!         let service = service_fn(move |mut request: Request<Incoming>| {
//!             request.extensions_mut().insert(PeerAddr(peer));
//!             service.clone().oneshot(request)
//!         });
//!         tokio::spawn(async move {
//!             let connection = auto::Builder::new(TokioExecutor::new());
//!             connection.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service)).await
//!         });
//!     }
//! });
//!
//! for expected in [200, 200, 429] {
//!     assert_eq!(reqwest::get(&url).await?.status(), expected);
//! }
//! # Ok(()) }
//! ```
//!
//! One client may have a whole IPv6 /48. [Limit its networks
//! too](crate::rate_limit::KeyedRateLimiter#limits-within-limits), as the [guide for
//! axum](super::axum_server) shows.
//!
//! Connection timeouts (for a request's headers, for idle connections) are hyper's own:
//! `http1().header_read_timeout(..)` and `http2().keep_alive_timeout(..)`. The layers here act on
//! requests.
