//! Builders with arbitrary numbers: a configuration that builds works, and one that does not names
//! one of its fields. Nothing panics or overflows.

mod support;

use std::time::Duration;

use proptest::{prelude::*, sample::select};
use support::paused;
use tower_rampart::{
    ConfigError, Error, adapt,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    clock::{ManualClock, Nanos},
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Backoff, Jitter, Retry, RetryBudget},
    stack,
    timeout::Timeout,
};

/// Usual numbers, and the extremes that mistakes produce.
fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        select(vec![0, 1, 2, 3, 100, 1000, 1001, 65_535, 65_536, u32::MAX - 1, u32::MAX]),
        any::<u32>(),
        0_u32..50
    ]
}

fn fraction() -> impl Strategy<Value = f64> {
    prop_oneof![
        select(vec![0.0, -0.0, 1.0, 0.5, 1e-9, 1.0 + 1e-9, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, f64::MAX]),
        0.0..1.0_f64,
        any::<f64>(),
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        select(vec![
            Duration::ZERO,
            Duration::from_nanos(1),
            Duration::from_millis(1),
            Duration::from_secs(1),
            Duration::from_secs(86_400),
            Duration::from_secs(u64::MAX),
            Duration::MAX,
        ]),
        any::<u64>().prop_map(Duration::from_nanos),
        (any::<u64>(), 0_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

/// Asserts that the error names one of these fields and gives a reason.
fn names_a_field(error: &ConfigError, fields: &[&str]) -> Result<(), TestCaseError> {
    prop_assert!(fields.contains(&error.field()), "{error}");
    prop_assert!(!error.reason().is_empty());
    Ok(())
}

async fn succeed() -> Result<(), std::io::Error> {
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_circuit_breaker_that_builds_works(
        (consecutive, count, time, buckets) in (number(), number(), duration(), number()),
        (min_calls, rate, slow, slow_share) in (number(), fraction(), duration(), fraction()),
        (open, growth, max, probes) in (duration(), fraction(), duration(), number()),
        (successes, probe_timeout, recovery) in (number(), duration(), duration()),
        given in any::<u16>(),
        now in any::<u64>(),
    ) {
        let clock = ManualClock::new();
        clock.set(Nanos::new(now));
        let mut builder = CircuitBreaker::builder("b").clock(clock.clone()).open_jitter(given & 1 != 0);
        // A random subset of the fields: a builder that always fails on the same field tests
        // little.
        if given & 2 != 0 { builder = builder.consecutive_failures(consecutive); }
        if given & 4 != 0 { builder = builder.count_window(count); }
        if given & 8 != 0 { builder = builder.time_window(time); }
        if given & 16 != 0 { builder = builder.time_buckets(buckets); }
        if given & 32 != 0 { builder = builder.min_calls(min_calls); }
        if given & 64 != 0 { builder = builder.failure_rate(rate); }
        if given & 128 != 0 { builder = builder.slow_calls(slow, slow_share); }
        if given & 256 != 0 { builder = builder.open_duration(open); }
        if given & 512 != 0 { builder = builder.open_growth(growth, max); }
        if given & 1024 != 0 { builder = builder.probes(probes); }
        if given & 2048 != 0 { builder = builder.probe_successes(successes); }
        if given & 4096 != 0 { builder = builder.probe_timeout(probe_timeout); }
        if given & 8192 != 0 { builder = builder.gradual_recovery(recovery); }
        match builder.build() {
            Ok(breaker) => {
                breaker.try_acquire().unwrap().failure();
                for _ in 0..30 {
                    if let Ok(permit) = breaker.try_acquire() {
                        permit.failure();
                    }
                }
                clock.advance(Duration::from_secs(1 << 20));
                let _ = breaker.try_acquire().map(|permit| permit.success());
                breaker.open_for(open);
                breaker.close();
                breaker.try_acquire().unwrap().success();
                let _ = format!("{breaker:?}");
            }
            Err(error) => names_a_field(&error, &[
                "consecutive_failures", "count_window", "time_window", "time_buckets", "min_calls", "failure_rate",
                "slow_calls", "open_duration", "open_growth", "probes", "probe_successes", "probe_timeout",
                "gradual_recovery",
            ])?,
        }
    }

    #[test]
    fn a_bulkhead_that_builds_works(limit in number(), wait in duration(), queue in number()) {
        match Bulkhead::builder("k").max_concurrent(limit).max_wait(wait).max_queue(queue).build() {
            Ok(bulkhead) => {
                paused(bulkhead.run(adapt(succeed()))).unwrap();
                let _ = bulkhead.resize(queue);
                prop_assert_eq!(bulkhead.snapshot().in_flight, 0);
            }
            Err(error) => names_a_field(&error, &["max_concurrent", "max_wait", "max_queue"])?,
        }
    }

    #[test]
    fn a_rate_limiter_that_builds_works(
        count in number(), per in duration(), burst in number(), wait in duration(), now in any::<u64>(), cost in number(),
    ) {
        let clock = ManualClock::new();
        clock.set(Nanos::new(now));
        match RateLimiter::builder("l", Rate::new(count, per)).burst(burst).max_wait(wait).clock(clock.clone()).build() {
            Ok(limiter) => {
                limiter.check().unwrap();
                let _ = limiter.check_n(cost);
                let _ = limiter.peek(cost);
                if let Ok(token) = limiter.try_acquire(cost) {
                    token.refund();
                }
                clock.advance(wait);
                let _ = limiter.set_rate(Rate::new(burst, wait), count);
                let _ = format!("{limiter:?}");
            }
            Err(error) => names_a_field(&error, &["rate", "burst", "max_wait"])?,
        }
    }

    #[test]
    fn a_keyed_rate_limiter_that_builds_works(count in number(), per in duration(), burst in number(), keys in 0_usize..10_000) {
        let builder = KeyedRateLimiter::<str>::builder("u", Rate::new(count, per)).burst(burst).max_keys(keys);
        match builder.build() {
            Ok(limiter) => {
                limiter.check_key("alice").unwrap();
                let _ = limiter.check_key_n("alice", count);
            }
            Err(error) => names_a_field(&error, &["rate", "burst", "max_keys"])?,
        }
    }

    #[test]
    fn a_retry_that_builds_works(
        (attempts, base, max, factor) in (number(), duration(), duration(), fraction()),
        (jitter, deadline, hint) in (
            select(vec![Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated]), duration(), duration()),
        given in any::<u8>(),
    ) {
        let mut builder = Retry::builder("r");
        if given & 1 != 0 { builder = builder.max_attempts(attempts); }
        if given & 2 != 0 { builder = builder.backoff(Backoff::exponential(base, max).factor(factor).jitter(jitter)); }
        if given & 4 != 0 { builder = builder.deadline(deadline); }
        if given & 8 != 0 { builder = builder.max_retry_after(hint); }
        match builder.build() {
            Ok(retry) => {
                paused(retry.run(|_| succeed())).unwrap();
                let delays: Vec<_> = Backoff::exponential(base, max).factor(factor).jitter(jitter).delays(7).take(40).collect();
                if given & 2 != 0 {
                    prop_assert!(delays.iter().all(|delay| *delay <= max), "{delays:?}");
                }
            }
            Err(error) => names_a_field(&error, &["max_attempts", "backoff", "deadline", "max_retry_after"])?,
        }
    }

    #[test]
    fn a_retry_budget_that_builds_works(ratio in fraction(), capacity in number(), per_second in number()) {
        match RetryBudget::builder().ratio(ratio).capacity(capacity).min_per_second(per_second).build() {
            Ok(budget) => {
                prop_assert!(budget.try_withdraw());
                budget.deposit();
                budget.give_back();
                let snapshot = budget.snapshot();
                prop_assert!(snapshot.balance <= snapshot.capacity);
            }
            Err(error) => names_a_field(&error, &["ratio", "capacity", "min_per_second"])?,
        }
    }

    #[test]
    fn a_timeout_that_builds_works(limit in duration()) {
        let timeout = Timeout::new("t", limit);
        paused(timeout.run(adapt(succeed()))).unwrap();
        // A call that hangs is ended by any limit within the runtime's horizon.
        if limit < Duration::from_secs(86_400 * 365) {
            let hung = paused(timeout.run(adapt(std::future::pending::<Result<(), std::io::Error>>())));
            prop_assert!(matches!(hung, Err(Error::Rejected(_))));
        }
    }

    #[test]
    fn a_stack_that_builds_works(total in duration(), attempt in duration(), limit in number(), wait in duration()) {
        let Ok(bulkhead) = Bulkhead::builder("k").max_concurrent(limit).max_wait(wait).build() else { return Ok(()) };
        let client = stack::client("c").total_timeout(total).attempt_timeout(attempt).bulkhead(&bulkhead).build();
        match client {
            Ok(client) => prop_assert!(!client.to_string().is_empty()),
            Err(error) => names_a_field(&error, &["total_timeout", "attempt_timeout", "retry", "bulkhead", "circuit_breaker"])?,
        }
        match stack::server("s").total_timeout(total).bulkhead(&bulkhead).build() {
            Ok(server) => prop_assert!(!server.to_string().is_empty()),
            Err(error) => names_a_field(&error, &["total_timeout", "bulkhead"])?,
        }
    }
}

/// Rates and bursts of which many can be represented.
fn rate() -> impl Strategy<Value = Rate> {
    let per = prop_oneof![
        duration(),
        (0_u32..30, 1_u64..1000).prop_map(|(power, count)| Duration::from_nanos(count << power)),
        (1_u64..100_000_000).prop_map(Duration::from_secs),
    ];
    (prop_oneof![number(), 1..10_000_u32], per).prop_map(|(count, per)| Rate::new(count, per))
}

/// The time for this number of tokens, in nanoseconds.
fn time_of(tokens: u32, rate: Rate) -> f64 {
    f64::from(tokens) * rate.per().as_nanos() as f64 / f64::from(rate.count())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    /// A rate that builds is the one that is enforced: never higher, and lower by 1% at most.
    #[test]
    fn a_rate_is_enforced_as_it_was_set(rate in rate(), burst in number(), start in 0_u64..1 << 57, cost in number()) {
        let clock = ManualClock::new();
        clock.set(Nanos::new(start));
        let Ok(limiter) = RateLimiter::builder("l", rate).burst(burst).clock(clock.clone()).build() else { return Ok(()) };
        prop_assert!(limiter.check_n(burst).is_ok(), "the whole burst");
        let cost = cost.clamp(1, burst);
        let wait = limiter.check_n(cost).unwrap_err().retry_after().unwrap();
        let exact = time_of(cost, rate);
        let nanos = wait.as_nanos() as f64;
        prop_assert!(nanos >= exact * (1.0 - 1e-12) - 1.0 && nanos <= exact * 1.01 + 1.0, "{wait:?}, not {exact} ns");
        clock.advance(wait - Duration::from_nanos(1));
        prop_assert!(limiter.check_n(cost).is_err());
        clock.advance(Duration::from_nanos(1));
        prop_assert!(limiter.check_n(cost).is_ok());
    }

    /// The same for each key, to within an eighth of a token.
    #[test]
    fn a_keyed_rate_is_enforced_as_it_was_set(rate in rate(), burst in number(), start in 0_u64..1 << 57) {
        let clock = ManualClock::new();
        clock.set(Nanos::new(start));
        let builder = KeyedRateLimiter::<str>::builder("u", rate).burst(burst).max_keys(10).clock(clock.clone());
        let Ok(limiter) = builder.build() else { return Ok(()) };
        prop_assert!(limiter.check_key_n("alice", burst).is_ok(), "the whole burst");
        let wait = limiter.check_key("alice").unwrap_err().retry_after().unwrap();
        let exact = time_of(1, rate);
        let nanos = wait.as_nanos() as f64;
        prop_assert!(nanos >= exact * 0.87 - 1.0 && nanos <= exact * 1.13 + 1.0, "{wait:?}, not {exact} ns");
        clock.advance(wait);
        prop_assert!(limiter.check_key("alice").is_ok());
        // In the long run the rate is exact.
        clock.advance(Duration::from_nanos((exact * 0.2) as u64));
        if burst > 1 && exact * 1000.0 < 1e17 {
            clock.advance(Duration::from_nanos((exact * 1000.0) as u64));
            let available = (0..1002).take_while(|_| limiter.check_key("alice").is_ok()).count();
            prop_assert!(available as u32 >= burst.min(999), "{available} of {burst}");
        }
    }

    #[test]
    fn an_open_time_is_enforced_as_it_was_set(open in duration(), start in 0_u64..1 << 57) {
        let clock = ManualClock::new();
        clock.set(Nanos::new(start));
        let builder = CircuitBreaker::builder("b").consecutive_failures(1).open_jitter(false).open_duration(open);
        let Ok(breaker) = builder.clock(clock.clone()).build() else {
            prop_assert!(open < Duration::from_millis(1) || open > Duration::from_secs(366 * 86_400));
            return Ok(());
        };
        breaker.try_acquire().unwrap().failure();
        // To within the tick that the docs state.
        clock.advance(open - Duration::from_micros(270));
        prop_assert!(breaker.try_acquire().is_err());
        clock.advance(Duration::from_micros(270));
        prop_assert!(breaker.try_acquire().is_ok());
    }

    /// A number of calls that builds is reached, by calls that all fall into one moment.
    #[test]
    fn a_minimum_of_calls_can_be_reached(calls in 1_u32..20_000, length in 10_u64..20, buckets in 1_u32..17) {
        let clock = ManualClock::new();
        let builder = CircuitBreaker::builder("b").time_window(Duration::from_millis(length)).time_buckets(buckets);
        let builder = builder.min_calls(calls).failure_rate(1.0).open_duration(Duration::from_secs(1)).clock(clock);
        let Ok(breaker) = builder.build() else {
            prop_assert!(calls > 8191);
            return Ok(());
        };
        let tripped = (0..calls).all(|_| breaker.try_acquire().map(|permit| permit.failure()).is_ok());
        prop_assert!(tripped && breaker.try_acquire().is_err());
    }
}

#[test]
fn numbers_that_cannot_be_kept_name_their_field() {
    let keyed = |rate| KeyedRateLimiter::<str>::builder("u", rate).burst(1).build().map(drop).unwrap_err();
    assert_eq!(keyed(Rate::new(1_000_000, Duration::from_secs(30_000_000_000_000))).field(), "rate");
    let limiter = |rate| RateLimiter::builder("l", rate).burst(1).build().map(drop).unwrap_err();
    assert_eq!(limiter(Rate::per_second(u32::MAX)).field(), "rate");
    assert_eq!(limiter(Rate::new(7, Duration::from_nanos(1))).field(), "rate");
    assert_eq!(limiter(Rate::new(1, Duration::MAX)).field(), "rate");
    let breaker = || CircuitBreaker::builder("b");
    for (builder, field) in [
        (breaker().failure_rate(1e-9), "failure_rate"),
        (breaker().slow_calls(Duration::from_secs(1), 1e-7), "slow_calls"),
        (breaker().open_duration(Duration::MAX), "open_duration"),
        (breaker().open_growth(2.0, Duration::MAX), "open_growth"),
        (breaker().probe_timeout(Duration::MAX), "probe_timeout"),
        (breaker().min_calls(u32::MAX), "min_calls"),
    ] {
        assert_eq!(builder.build().map(drop).unwrap_err().field(), field);
    }
}
