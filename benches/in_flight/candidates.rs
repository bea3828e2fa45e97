//! The layers and stacks that are measured.

use std::{
    future::{Ready, ready},
    sync::Arc,
    time::Duration,
};

use tower::{
    Layer, Service, ServiceBuilder,
    retry::{
        Policy,
        budget::{Budget, TpsBudget},
    },
};
use tower_rampart::{
    BoxError,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    fallback::Fallback,
    rate_limit::{Rate, RateLimiter},
    retry::Retry,
    stack,
    timeout::Timeout,
};

use crate::{footprint::Footprint, held::Held, sustained::Sustained};

/// Longer than any measurement: no call times out.
const LIMIT: Duration = Duration::from_secs(10);
/// More than the calls that any measurement has in flight.
const PERMITS: u32 = 1_000_000;

pub(crate) const BARE: &str = "bare service";

pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) footprint: Box<dyn Fn() -> Footprint>,
    /// Keeps this many calls in flight for this time.
    pub(crate) sustain: Box<dyn Fn(usize, Duration) -> Sustained>,
}

impl Candidate {
    fn new<S>(name: &'static str, make: impl Fn(Held) -> S + Clone + 'static) -> Self
    where
        S: Service<u64, Error = BoxError, Future: Send> + Send + 'static,
    {
        let footprint = make.clone();
        Self {
            name,
            footprint: Box::new(move || Footprint::of(&footprint)),
            sustain: Box::new(move |in_flight, time| Sustained::of(&make, in_flight, time)),
        }
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.name != BARE && !self.name.starts_with("tower")
    }
}

pub(crate) fn all() -> Vec<Candidate> {
    vec![
        Candidate::new(BARE, |inner| inner),
        Candidate::new("timeout", |inner| timeout().layer().layer(inner)),
        Candidate::new("retry", |inner| retry().layer().layer(inner)),
        Candidate::new("circuit breaker", |inner| CircuitBreaker::new("b").layer().layer(inner)),
        Candidate::new("bulkhead", |inner| bulkhead().layer().layer(inner)),
        Candidate::new("rate limiter", |inner| limiter().layer().layer(inner)),
        Candidate::new("fallback", |inner| Fallback::value("f", 1_u64).layer(inner)),
        Candidate::new("five layers", |inner| {
            ServiceBuilder::new()
                .layer(retry().layer())
                .layer(limiter().layer())
                .layer(CircuitBreaker::new("b").layer())
                .layer(bulkhead().layer())
                .layer(timeout().layer())
                .service(inner)
        }),
        Candidate::new("client stack", |inner| {
            let stack = stack::client("c").total_timeout(2 * LIMIT).attempt_timeout(LIMIT).bulkhead(&bulkhead());
            stack.build().unwrap().layer(inner)
        }),
        Candidate::new("server stack", |inner| {
            stack::server("s").total_timeout(LIMIT).bulkhead(&bulkhead()).build().unwrap().layer(inner)
        }),
        Candidate::new("tower's timeout", |inner| tower::timeout::TimeoutLayer::new(LIMIT).layer(inner)),
        Candidate::new("tower's nearest stack (no breaker)", |inner| {
            ServiceBuilder::new()
                .rate_limit(u64::MAX, Duration::from_secs(1))
                .layer(tower::retry::RetryLayer::new(RetryErrors(Arc::new(TpsBudget::default()))))
                .layer(tower::limit::GlobalConcurrencyLimitLayer::new(PERMITS as usize))
                .layer(tower::timeout::TimeoutLayer::new(LIMIT))
                .service(inner)
        }),
    ]
}

fn timeout() -> Timeout {
    Timeout::new("t", LIMIT)
}

fn retry() -> Retry {
    Retry::attempts("r", 3).unwrap()
}

fn bulkhead() -> Bulkhead {
    Bulkhead::new("k", PERMITS).unwrap()
}

fn limiter() -> RateLimiter {
    RateLimiter::new("l", Rate::per_second(60_000_000)).unwrap()
}

/// A policy for tower's retry, which tower leaves to the user: retries errors within a budget.
#[derive(Clone)]
struct RetryErrors(Arc<TpsBudget>);

impl Policy<u64, u64, BoxError> for RetryErrors {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, BoxError>) -> Option<Self::Future> {
        match result {
            Ok(_) => {
                self.0.deposit();
                None
            }
            Err(_) => self.0.withdraw().then(|| ready(())),
        }
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}
