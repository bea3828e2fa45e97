//! The circuit breaker: items B and G of the contract.

#[path = "../support/mod.rs"]
mod support;

mod agreement;
mod config;
mod layer;
mod readiness;
mod states;

use std::time::Duration;

use support::probe::Reply;
use tower_rampart::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder};

/// Trips after `failures` consecutive failures, opens for exactly one second, and closes after one
/// successful probe.
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

fn failure() -> Reply {
    Reply::Err("boom".into())
}
