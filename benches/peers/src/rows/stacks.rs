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

use super::{BARE, Claim, Comparison, Row, layers, one_and_two};
use crate::{
    harness::Candidate,
    inner::{Fault, Immediate, PendingOnce, calls},
};

const FIVE: &str = "rampart, five layers";
const CLIENT: &str = "rampart, client stack";
const COUNTED: &str = "rampart, client stack, count window";
const CLIENT_LAYERS: &str = "rampart, the client stack's layers";
const SERVER: &str = "rampart, server stack";
const SERVER_LAYERS: &str = "rampart, the server stack's layers";
const TOWER: &str = "nearest tower stack (no breaker)";
const THEIRS: &str = "tower-resilience, five layers";

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
    let [bare, five, stacked, counted, separate, towers, theirs] = std::array::from_fn(|_| inner.clone());
    vec![
        Candidate::new(BARE, move || {
            let service = bare.clone();
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new(FIVE, move || {
            let rate = RateLimiter::new("l", Rate::per_second(60_000_000)).expect("the settings are valid");
            let service = ServiceBuilder::new()
                .layer(Retry::attempts("r", 3).expect("the settings are valid").layer())
                .layer(rate.layer())
                .layer(count_window("b").layer())
                .layer(Bulkhead::new("k", 64).expect("the settings are valid").layer())
                .layer(Timeout::new("t", SECOND).layer())
                .service(five.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new(CLIENT, move || {
            let service = stack::client("c").build().expect("the settings are valid").layer(stacked.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new(COUNTED, move || {
            let stack = stack::client("c").circuit_breaker(&count_window("c")).build();
            let service = stack.expect("the settings are valid").layer(counted.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new(CLIENT_LAYERS, move || {
            let service = ServiceBuilder::new()
                .layer(Timeout::new("c", 5 * SECOND).layer())
                .layer(Retry::attempts("c", 3).expect("the settings are valid").layer())
                .layer(CircuitBreaker::new("c").layer())
                .layer(Bulkhead::new("c", 64).expect("the settings are valid").layer())
                .layer(Timeout::new("c.attempt", 2 * SECOND).layer())
                .service(separate.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::single(TOWER, move || {
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
        Candidate::new(THEIRS, move || {
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
    let mut claims = vec![
        Claim::headline("layers: faster than the nearest tower stack", 1.0, Comparison::above_bare(FIVE, TOWER)),
        Claim::headline(
            "stack: 0.6 of the nearest tower stack's time",
            1.0 / 0.6,
            Comparison::above_bare(CLIENT, TOWER),
        ),
        Claim::new("stack with a count window, which reads no clock: the same", 1.0 / 0.6, |row| {
            row.faster_above(BARE, COUNTED, TOWER)
        }),
    ];
    claims.extend(client_claims());
    Row { name: "five layers, immediate response", candidates: candidates(Immediate), settings: one_and_two(), claims }
}

pub fn pending() -> Row {
    let than_tower = |text, ours| Claim::headline(text, 1.2, Comparison::above_bare(ours, TOWER));
    let mut claims = vec![
        than_tower("layers: 1.2 times faster than the nearest tower stack", FIVE),
        than_tower("stack: 1.2 times faster than the nearest tower stack", CLIENT),
    ];
    claims.extend(client_claims());
    Row {
        name: "five layers, response pending once",
        candidates: candidates(PendingOnce),
        settings: one_and_two(),
        claims,
    }
}

fn client_claims() -> [Claim; 2] {
    [
        Claim::new("layers: 10 times faster than tower-resilience's", 10.0, |row| row.faster_above(BARE, FIVE, THEIRS)),
        Claim::headline("stack: no slower than its own layers", 1.0, Comparison::above_bare(CLIENT, CLIENT_LAYERS)),
    ]
}

/// A server stack, and its layers: a total timeout, and a bulkhead with a queue.
fn server_candidates<S>(inner: S) -> Vec<Candidate>
where
    S: Service<u64, Response = u64, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    let [bare, stacked, separate, towers] = std::array::from_fn(|_| inner.clone());
    vec![
        Candidate::new(BARE, move || {
            let service = bare.clone();
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new(SERVER, move || {
            let service = stack::server("s").build().expect("the settings are valid").layer(stacked.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new(SERVER_LAYERS, move || {
            let bulkhead = Bulkhead::builder("s").max_concurrent(256).max_wait(SECOND / 10).build();
            let service = ServiceBuilder::new()
                .layer(Timeout::new("s", 10 * SECOND).layer())
                .layer(bulkhead.expect("the settings are valid").layer().wait())
                .service(separate.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new("tower's timeout and concurrency limit", move || {
            let service = ServiceBuilder::new()
                .map_err(|_| Fault::Failed)
                .layer(tower::timeout::TimeoutLayer::new(10 * SECOND))
                .layer(tower::limit::GlobalConcurrencyLimitLayer::new(256))
                .service(towers.clone());
            move || calls(service.clone(), Some(true))
        }),
    ]
}

fn server(name: &'static str, candidates: Vec<Candidate>) -> Row {
    let than_its_layers = Comparison::above_bare(SERVER, SERVER_LAYERS);
    let claims = vec![Claim::headline("no slower than its own layers", 1.0, than_its_layers)];
    Row { name, candidates, settings: one_and_two(), claims }
}

pub fn server_ready() -> Row {
    server("server stack, immediate response", server_candidates(Immediate))
}

pub fn server_pending() -> Row {
    server("server stack, response pending once", server_candidates(PendingOnce))
}
