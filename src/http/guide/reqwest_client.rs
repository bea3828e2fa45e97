//! Wrapping reqwest: `reqwest::Client` (feature `reqwest`).
//!
//! ```
//! use reqwest::{Method, Request};
//! use tower::{Layer, ServiceExt};
//! use tower_rampart::{Error, http::{AdaptClientErrorLayer, HttpClassifier, HttpRepeat}, stack};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
//! let stack = stack::client("inventory").classify(HttpClassifier::new()).repeat(HttpRepeat::new()).build()?;
//! let service = stack.layer(AdaptClientErrorLayer::new().layer(reqwest::Client::new()));
//! # let breaker = stack.circuit_breaker().unwrap().clone();
//!
//! # let failing = axum::Router::new().route("/fails", axum::routing::any(|| async { http::StatusCode::INTERNAL_SERVER_ERROR }));
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # tokio::spawn(async move {
//! #     axum::serve(listener, failing.route("/items", axum::routing::get(|| async { "apples" }))).await
//! # });
//! let request = Request::new(Method::GET, format!("http://{address}/items").parse()?);
//! # let post = Request::new(Method::POST, format!("http://{address}/fails").parse()?);
//! # assert_eq!(service.clone().oneshot(post).await?.status(), 500);
//! # assert_eq!(breaker.snapshot().time_window.unwrap().failed, 1, "a POST is sent once, and a 500 is a failure");
//! match service.oneshot(request).await {
//!     Ok(response) => assert_eq!(response.text().await?, "apples"),
//!     Err(Error::Rejected(rejection)) => println!("rejected: {rejection}"),
//!     Err(Error::Service(error)) => println!("{error}"), // reqwest's own: `is_connect()`, `is_timeout()`, `url()`
//! }
//! # Ok(()) }
//! ```
//!
//! - **Requests.** A retry copies a request by `try_clone`: a request with a body in memory is
//!   retried, one with a streaming body is sent once. Build requests with
//!   `client.post(url).json(&item).build()?`.
//! - **Redirects.** reqwest follows redirects, and its results describe the last exchange only. A
//!   POST may have been processed although a connection was refused or the status is 429, so it is
//!   not retried. For a client with `redirect::Policy::none()`, declare
//!   [`HttpClassifier::single_exchange`](crate::http::HttpClassifier::single_exchange).
//! - **reqwest's own retries and timeouts.** reqwest itself retries requests that an HTTP/2 server
//!   refused or had not begun. Its `timeout` also covers the body. A call that it or `read_timeout`
//!   ends is a failure and a [`TimedOut`](crate::Rejection::TimedOut), by
//!   [`AdaptClientErrorLayer`](crate::http::AdaptClientErrorLayer). Use `read_timeout` to limit the
//!   wait between two pieces of a body, and `connect_timeout` for a timeout that proves that
//!   nothing was sent.
//! - **Status codes.** Call `error_for_status` outside the stack: inside, the classifier needs the
//!   response itself.
//! - **Response bodies.** [`full_response`](crate::http::full_response) takes `http::Response`s.
//!   Convert reqwest's inside it with `.map_response(http::Response::from)`, and back outside it
//!   with `.map_response(|response| reqwest::Response::from(response.map(reqwest::Body::wrap)))`.
