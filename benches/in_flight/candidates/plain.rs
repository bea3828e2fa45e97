//! Calls with a number as their request and response.

use std::{
    fmt::Debug,
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
use tower_rampart::{BoxError, circuit_breaker::CircuitBreaker, fallback::Fallback, stack};

use super::{Candidate, LIMIT, PERMITS, bulkhead, limiter, retry, timeout};
use crate::held::Held;

pub(super) fn all() -> Vec<Candidate> {
    vec![
        plain("bare service", |inner| inner),
        plain("timeout", |inner| timeout().layer().layer(inner)),
        plain("retry", |inner| retry().layer().layer(inner)),
        plain("circuit breaker", |inner| CircuitBreaker::new("b").layer().layer(inner)),
        plain("bulkhead", |inner| bulkhead().layer().layer(inner)),
        plain("rate limiter", |inner| limiter().layer().layer(inner)),
        plain("fallback", |inner| Fallback::value("f", 1_u64).layer(inner)),
        plain("five layers", |inner| {
            ServiceBuilder::new()
                .layer(retry().layer())
                .layer(limiter().layer())
                .layer(CircuitBreaker::new("b").layer())
                .layer(bulkhead().layer())
                .layer(timeout().layer())
                .service(inner)
        }),
        plain("client stack", |inner| {
            let stack = stack::client("c").total_timeout(2 * LIMIT).attempt_timeout(LIMIT).bulkhead(&bulkhead());
            stack.build().unwrap().layer(inner)
        }),
        plain("server stack", |inner| {
            stack::server("s").total_timeout(LIMIT).bulkhead(&bulkhead()).build().unwrap().layer(inner)
        }),
        plain("tower's timeout", |inner| tower::timeout::TimeoutLayer::new(LIMIT).layer(inner)),
        plain("tower's nearest stack (no breaker)", |inner| {
            ServiceBuilder::new()
                .rate_limit(u64::MAX, Duration::from_secs(1))
                .layer(tower::retry::RetryLayer::new(RetryErrors(Arc::new(TpsBudget::default()))))
                .layer(tower::limit::GlobalConcurrencyLimitLayer::new(PERMITS as usize))
                .layer(tower::timeout::TimeoutLayer::new(LIMIT))
                .service(inner)
        }),
    ]
}

fn plain<S>(name: &'static str, make: impl Fn(Held) -> S + Clone + 'static) -> Candidate
where
    S: Service<u64, Response: Send, Error: Debug + Send, Future: Send> + Send + 'static,
{
    Candidate::new::<S, u64>(name, make)
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
