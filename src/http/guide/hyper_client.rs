//! Wrapping a hyper client: `hyper_util::client::legacy::Client` (feature `hyper-util`).
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Full};
//! use hyper_util::{client::legacy::Client, rt::TokioExecutor};
//! use tower::{Layer, ServiceExt};
//! use tower_rampart::{Error, http::{AdaptClientErrorLayer, HttpClassifier, HttpRepeat, TransportError}, stack};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
//! let stack = stack::client("inventory")
//!     .classify(HttpClassifier::new()) // statuses, Retry-After
//!     .repeat(HttpRepeat::new()) // methods, Idempotency-Key
//!     .build()?;
//! let service = stack.layer(AdaptClientErrorLayer::new().layer(client));
//! # let breaker = stack.circuit_breaker().unwrap().clone();
//!
//! # let failing = axum::Router::new().route("/fails", axum::routing::any(|| async { http::StatusCode::INTERNAL_SERVER_ERROR }));
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # tokio::spawn(async move {
//! #     axum::serve(listener, failing.route("/items", axum::routing::get(|| async { "apples" }))).await
//! # });
//! let request = http::Request::get(format!("http://{address}/items")).body(Full::default())?;
//! # let post = http::Request::post(format!("http://{address}/fails")).body(Full::default())?;
//! # assert_eq!(service.clone().oneshot(post).await?.status(), 500);
//! # assert_eq!(breaker.snapshot().time_window.unwrap().failed, 1, "a POST is sent once, and a 500 is a failure");
//! match service.oneshot(request).await {
//!     Ok(response) => assert_eq!(response.into_body().collect().await?.to_bytes(), "apples"),
//!     Err(Error::Rejected(rejection)) => println!("rejected: {rejection}"),
//!     Err(Error::Service(error)) if !error.was_attempted() => println!("not sent: {error}"),
//!     Err(Error::Service(error)) => println!("{error}"),
//! }
//! # Ok(()) }
//! ```
//!
//! - **Request bodies.** `Full` and `Empty` are cloned for the retry. For a streaming body, build
//!   the client for [`ReplayBody`](crate::http::ReplayBody) and put a
//!   [`ReplayLayer`](crate::http::ReplayLayer) outermost.
//! - **Connections.** If the server closed an idle connection, the client itself sends the request
//!   on another one. The response of a failed attempt is dropped before the backoff; see
//!   [`DrainLayer`](crate::http::DrainLayer).
//! - **Readiness.** The client is always ready and opens as many connections as there are requests.
//!   The bulkhead bounds them.
//! - **Response bodies.** The layers' limits end with the headers. To cover the body, see
//!   [`full_response`](crate::http::full_response).
//! - **Slow uploads.** A caller that sends its request slowly counts as a slow attempt, unless an
//!   [`UploadTimeoutLayer`](crate::http::UploadTimeoutLayer) takes the place of the attempt
//!   timeout.
//! - **Many hosts.** For one breaker per host, see [`per_key`](crate::per_key) and
//!   [`Destination`](crate::http::Destination).
