//! All layers around one service: as separate layers, and as the ready-made stack.

use std::{sync::Arc, time::Duration};

use tower::{Layer, Service, ServiceBuilder, retry::budget::TpsBudget};
use tower_rampart::{
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    rate_limit::{Rate, RateLimiter},
    retry::Retry,
    stack,
    timeout::Timeout,
};
use tower_resilience::{
    bulkhead::BulkheadLayer, circuitbreaker::CircuitBreakerLayer, ratelimiter::RateLimiterLayer,
    timelimiter::TimeLimiterLayer,
};

use super::{Claim, Row, layers, one_and_two};
use crate::{
    harness::Candidate,
    inner::{Fault, Immediate, PendingOnce, calls},
};

const SECOND: Duration = Duration::from_secs(1);

/// The default window of tower-resilience's breaker. The ready-made stack's default is a time
/// window.
fn count_window(name: &'static str) -> CircuitBreaker {
    CircuitBreaker::builder(name).no_time_window().count_window(100).build().expect("the settings are valid")
}

fn candidates<S>(inner: S) -> Vec<Candidate>
where
    S: Service<u64, Response = u64, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    let [bare, separate, stacked, counted, towers, theirs] = std::array::from_fn(|_| inner.clone());
    vec![
        Candidate::new("bare service", move || {
            let service = bare.clone();
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new("rampart, five layers", move || {
            let rate = RateLimiter::new("l", Rate::per_second(60_000_000)).expect("the settings are valid");
            let service = ServiceBuilder::new()
                .layer(Retry::attempts("r", 3).expect("the settings are valid").layer())
                .layer(rate.layer())
                .layer(count_window("b").layer())
                .layer(Bulkhead::new("k", 64).expect("the settings are valid").layer())
                .layer(Timeout::new("t", SECOND).layer())
                .service(separate.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new("rampart, client stack", move || {
            let service = stack::client("c").build().expect("the settings are valid").layer(stacked.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new("rampart, client stack, count window", move || {
            let stack = stack::client("c").circuit_breaker(&count_window("c")).build();
            let service = stack.expect("the settings are valid").layer(counted.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::single("nearest tower stack (no breaker)", move || {
            let inner = towers.clone();
            move || {
                let timed = tower::timeout::TimeoutLayer::new(SECOND).layer(inner.clone());
                let boxed = ServiceBuilder::new().map_err(|_| Fault::Failed).service(timed);
                let service = ServiceBuilder::new()
                    .rate_limit(u64::MAX, SECOND)
                    .layer(tower::retry::RetryLayer::new(layers::RetryErrors(Arc::new(TpsBudget::default()))))
                    .layer(tower::limit::GlobalConcurrencyLimitLayer::new(64))
                    .service(boxed);
                calls(service, Some(true))
            }
        }),
        Candidate::new("tower-resilience, five layers", move || {
            let inner = theirs.clone();
            let timed = TimeLimiterLayer::builder().timeout_duration(SECOND).build().layer(inner);
            let bulkhead = BulkheadLayer::builder().max_concurrent_calls(64).build().expect("the settings are valid");
            let breaker = CircuitBreakerLayer::builder().sliding_window_size(100).minimum_number_of_calls(20).build();
            let limiter = RateLimiterLayer::builder().limit_for_period(1 << 40).refresh_period(SECOND).build();
            let flat = |service| ServiceBuilder::new().map_err(|_| Fault::Failed).service(service);
            let service = ServiceBuilder::new().map_err(|_| Fault::Failed).service(bulkhead.layer(flat(timed)));
            let service = ServiceBuilder::new()
                .map_err(|_| Fault::Failed)
                .service(breaker.expect("the settings are valid").layer(service));
            let service = ServiceBuilder::new()
                .map_err(|_| Fault::Failed)
                .service(limiter.expect("the settings are valid").layer(service));
            let service = layers::retries().layer(service);
            move || calls(service.clone(), Some(true))
        }),
    ]
}

pub fn ready() -> Row {
    Row {
        name: "five layers, immediate response",
        candidates: candidates(Immediate),
        settings: one_and_two(),
        claims: claims(65.0 / 138.0),
    }
}

pub fn pending() -> Row {
    Row {
        name: "five layers, response pending once",
        candidates: candidates(PendingOnce),
        settings: one_and_two(),
        claims: claims(65.0 / 138.0),
    }
}

fn claims(stack_share: f64) -> Vec<Claim> {
    const TOWER: &str = "nearest tower stack (no breaker)";
    vec![
        Claim::new("layers: 10 times faster than tower-resilience's", 10.0, |row| {
            row.faster_above("bare service", "rampart, five layers", "tower-resilience, five layers")
        }),
        Claim::new("layers: faster than the nearest tower stack", 1.0, |row| {
            row.faster_above("bare service", "rampart, five layers", TOWER)
        }),
        Claim::new("stack: 138/65 times faster than the nearest tower stack", 1.0 / stack_share, |row| {
            row.faster_above("bare service", "rampart, client stack", TOWER)
        }),
        Claim::new("stack with a count window, which reads no clock: the same", 1.0 / stack_share, |row| {
            row.faster_above("bare service", "rampart, client stack, count window", TOWER)
        }),
    ]
}
