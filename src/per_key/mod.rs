//! A breaker, a bulkhead or a limiter for each destination.
//!
//! # The problem
//!
//! A client of many hosts has one circuit breaker: one sick host opens it for all of them. One bulkhead: the slow host
//! takes all the permits. Each destination needs its own, and destinations come and go.
//!
//! [`PerKey`] keeps a handle per key, which is any function of the request: a host, a route, a tenant. Handles are made
//! when a key first comes, bounded in number, and forgotten when they have been idle.
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
//! let refused = client.clone().oneshot(request("b.example")).await.unwrap_err();
//! assert_eq!(refused.as_rejection().unwrap().name(), "upstream.b.example"); // its name, in events too
//! assert!(client.oneshot(request("a.example")).await.is_ok());
//! # Ok(()) }
//! ```
//!
//! Several at once are a tuple of handles: `.layer(key, |(breaker, bulkhead): &(CircuitBreaker, Bulkhead)| ..)`.
//!
//! # What is forgotten
//!
//! A handle that no request asked for in the time of [`idle_after`](PerKeyBuilder::idle_after), if nothing is lost with it
//! ([`Evict`]): a bulkhead with calls in flight stays, and so do a limiter whose tokens are not all back and a circuit
//! that is open, or was set by hand. So nobody resets a circuit by a flood of keys. When all places are taken by such, new
//! keys share one handle more, `<name>.overflow`, until there is a place; so do requests without a key. That is stricter,
//! never looser. Idle handles are looked for when a new key comes, at most four times in the time they may be idle.
//!
//! # Readiness
//!
//! `poll_ready` is the service's own. Which handle a call meets is known with its request, so the future waits until that
//! handle's layer is ready, and calls through it when it is polled: a handle in backpressure mode has the call wait.
//!
//! # Cost
//!
//! A call hashes its key, takes a shared lock of a sixteenth of the map (2 read-modify-writes), reads the clock, clones
//! the handle and the service, and makes the layer. Layers that are expensive to make, such as a whole
//! [`stack`](crate::stack), are so for each call.

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
