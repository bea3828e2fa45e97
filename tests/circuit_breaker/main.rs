//! What a circuit breaker promises: items B and G of the contract.

#[path = "../support/mod.rs"]
mod support;

mod config;
mod layer;
mod readiness;
mod states;

use std::time::Duration;

use support::{BoxError, probe::Reply, recorder::Recorder};
use tower::{Service, ServiceExt};
use tower_rampart::{
    AsRejection, Rejection,
    circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder},
};

/// Trips at `failures` in a row, opens for exactly a second, and closes with one probe.
fn consecutive(failures: u32) -> CircuitBreakerBuilder {
    CircuitBreaker::builder("db")
        .no_time_window()
        .no_failure_rate()
        .consecutive_failures(failures)
        .open_duration(OPEN)
        .open_growth(1.0, OPEN)
        .open_jitter(false)
        .probes(1)
        .probe_successes(1)
}

const OPEN: Duration = Duration::from_secs(1);

async fn call<S>(service: &mut S) -> Result<&'static str, BoxError>
where
    S: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    service.ready().await?.call("request").await
}

fn refused<'a>(result: &'a Result<&'static str, BoxError>) -> Option<&'a Rejection> {
    result.as_ref().err().and_then(AsRejection::as_rejection)
}

fn failure() -> Reply {
    Reply::Err("boom".into())
}

fn recorder() -> Recorder {
    Recorder::new()
}
