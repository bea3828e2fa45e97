//! The generic checks (items G of the contract), run for every layer in every readiness mode.
//!
//! The `layers!` table lists the layers: a new layer is a new row.
//! `every_layer_and_mode_is_in_the_tables` fails when a layer or one of its modes is missing.
//! Pattern-specific behaviour is tested with the pattern.

#[path = "../support/mod.rs"]
mod support;

mod bombs;
mod checks;
mod complete;
mod handles;
mod observed;
mod reentry;
mod requirements;
mod saturated;

use std::{sync::Mutex, time::Duration};

use observed::PanickingRecorder;
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

fn breaker(recorder: PanickingRecorder) -> CircuitBreaker {
    CircuitBreaker::builder("b").observer(recorder).build().unwrap()
}

/// One permit, so that a leaked permit is noticed.
fn bulkhead(recorder: PanickingRecorder) -> Bulkhead {
    Bulkhead::builder("k").max_concurrent(1).max_wait(SECOND).observer(recorder).build().unwrap()
}

/// The burst exceeds the calls of any check.
fn limiter(recorder: PanickingRecorder) -> RateLimiter {
    RateLimiter::builder("l", Rate::per_second(10_000)).max_wait(SECOND).observer(recorder).build().unwrap()
}

/// One attempt, so that results pass unchanged.
fn retry(recorder: PanickingRecorder) -> Retry {
    Retry::builder("r").max_attempts(1).observer(recorder).build().unwrap()
}

fn timeout(recorder: PanickingRecorder) -> Timeout {
    Timeout::builder("t", SECOND).observer(recorder).build()
}

fn keyed(recorder: PanickingRecorder) -> KeyedRateLimiter<str> {
    KeyedRateLimiter::builder("u", Rate::per_second(10_000)).observer(recorder).build().unwrap()
}

/// A breaker for each key.
fn per_key(recorder: PanickingRecorder) -> PerKey<&'static str, CircuitBreaker> {
    PerKey::builder("p", move |name| CircuitBreaker::builder(name).observer(recorder.clone()).build()).build().unwrap()
}

/// Undoes `adapt`, so that the error is boxed again.
fn flat(error: Error<BoxError>) -> BoxError {
    match error {
        Error::Service(error) => error,
        Error::Rejected(rejection) => rejection.into(),
    }
}

fn fallback_response(_: Rejection) -> &'static str {
    "instead"
}

/// For each layer: its requirements (see `requirements`), the number of layers that report events,
/// and its constructor from an observer.
macro_rules! layers {
    ($($name:ident, $requirements:ident, $observed:literal => |$recorder:ident| $layer:expr;)+) => {
        $(
            mod $name {
                use super::*;

                fn recorder() -> PanickingRecorder {
                    PanickingRecorder::default()
                }

                checks::all!({ let $recorder = recorder(); $layer });
                requirements::minimal!($requirements, { let $recorder = recorder(); $layer });
                observed::event_tests!($observed, |$recorder: PanickingRecorder| $layer);
            }
        )+
    };
}

layers! {
    circuit_breaker, any_service, 1 => |recorder| CircuitBreakerLayer::new(&breaker(recorder));
    circuit_breaker_backpressure, any_service, 1 => |recorder| CircuitBreakerLayer::new(&breaker(recorder)).backpressure();
    retry, clone_all, 1 => |recorder| RetryLayer::new(&super::retry(recorder));
    timeout, any_service, 1 => |recorder| TimeoutLayer::new(&super::timeout(recorder));
    bulkhead, any_service, 1 => |recorder| BulkheadLayer::new(&super::bulkhead(recorder));
    bulkhead_backpressure, any_service, 1 => |recorder| BulkheadLayer::new(&super::bulkhead(recorder)).backpressure();
    bulkhead_wait, clone_service, 1 => |recorder| BulkheadLayer::new(&super::bulkhead(recorder)).wait();
    rate_limit, any_service, 1 => |recorder| RateLimitLayer::new(&limiter(recorder));
    rate_limit_backpressure, any_service, 1 => |recorder| RateLimitLayer::new(&limiter(recorder)).backpressure();
    rate_limit_wait, clone_service, 1 => |recorder| RateLimitLayer::new(&limiter(recorder)).wait();
    keyed_rate_limit, any_service, 1 => |recorder| super::keyed(recorder).layer(|_: &_| Some("alice"));
    per_key, clone_service, 1 => |recorder| super::per_key(recorder).layer(|_: &_| Some("host-1"), CircuitBreaker::layer);
    fallback, any_service, 1 => |recorder| Fallback::value("f", "instead").observer(recorder);
    adapt, any_service, 0 => |_recorder| ServiceBuilder::new().map_err(flat as fn(_) -> _).layer(AdaptErrorLayer::new());
    respond, any_service, 1 => |recorder| RespondLayer::new(CircuitBreakerLayer::new(&breaker(recorder)), fallback_response as fn(_) -> _);
    client_stack, clone_all, 6 => |recorder| stack::client("c")
        .retry(&super::retry(recorder.clone()))
        .rate_limiter(&limiter(recorder.clone()))
        .bulkhead(&super::bulkhead(recorder.clone()))
        .observer(recorder)
        .build()
        .unwrap();
    server_stack, clone_service, 4 => |recorder| stack::server("s")
        .rate_limiter(&limiter(recorder.clone()))
        .circuit_breaker(&breaker(recorder.clone()))
        .bulkhead(&super::bulkhead(recorder.clone()))
        .observer(recorder)
        .build()
        .unwrap();
}

/// A breaker that is forced open, and an action that closes it.
fn open_breaker() -> (CircuitBreaker, impl AsyncFn()) {
    let breaker = CircuitBreaker::new("b");
    breaker.force_open();
    (breaker.clone(), async move || breaker.close())
}

/// A breaker that is forced open, and an action that makes it half-open, with one probe slot.
fn breaker_to_be_probed() -> (CircuitBreaker, impl AsyncFn()) {
    let breaker = CircuitBreaker::builder("b").probes(1).build().unwrap();
    breaker.force_open();
    (breaker.clone(), async move || breaker.half_open())
}

/// A full bulkhead, and an action that releases its permit.
fn full_bulkhead(max_wait: Duration) -> (Bulkhead, impl AsyncFn()) {
    let bulkhead = Bulkhead::queued("k", 1, max_wait).unwrap();
    let permit = Mutex::new(bulkhead.try_acquire_owned().ok());
    (bulkhead, async move || drop(permit.lock().unwrap().take()))
}

/// As [`full_bulkhead`], with a long queue.
fn full_bulkhead_of_many() -> (Bulkhead, impl AsyncFn()) {
    let bulkhead = Bulkhead::builder("k").max_concurrent(1).max_wait(SECOND).max_queue(100).build().unwrap();
    let permit = Mutex::new(bulkhead.try_acquire_owned().ok());
    (bulkhead, async move || drop(permit.lock().unwrap().take()))
}

/// A limiter without tokens, and an action that lets one token refill.
fn exhausted_limiter() -> (RateLimiter, impl AsyncFn()) {
    let limiter = RateLimiter::builder("l", Rate::per_second(1)).max_wait(SECOND * 3).build().unwrap();
    limiter.check().unwrap();
    (limiter, advance_one_second)
}

/// A keyed limiter whose only key has no tokens, and an action that lets one refill.
fn exhausted_key() -> (KeyedRateLimiter<str>, impl AsyncFn()) {
    let limiter = KeyedRateLimiter::builder("u", Rate::per_second(1)).build().unwrap();
    limiter.check_key("alice").unwrap();
    (limiter, advance_one_second)
}

/// A circuit breaker per key, open for the only key, and an action that closes it.
fn open_key() -> (PerKey<&'static str, CircuitBreaker>, impl AsyncFn()) {
    let breakers = per_key(PanickingRecorder::default());
    let breaker = breakers.get_or_create(&"host-1");
    breaker.force_open();
    (breakers, async move || breaker.close())
}

fn spare_bulkhead() -> Bulkhead {
    Bulkhead::new("k", 100).unwrap()
}

async fn advance_one_second() {
    tokio::time::advance(SECOND + Duration::from_millis(1)).await;
}

/// For each layer that can be saturated: its behaviour when saturated, a saturated handle with the
/// action that relieves it, a healthy handle, and the layer's constructor.
macro_rules! saturated_layers {
    ($($name:ident, $behaviour:ident => $handle:expr, $healthy:expr, $layer:expr;)+) => {
        mod when_saturated {
            $(
                mod $name {
                    use super::super::*;

                    saturated::when_saturated!($behaviour, saturated::with_layers($handle, $healthy, $layer));
                }
            )+
        }
    };
}

saturated_layers! {
    circuit_breaker, rejects => open_breaker(), CircuitBreaker::new("b"), CircuitBreakerLayer::new;
    circuit_breaker_backpressure, is_pending =>
        open_breaker(), CircuitBreaker::new("b"), |breaker| CircuitBreakerLayer::new(breaker).backpressure();
    idle_circuit_breaker_backpressure, idle_services_delay_others_little =>
        breaker_to_be_probed(), CircuitBreaker::new("b"), |breaker| CircuitBreakerLayer::new(breaker).backpressure();
    bulkhead, rejects => full_bulkhead(Duration::ZERO), spare_bulkhead(), BulkheadLayer::new;
    bulkhead_backpressure, is_pending => full_bulkhead(SECOND), spare_bulkhead(), |bulkhead| BulkheadLayer::new(bulkhead).backpressure();
    idle_bulkhead_backpressure, idle_services_delay_others_little =>
        full_bulkhead(SECOND), spare_bulkhead(), |bulkhead| BulkheadLayer::new(bulkhead).backpressure();
    idle_bulkhead_wait, idle_calls_delay_others_little =>
        full_bulkhead_of_many(), spare_bulkhead(), |bulkhead| BulkheadLayer::new(bulkhead).wait();
    bulkhead_wait, queues => full_bulkhead(SECOND), spare_bulkhead(), |bulkhead| BulkheadLayer::new(bulkhead).wait();
    rate_limit, rejects => exhausted_limiter(), limiter(PanickingRecorder::default()), RateLimitLayer::new;
    rate_limit_backpressure, is_pending =>
        exhausted_limiter(), limiter(PanickingRecorder::default()), |limiter| RateLimitLayer::new(limiter).backpressure();
    rate_limit_wait, queues => exhausted_limiter(), limiter(PanickingRecorder::default()), |limiter| RateLimitLayer::new(limiter).wait();
    keyed_rate_limit, rejects =>
        exhausted_key(), super::super::keyed(PanickingRecorder::default()), |limiter| limiter.layer(|_: &_| Some("alice"));
    per_key, rejects => open_key(), super::super::per_key(PanickingRecorder::default()), |breakers| {
        breakers.layer(|_: &_| Some("host-1"), CircuitBreaker::layer)
    };
    client_stack, rejects => full_bulkhead(Duration::ZERO), spare_bulkhead(), |bulkhead| {
        stack::client("c").bulkhead(bulkhead).build().unwrap()
    };
    server_stack, rejects => full_bulkhead(Duration::ZERO), spare_bulkhead(), |bulkhead| {
        stack::server("s").bulkhead(bulkhead).build().unwrap()
    };
}
