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
//! The map evicts what it can build again. A handle that no request has asked for during
//! [`idle_after`](PerKeyBuilder::idle_after) is evicted if a handle built for its key later would
//! behave the same: it is in the state in which it was built, and nothing but the map refers to it.
//! All other handles stay ([`EvictionLoss`]):
//!
//! | handle | state that keeps it |
//! |---|---|
//! | any | a call in flight, a clone, a layer or a service made from it |
//! | circuit breaker | open, half-open, recovering or set manually; consecutive failures; failed or slow calls in a window |
//! | bulkhead | permits or waiters; a changed limit |
//! | rate limiter | tokens that have not refilled; a changed rate or burst |
//! | timeout | a changed limit |
//! | retry | a budget that is not full and not shared with the overflow handle; a changed number of attempts |
//!
//! Successes alone do not keep a breaker. A key that returns starts with an empty window, which
//! needs `min_calls` again.
//!
//! When the map is full, new keys share one additional handle, `<name>.overflow`, until there is
//! room. Requests without a key use it too. Sharing makes the limits stricter, never looser, and a
//! flood of keys cannot reset a limit or a circuit. [`PerKeySnapshot::overflowed`] counts the
//! requests. So that keys which failed once and never return do not fill the map forever, a full
//! map evicts a handle whose only state is the history of its calls, once it has gone unused for
//! [`forget_after`](PerKeyBuilder::forget_after). Its observer receives
//! [`Evicted`](crate::event::EventKind::Evicted), after a
//! [`StateChanged`](crate::event::EventKind::StateChanged) to closed if the circuit was not. A
//! setting that was changed at run time, an open time and a debt of tokens are never evicted.
//!
//! The map is swept for idle handles when a new key arrives, at most four times per `idle_after`.
//!
//! # Readiness
//!
//! `poll_ready` is the inner service's. The handle is known only with the request, so the response
//! future waits until the handle's layer is ready and then calls through it. With a handle in
//! backpressure mode, the wait happens in the future.
//!
//! # Cost
//!
//! A call hashes its key, takes the shared lock of one of 16 shards (2 read-modify-writes), counts
//! a reference to the entry (2 more, so that keys and handles are not used under the lock), reads
//! the clock, clones the handle and the service, and makes the layer. A layer that is expensive to
//! make, such as a whole [`stack`](crate::stack), costs that much on every call.

mod builder;
mod entry;
mod evict;
mod future;
mod handle;
mod inner;
mod layer;
mod service;
mod sweep;

pub use builder::PerKeyBuilder;
pub use evict::{Evict, EvictionLoss};
pub use future::PerKeyFuture;
pub use handle::{PerKey, PerKeySnapshot};
pub use layer::PerKeyLayer;
pub use service::PerKeyService;
