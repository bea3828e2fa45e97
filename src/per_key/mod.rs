//! A circuit breaker, bulkhead or rate limiter per destination.
//!
//! # The problem
//!
//! A client that calls many hosts through one circuit breaker loses all of them when one host
//! fails. With one bulkhead, a slow host takes every permit. Each destination needs a handle of its
//! own, and destinations come and go.
//!
//! [`PerKey`] keeps one handle per key. The key is any function of the request: a host, a route, a
//! tenant. A handle is created when its key first appears. The number of handles is bounded, and
//! idle handles are evicted.
//!
//! # Example
//!
//! ```
//! use http::{Request, uri::Authority};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_rampart::{AsRejection, BoxError, circuit_breaker::CircuitBreaker, per_key::PerKey};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), BoxError> {
//! let breakers = PerKey::<Authority, _>::builder("upstream", |name| CircuitBreaker::builder(name).min_calls(10).build())
//!     .max_keys(500)
//!     .build()?;
//! let by_host = breakers.layer(|request: &Request<()>| request.uri().authority().cloned(), CircuitBreaker::layer);
//! let client = ServiceBuilder::new().layer(by_host).service_fn(|_: Request<()>| async { Ok::<_, BoxError>("hello") });
//!
//! let request = |host: &str| Request::get(format!("http://{host}/")).body(()).unwrap();
//! assert!(client.clone().oneshot(request("a.example")).await.is_ok());
//! breakers.get_or_create(&"b.example".parse()?).force_open();
//! let rejected = client.clone().oneshot(request("b.example")).await.unwrap_err();
//! assert_eq!(rejected.as_rejection().unwrap().name(), "upstream.b.example"); // also its name in events
//! assert!(client.oneshot(request("a.example")).await.is_ok());
//! # Ok(()) }
//! ```
//!
//! For several patterns per key, use a tuple of handles: `.layer(key, |(breaker, bulkhead):
//! &(CircuitBreaker, Bulkhead)| ..)`.
//!
//! # Eviction
//!
//! A handle is evicted when no request has asked for it for
//! [`idle_after`](PerKeyBuilder::idle_after), provided that no state is lost ([`Evict`]). These
//! handles stay: a bulkhead with calls in flight or waiting, a rate limiter that has not fully
//! refilled, and a circuit that is open or was set manually. A flood of keys therefore cannot reset
//! a circuit.
//!
//! When the map is full, new keys share one additional handle, `<name>.overflow`, until there is
//! room. Requests without a key use it too. Sharing makes the limits stricter, never looser. The
//! map is swept for idle handles when a new key arrives, at most four times per `idle_after`.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. The handle is known only with the request, so the response
//! future waits until the handle's layer is ready and then calls through it. With a handle in
//! backpressure mode, the wait happens in the future.
//!
//! # Cost
//!
//! A call hashes its key, takes the shared lock of one of 16 shards (2 read-modify-writes), reads
//! the clock, clones the handle and the service, and makes the layer. A layer that is expensive to
//! make, such as a whole [`stack`](crate::stack), costs that much on every call.

mod builder;
mod evict;
mod future;
mod handle;
mod inner;
mod layer;
mod service;

pub use builder::PerKeyBuilder;
pub use evict::Evict;
pub use future::PerKeyFuture;
pub use handle::PerKey;
pub use layer::PerKeyLayer;
pub use service::PerKeyService;
