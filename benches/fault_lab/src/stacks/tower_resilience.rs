//! `tower-resilience`: the "standard stack" of its composition guide, with the guide's numbers.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_resilience::{
    circuitbreaker::{CircuitBreakerError, CircuitBreakerLayer, CircuitState},
    retry::RetryLayer,
    timelimiter::{TimeLimiterError, TimeLimiterLayer},
};

use crate::sim::{Client, Fault, Request, Response, Stack, StackContext, boxed};

/// A total timeout of 30 s, three attempts with backoff from 100 ms, a breaker at a 50% failure
/// rate, and an attempt timeout of 10 s.
pub struct TowerResilience;

/// The breaker's default open duration.
const OPEN: Duration = Duration::from_secs(30);

fn timeout_fault(error: TimeLimiterError<Fault>) -> Fault {
    match error {
        TimeLimiterError::Timeout => Fault::OtherLibrary { timed_out: true },
        TimeLimiterError::Inner(fault) => fault,
    }
}

fn breaker_fault(error: CircuitBreakerError<Fault>) -> Fault {
    match error {
        CircuitBreakerError::OpenCircuit => Fault::OtherLibrary { timed_out: false },
        CircuitBreakerError::Inner(fault) => fault,
    }
}

impl Stack for TowerResilience {
    fn name(&self) -> &str {
        "tower-resilience"
    }

    fn client(&self, context: &StackContext, link: Client) -> Client {
        let seconds = |seconds| TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(seconds)).build();
        // The breaker measures its open duration by the system clock, which virtual time does not
        // advance. So its own open duration is zero, and the calls that it would reject in the
        // meantime are rejected here.
        let clock = context.clock;
        let opened = Arc::new(AtomicU64::new(u64::MAX));
        let opened_at = opened.clone();
        let breaker = CircuitBreakerLayer::builder()
            .failure_rate_threshold(0.5)
            .wait_duration_in_open(Duration::ZERO)
            .on_state_transition(move |_, to| {
                let at = if to == CircuitState::Open { clock.millis() } else { u64::MAX };
                opened_at.store(at, Ordering::Relaxed);
            })
            .build()
            .expect("the guide's settings are valid");
        let attempt = ServiceBuilder::new().map_err(timeout_fault).service(seconds(10).layer(link));
        let attempt = ServiceBuilder::new().map_err(breaker_fault).service(breaker.layer(attempt));
        let attempt = boxed(attempt);
        let gated = service_fn(move |request| {
            let open_until = opened.load(Ordering::Relaxed).saturating_add(OPEN.as_millis() as u64);
            let open = opened.load(Ordering::Relaxed) != u64::MAX && clock.millis() < open_until;
            let attempt = attempt.clone();
            async move { if open { Err(Fault::OtherLibrary { timed_out: false }) } else { attempt.oneshot(request).await } }
        });
        let retry = RetryLayer::<Request, Response, Fault>::builder();
        let retry = retry.max_attempts(3).exponential_backoff(Duration::from_millis(100)).build();
        boxed(ServiceBuilder::new().map_err(timeout_fault).service(seconds(30).layer(retry.layer(boxed(gated)))))
    }
}
