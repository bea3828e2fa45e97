//! What every layer must get right (the contract's items G), asked of every layer in every readiness mode.
//!
//! The table of `layers!` is the list of layers: a new one is a line. One that is missing, in any of its modes, is noticed
//! by `no_layer_is_missing`. What is particular to a pattern is in the pattern's own tests.

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod complete;
mod observed;
mod plain;
mod saturated;

use std::{sync::Mutex, time::Duration};

use observed::Ear;
use tower::ServiceBuilder;
use tower_rampart::{
    AdaptErrorLayer, BoxError, Error, Rejection, RespondLayer,
    bulkhead::{Bulkhead, BulkheadLayer},
    circuit_breaker::{CircuitBreaker, CircuitBreakerLayer},
    fallback::Fallback,
    per_key::PerKey,
    rate_limit::{KeyedRateLimiter, Rate, RateLimitLayer, RateLimiter},
    retry::{Retry, RetryLayer},
    stack,
    timeout::{Timeout, TimeoutLayer},
};

const SECOND: Duration = Duration::from_secs(1);

fn breaker(ear: Ear) -> CircuitBreaker {
    CircuitBreaker::builder("b").observer(ear).build().unwrap()
}

/// Of one, so that whatever is not given back is missed.
fn bulkhead(ear: Ear) -> Bulkhead {
    Bulkhead::builder("k").max_concurrent(1).max_wait(SECOND).observer(ear).build().unwrap()
}

/// More in a burst than any check has calls.
fn limiter(ear: Ear) -> RateLimiter {
    RateLimiter::builder("l", Rate::per_second(10_000)).max_wait(SECOND).observer(ear).build().unwrap()
}

/// One attempt, so that results pass as they are.
fn retry(ear: Ear) -> Retry {
    Retry::builder("r").max_attempts(1).observer(ear).build().unwrap()
}

fn timeout(ear: Ear) -> Timeout {
    Timeout::builder("t", SECOND).observer(ear).build()
}

fn keyed(ear: Ear) -> KeyedRateLimiter<str> {
    KeyedRateLimiter::builder("u", Rate::per_second(10_000)).observer(ear).build().unwrap()
}

/// A breaker for each key.
fn per_key(ear: Ear) -> PerKey<&'static str, CircuitBreaker> {
    PerKey::builder("p", move |name| CircuitBreaker::builder(name).observer(ear.clone()).build()).build().unwrap()
}

/// Around `adapt`, so that the error is a boxed one again.
fn flat(error: Error<BoxError>) -> BoxError {
    match error {
        Error::Service(error) => error,
        Error::Rejected(rejection) => rejection.into(),
    }
}

fn apology(_: Rejection) -> &'static str {
    "instead"
}

/// For each layer: what its pattern needs (see `plain`), how many layers tell an observer of a call, and how it is made
/// for one.
macro_rules! layers {
    ($($name:ident, $needs:ident, $telling:literal => |$ear:ident| $layer:expr;)+) => {
        $(
            mod $name {
                use super::*;

                fn ear() -> Ear {
                    Ear::default()
                }

                checks::all!({ let $ear = ear(); $layer });
                plain::plainly!($needs, { let $ear = ear(); $layer });
                observed::heard!($telling, |$ear: Ear| $layer);
            }
        )+
    };
}

layers! {
    circuit_breaker, asked, 1 => |ear| CircuitBreakerLayer::new(&breaker(ear));
    circuit_breaker_backpressure, asked, 1 => |ear| CircuitBreakerLayer::new(&breaker(ear)).backpressure();
    retry, repeats, 1 => |ear| RetryLayer::new(&super::retry(ear));
    timeout, asked, 1 => |ear| TimeoutLayer::new(&super::timeout(ear));
    bulkhead, asked, 1 => |ear| BulkheadLayer::new(&super::bulkhead(ear));
    bulkhead_backpressure, asked, 1 => |ear| BulkheadLayer::new(&super::bulkhead(ear)).backpressure();
    bulkhead_wait, cloned, 1 => |ear| BulkheadLayer::new(&super::bulkhead(ear)).wait();
    rate_limit, asked, 1 => |ear| RateLimitLayer::new(&limiter(ear));
    rate_limit_backpressure, asked, 1 => |ear| RateLimitLayer::new(&limiter(ear)).backpressure();
    rate_limit_wait, cloned, 1 => |ear| RateLimitLayer::new(&limiter(ear)).wait();
    keyed_rate_limit, asked, 1 => |ear| super::keyed(ear).layer(|_: &_| Some("somebody"));
    per_key, cloned, 1 => |ear| super::per_key(ear).layer(|_: &_| Some("somewhere"), CircuitBreaker::layer);
    fallback, asked, 1 => |ear| Fallback::value("f", "instead").observer(ear);
    adapt, asked, 0 => |_ear| ServiceBuilder::new().map_err(flat as fn(_) -> _).layer(AdaptErrorLayer::new());
    respond, asked, 1 => |ear| RespondLayer::new(CircuitBreakerLayer::new(&breaker(ear)), apology as fn(_) -> _);
    client_stack, repeats, 6 => |ear| stack::client("c")
        .retry(&super::retry(ear.clone()))
        .rate_limiter(&limiter(ear.clone()))
        .bulkhead(&super::bulkhead(ear.clone()))
        .observer(ear)
        .build()
        .unwrap();
    server_stack, cloned, 4 => |ear| stack::server("s")
        .rate_limiter(&limiter(ear.clone()))
        .circuit_breaker(&breaker(ear.clone()))
        .bulkhead(&super::bulkhead(ear.clone()))
        .observer(ear)
        .build()
        .unwrap();
}

/// Forced open; closed by what relieves it.
fn open() -> (CircuitBreaker, impl AsyncFn()) {
    let breaker = CircuitBreaker::new("b");
    breaker.force_open();
    (breaker.clone(), async move || breaker.close())
}

/// Full; a permit is there after what relieves it.
fn full(max_wait: Duration) -> (Bulkhead, impl AsyncFn()) {
    let bulkhead = Bulkhead::queued("k", 1, max_wait).unwrap();
    let held = Mutex::new(bulkhead.try_acquire_owned().ok());
    (bulkhead, async move || drop(held.lock().unwrap().take()))
}

/// Without tokens; there is one after what relieves it.
fn spent() -> (RateLimiter, impl AsyncFn()) {
    let limiter = RateLimiter::builder("l", Rate::per_second(1)).max_wait(SECOND * 3).build().unwrap();
    limiter.check().unwrap();
    (limiter, a_second)
}

fn spent_by_somebody() -> (KeyedRateLimiter<str>, impl AsyncFn()) {
    let limiter = KeyedRateLimiter::builder("u", Rate::per_second(1)).build().unwrap();
    limiter.check_key("somebody").unwrap();
    (limiter, a_second)
}

fn open_somewhere() -> (PerKey<&'static str, CircuitBreaker>, impl AsyncFn()) {
    let breakers = per_key(Ear::default());
    let breaker = breakers.get_or_create(&"somewhere");
    breaker.force_open();
    (breakers, async move || breaker.close())
}

fn plenty_of_room() -> Bulkhead {
    Bulkhead::new("k", 100).unwrap()
}

async fn a_second() {
    tokio::time::advance(SECOND + Duration::from_millis(1)).await;
}

/// For each layer that can be saturated: what it does then, the handle with what relieves it, a healthy one, and the layer.
macro_rules! saturated_layers {
    ($($name:ident, $does:ident => $handle:expr, $healthy:expr, $layer:expr;)+) => {
        mod when_saturated {
            $(
                mod $name {
                    use super::super::*;

                    saturated::when_saturated!($does, saturated::with_layers($handle, $healthy, $layer));
                }
            )+
        }
    };
}

saturated_layers! {
    circuit_breaker, refuses => open(), CircuitBreaker::new("b"), CircuitBreakerLayer::new;
    circuit_breaker_backpressure, holds_back =>
        open(), CircuitBreaker::new("b"), |breaker| CircuitBreakerLayer::new(breaker).backpressure();
    bulkhead, refuses => full(Duration::ZERO), plenty_of_room(), BulkheadLayer::new;
    bulkhead_backpressure, holds_back => full(SECOND), plenty_of_room(), |bulkhead| BulkheadLayer::new(bulkhead).backpressure();
    bulkhead_wait, waits => full(SECOND), plenty_of_room(), |bulkhead| BulkheadLayer::new(bulkhead).wait();
    rate_limit, refuses => spent(), limiter(Ear::default()), RateLimitLayer::new;
    rate_limit_backpressure, holds_back =>
        spent(), limiter(Ear::default()), |limiter| RateLimitLayer::new(limiter).backpressure();
    rate_limit_wait, waits => spent(), limiter(Ear::default()), |limiter| RateLimitLayer::new(limiter).wait();
    keyed_rate_limit, refuses =>
        spent_by_somebody(), super::super::keyed(Ear::default()), |limiter| limiter.layer(|_: &_| Some("somebody"));
    per_key, refuses => open_somewhere(), super::super::per_key(Ear::default()), |breakers| {
        breakers.layer(|_: &_| Some("somewhere"), CircuitBreaker::layer)
    };
    client_stack, refuses => full(Duration::ZERO), plenty_of_room(), |bulkhead| {
        stack::client("c").bulkhead(bulkhead).build().unwrap()
    };
    server_stack, refuses => full(Duration::ZERO), plenty_of_room(), |bulkhead| {
        stack::server("s").bulkhead(bulkhead).build().unwrap()
    };
}
