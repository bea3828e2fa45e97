//! Invalid configurations do not build.

use std::time::Duration;

use tower_rampart::circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder};

fn field(change: impl FnOnce(CircuitBreakerBuilder) -> CircuitBreakerBuilder) -> &'static str {
    let error = change(CircuitBreaker::builder("db")).build().expect_err("the configuration is invalid");
    assert!(!error.reason().is_empty());
    error.field()
}

#[test]
fn a_configuration_error_names_the_field() {
    assert_eq!(field(|b| b.consecutive_failures(0)), "consecutive_failures");
    assert_eq!(field(|b| b.consecutive_failures(100_000)), "consecutive_failures");
    assert_eq!(field(|b| b.count_window(0)), "count_window");
    assert_eq!(field(|b| b.count_window(1001)), "count_window");
    assert_eq!(field(|b| b.count_window(10).min_calls(11)), "min_calls");
    assert_eq!(field(|b| b.min_calls(0)), "min_calls");
    assert_eq!(field(|b| b.time_window(Duration::ZERO)), "time_window");
    assert_eq!(field(|b| b.time_window(Duration::MAX)), "time_window");
    assert_eq!(field(|b| b.time_buckets(0)), "time_buckets");
    assert_eq!(field(|b| b.time_buckets(17)), "time_buckets");
    for rate in [0.0, -0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(field(|b| b.failure_rate(rate)), "failure_rate");
        assert_eq!(field(|b| b.slow_calls(Duration::from_secs(1), rate)), "slow_calls");
    }
    assert_eq!(field(|b| b.slow_calls(Duration::ZERO, 0.5)), "slow_calls");
    assert_eq!(
        field(|b| b.no_time_window().consecutive_failures(1).slow_calls(Duration::from_secs(1), 0.5)),
        "slow_calls"
    );
    assert_eq!(field(|b| b.no_time_window()), "failure_rate");
    assert_eq!(field(|b| b.no_failure_rate()), "failure_rate");
    assert_eq!(field(|b| b.open_duration(Duration::ZERO)), "open_duration");
    assert_eq!(field(|b| b.open_growth(0.5, Duration::from_secs(9))), "open_growth");
    assert_eq!(field(|b| b.open_growth(f64::NAN, Duration::from_secs(9))), "open_growth");
    assert_eq!(field(|b| b.open_growth(2.0, Duration::from_millis(1))), "open_growth");
    assert_eq!(field(|b| b.probes(0)), "probes");
    assert_eq!(field(|b| b.probes(10_000)), "probes");
    assert_eq!(field(|b| b.probe_successes(0)), "probe_successes");
    assert_eq!(field(|b| b.probe_timeout(Duration::ZERO)), "probe_timeout");
    assert_eq!(field(|b| b.gradual_recovery(Duration::ZERO)), "gradual_recovery");
    assert_eq!(field(|b| b.gradual_recovery(Duration::MAX)), "gradual_recovery");
}

#[test]
fn extreme_but_valid_configurations_work() {
    let year = Duration::from_secs(366 * 86_400);
    let longest = CircuitBreaker::builder("db").open_duration(year).build().unwrap();
    (0..100).for_each(|_| drop(longest.try_acquire().map(|permit| permit.failure())));
    assert!(longest.try_acquire().is_err());
    assert!(CircuitBreaker::builder("db").open_growth(f64::MAX, year).build().is_ok());
    assert!(CircuitBreaker::consecutive("db", 0).is_err());
}
