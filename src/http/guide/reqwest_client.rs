//! Wrapping reqwest: `reqwest::Client` (feature `reqwest`).
//!
//! ```
//! use reqwest::{Method, Request};
//! use tower::{Layer, ServiceExt};
//! use tower_rampart::{AdaptErrorLayer, Error, http::{HttpClassifier, HttpRepeat}, stack};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let stack = stack::client("inventory").classify(HttpClassifier::new()).repeat(HttpRepeat::new()).build()?;
//! let service = stack.layer(AdaptErrorLayer::new().layer(reqwest::Client::new()));
//!
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # tokio::spawn(async move {
//! #     axum::serve(listener, axum::Router::new().route("/items", axum::routing::get(|| async { "apples" }))).await
//! # });
//! let request = Request::new(Method::GET, format!("http://{address}/items").parse()?);
//! match service.oneshot(request).await {
//!     Ok(response) => assert_eq!(response.text().await?, "apples"),
//!     Err(Error::Rejected(rejection)) => println!("not now: {rejection}"),
//!     Err(Error::Service(error)) => println!("{error}"), // reqwest's own: `is_connect()`, `is_timeout()`, `url()`
//! }
//! # Ok(()) }
//! ```
//!
//! - **Requests** are repeated by `try_clone`: those with a body in memory are, and one that streams is sent once. Build
//!   them with `client.post(url).json(&item).build()?`.
//! - **reqwest's own retries and timeouts.** reqwest repeats by itself what an HTTP/2 server refused or had no time to
//!   begin. Its `timeout` covers the body too, and its errors are failures like others; `read_timeout` is a good limit
//!   between two pieces of a body, and `connect_timeout` one that proves that nothing was sent.
//! - **Status codes.** `error_for_status` belongs outside of the stack: inside, responses are judged as they are.
//! - **Response bodies.** [`full_response`](crate::http::full_response) takes `http::Response`s: map reqwest's with
//!   `.map_response(http::Response::from)` inside of it, and back outside with `.map_response(|response|
//!   reqwest::Response::from(response.map(reqwest::Body::wrap)))`.
