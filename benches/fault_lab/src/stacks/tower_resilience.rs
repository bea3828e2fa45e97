//! `tower-resilience`: the "standard stack" of its composition guide, with the numbers that stand there.

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

use super::{Place, Stack};
use crate::sim::{Client, Fault, Request, Response, boxed};

/// Timeout 30 s, three attempts from 100 ms on, breaker at one half, timeout 10 s.
pub struct TowerResilience;

/// Its default.
const OPEN: Duration = Duration::from_secs(30);

fn limited(error: TimeLimiterError<Fault>) -> Fault {
    match error {
        TimeLimiterError::Timeout => Fault::Other { timed_out: true },
        TimeLimiterError::Inner(fault) => fault,
    }
}

fn broken(error: CircuitBreakerError<Fault>) -> Fault {
    match error {
        CircuitBreakerError::OpenCircuit => Fault::Other { timed_out: false },
        CircuitBreakerError::Inner(fault) => fault,
    }
}

impl Stack for TowerResilience {
    fn name(&self) -> &str {
        "tower-resilience"
    }

    fn client(&self, place: &Place, link: Client) -> Client {
        let seconds = |seconds| TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(seconds)).build();
        // Its open time is measured by the system's clock, which virtual time does not move. So the breaker is told to
        // wait for nothing, and what it would refuse meanwhile is refused here.
        let clock = place.clock;
        let opened = Arc::new(AtomicU64::new(u64::MAX));
        let notes = opened.clone();
        let breaker = CircuitBreakerLayer::builder()
            .failure_rate_threshold(0.5)
            .wait_duration_in_open(Duration::ZERO)
            .on_state_transition(move |_, to| {
                let at = if to == CircuitState::Open { clock.millis() } else { u64::MAX };
                notes.store(at, Ordering::Relaxed);
            })
            .build()
            .expect("it is set as in its guide");
        let attempt = ServiceBuilder::new().map_err(limited).service(seconds(10).layer(link));
        let attempt = ServiceBuilder::new().map_err(broken).service(breaker.layer(attempt));
        let attempt = boxed(attempt);
        let gated = service_fn(move |request| {
            let open_until = opened.load(Ordering::Relaxed).saturating_add(OPEN.as_millis() as u64);
            let open = opened.load(Ordering::Relaxed) != u64::MAX && clock.millis() < open_until;
            let attempt = attempt.clone();
            async move { if open { Err(Fault::Other { timed_out: false }) } else { attempt.oneshot(request).await } }
        });
        let retry = RetryLayer::<Request, Response, Fault>::builder();
        let retry = retry.max_attempts(3).exponential_backoff(Duration::from_millis(100)).build();
        boxed(ServiceBuilder::new().map_err(limited).service(seconds(30).layer(retry.layer(boxed(gated)))))
    }
}
