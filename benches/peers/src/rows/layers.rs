//! Single layers.

use std::{sync::Arc, time::Duration};

use tower::{
    Layer,
    retry::budget::{Budget, TpsBudget},
};
use tower_rampart::{bulkhead::Bulkhead, retry::Retry, timeout::Timeout};
use tower_resilience::{
    bulkhead::BulkheadLayer,
    retry::{RetryBudgetBuilder, RetryLayer},
    timelimiter::TimeLimiterLayer,
};

use super::{Claim, Comparison, Row, one_and_two};
use crate::{
    harness::Candidate,
    inner::{Fault, Immediate, PendingOnce, calls},
};

/// A policy for tower's retry, which tower leaves to the user: retries errors within a budget.
#[derive(Clone)]
pub struct RetryErrors(pub Arc<TpsBudget>);

impl tower::retry::Policy<u64, u64, Fault> for RetryErrors {
    type Future = std::future::Ready<()>;

    fn retry(&mut self, _: &mut u64, result: &mut Result<u64, Fault>) -> Option<Self::Future> {
        match result {
            Ok(_) => {
                self.0.deposit();
                None
            }
            Err(_) => self.0.withdraw().then(|| std::future::ready(())),
        }
    }

    fn clone_request(&mut self, request: &u64) -> Option<u64> {
        Some(*request)
    }
}

pub fn retries() -> RetryLayer<u64, u64, Fault> {
    let budget = RetryBudgetBuilder::new().token_bucket().max_tokens(100).build().expect("the settings are valid");
    RetryLayer::builder().max_attempts(3).exponential_backoff(Duration::from_millis(100)).budget(budget).build()
}

pub fn retry() -> Row {
    Row {
        name: "retry layer with a budget, per call",
        candidates: vec![
            Candidate::new("bare service", || || calls(Immediate, Some(true))),
            Candidate::new("rampart", || {
                let service = Retry::attempts("r", 3).expect("the settings are valid").layer().layer(Immediate);
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("tower, TpsBudget", || {
                let policy = RetryErrors(Arc::new(TpsBudget::default()));
                let service = tower::retry::RetryLayer::new(policy).layer(Immediate);
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("tower-resilience", || {
                let service = retries().layer(Immediate);
                move || calls(service.clone(), Some(true))
            }),
        ],
        settings: one_and_two(),
        claims: vec![
            Claim::new("10 times faster than tower", 10.0, |row| {
                row.faster_above("bare service", "rampart", "tower, TpsBudget")
            }),
            Claim::new("2 threads reach 1.9 times the throughput of one", 1.9, |row| row.scaling("rampart", 2)),
        ],
    }
}

const SECOND: Duration = Duration::from_secs(1);

fn timeouts<S>(inner: S) -> Vec<Candidate>
where
    S: tower::Service<u64, Response = u64, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    let (ours, towers, theirs, bare) = (inner.clone(), inner.clone(), inner.clone(), inner);
    vec![
        Candidate::new("bare service", move || {
            let service = bare.clone();
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new("rampart", move || {
            let service = Timeout::new("t", SECOND).layer().layer(ours.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new("tower", move || {
            let service = tower::timeout::TimeoutLayer::new(SECOND).layer(towers.clone());
            move || calls(service.clone(), Some(true))
        }),
        Candidate::new("tower-resilience", move || {
            let service = TimeLimiterLayer::builder().timeout_duration(SECOND).build().layer(theirs.clone());
            move || calls(service.clone(), Some(true))
        }),
    ]
}

pub fn timeout_ready() -> Row {
    Row {
        name: "timeout layer, immediate response",
        candidates: timeouts(Immediate),
        settings: one_and_two(),
        claims: vec![
            Claim::new("below 10 ns", 1.0, |row| Some(10.0 / row.nanos("rampart", super::Setting::Shared(1))?)),
            Claim::new("faster than tower", 1.0, |row| row.faster_above("bare service", "rampart", "tower")),
        ],
    }
}

pub fn timeout_pending() -> Row {
    Row {
        name: "timeout layer, response pending once",
        candidates: timeouts(PendingOnce),
        settings: one_and_two(),
        claims: vec![Claim::headline("no slower than tower", 1.0, Comparison::above_bare("rampart", "tower"))],
    }
}

pub fn bulkhead() -> Row {
    let theirs = |reject: bool| {
        let builder = BulkheadLayer::builder().max_concurrent_calls(64);
        let builder = if reject { builder.reject_when_full() } else { builder };
        builder.build().expect("the settings are valid").layer(Immediate)
    };
    Row {
        name: "bulkhead layer, per call",
        candidates: vec![
            Candidate::new("bare service", || || calls(Immediate, Some(true))),
            Candidate::new("rampart", || {
                let service = Bulkhead::new("k", 64).expect("the settings are valid").layer().layer(Immediate);
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("tower", || {
                let service = tower::limit::GlobalConcurrencyLimitLayer::new(64).layer(Immediate);
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("tower-resilience", move || {
                let service = theirs(false);
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("tower-resilience, rejecting", move || {
                let service = theirs(true);
                move || calls(service.clone(), Some(true))
            }),
        ],
        settings: one_and_two(),
        claims: vec![
            Claim::new("8 times faster than tower-resilience", 8.0, |row| {
                row.faster_above("bare service", "rampart", "tower-resilience")
            }),
            Claim::new("faster than tower", 1.0, |row| row.faster_above("bare service", "rampart", "tower")),
            Claim::new("4 times tower's throughput at 2 threads", 4.0, |row| row.more("rampart", "tower", 2)),
        ],
    }
}
