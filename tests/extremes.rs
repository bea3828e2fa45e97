//! Every number over the whole range of its type, with clocks that jump anywhere: nothing panics,
//! overflows or hangs. `builders.rs` does the same with configurations. Overflow checks are on in
//! all profiles that tests run in.
#![allow(clippy::disallowed_methods)] // the time is paused

mod support;

use std::time::Duration;

use futures_util::FutureExt;
use proptest::{prelude::*, sample::select};
use support::{BoxError, paused, poll_once};
use tokio::time::Instant;
use tower_rampart::{
    adapt,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    clock::{Clock, ManualClock, Nanos},
    deadline,
    per_key::PerKey,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Backoff, Jitter, Retry, RetryBudget},
    timeout::Timeout,
};

/// A reading of a clock, or a number of nanoseconds.
fn reading() -> impl Strategy<Value = u64> {
    prop_oneof![
        select(vec![0, 1, u64::MAX - 1, u64::MAX, u64::MAX / 2, 1 << 40, 1 << 50, (1 << 58) - 1, 1 << 58, 1 << 61]),
        any::<u64>(),
        (0_u32..64).prop_map(|bit| 1 << bit),
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        select(vec![Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(u64::MAX), Duration::MAX]),
        reading().prop_map(Duration::from_nanos),
        reading().prop_map(Duration::from_millis),
        (any::<u64>(), 0_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

fn milliseconds() -> Duration {
    Duration::from_millis(1)
}

#[test]
fn overflow_checks_are_on() {
    let max = std::hint::black_box(u8::MAX);
    assert!(std::panic::catch_unwind(|| max + std::hint::black_box(1)).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_breaker_works_at_any_reading_of_its_clock(
        readings in prop::collection::vec((reading(), 0_u8..6, duration()), 1..60),
        window in 10_u64..=86_400_000,
        recovery in 100_u64..=3_600_000,
    ) {
        let clock = ManualClock::new();
        let builder = CircuitBreaker::builder("b").time_window(Duration::from_millis(window)).count_window(20);
        let builder = builder.min_calls(2).consecutive_failures(5).slow_calls(Duration::from_secs(1), 0.5);
        let builder = builder.gradual_recovery(Duration::from_millis(recovery)).clock(clock.clone());
        let breaker = builder.build().unwrap();
        for (reading, op, duration) in readings {
            let permit = breaker.try_acquire();
            clock.set(Nanos::new(reading));
            match (op, permit) {
                (0..2, Ok(permit)) => permit.failure(),
                (2, Ok(permit)) => permit.success(),
                (3, _) => breaker.open_for(duration),
                (4, _) => breaker.close(),
                _ => {}
            }
            let _ = (breaker.snapshot(), format!("{breaker:?}"));
        }
    }

    #[test]
    fn a_limiter_works_at_any_reading_of_its_clock(
        readings in prop::collection::vec((reading(), 0_u8..8, any::<u32>(), duration()), 1..60),
    ) {
        let clock = ManualClock::new();
        let limiter = RateLimiter::builder("l", Rate::per_second(10)).burst(5).max_wait(Duration::MAX);
        let limiter = limiter.clock(clock.clone()).build().unwrap();
        let keyed = KeyedRateLimiter::<u32>::builder("k", Rate::per_second(10)).max_keys(4).clock(clock.clone());
        let keyed = keyed.build().unwrap();
        paused(async {
            let (mut waiters, mut tokens) = (Vec::new(), Vec::new());
            for (reading, op, number, duration) in readings {
                clock.set(Nanos::new(reading));
                match op {
                    0 => drop(limiter.check_n(number % 8)),
                    1 => tokens.extend(limiter.try_acquire(number % 6)),
                    2 => waiters.push(Box::pin(limiter.acquire(number % 6))),
                    3 => waiters.truncate(number as usize % 4),
                    4 => if let Some(token) = tokens.pop() { token.refund() },
                    5 => drop(limiter.set_rate(Rate::new(number, duration), 1 + number % 6)),
                    6 => tokio::time::advance(Duration::from_millis(number.into())).await,
                    _ => drop(keyed.check_key_n(&number, 1 + number % 4)),
                }
                waiters.retain_mut(|waiter| waiter.as_mut().now_or_never().is_none());
                let _ = (limiter.peek(number), limiter.snapshot(), keyed.snapshot(), keyed.peek_key(&number));
            }
        });
    }

    #[test]
    fn a_budget_a_bulkhead_and_a_map_work_at_any_reading_of_their_clocks(
        readings in prop::collection::vec((reading(), any::<u8>()), 1..60),
        capacity in 1_u32..=1_000_000,
        per_second in 0_u32..=1_000_000,
        idle_after in duration(),
    ) {
        let clock = ManualClock::new();
        let budget = RetryBudget::builder().capacity(capacity).min_per_second(per_second).clock(clock.clone());
        let budget = budget.build().unwrap();
        let bulkhead = Bulkhead::builder("k").max_concurrent(1).max_wait(Duration::MAX).clock(clock.clone());
        let bulkhead = bulkhead.build().unwrap();
        let map = PerKey::<u8, CircuitBreaker>::builder("m", |name| CircuitBreaker::builder(name).build());
        let map = map.max_keys(3).idle_after(idle_after.max(milliseconds())).clock(clock.clone()).build().unwrap();
        for (reading, key) in readings {
            clock.set(Nanos::new(reading));
            if budget.try_withdraw() {
                budget.give_back();
            }
            budget.deposit();
            prop_assert!(budget.snapshot().balance <= f64::from(capacity));
            prop_assert!(bulkhead.try_acquire().is_ok());
            map.get_or_create(&(key % 8)).try_acquire().unwrap().success();
        }
    }

    #[test]
    fn deadlines_and_timeouts_work_with_any_duration(
        limits in prop::collection::vec(duration(), 1..4),
        (ahead, behind) in (duration(), duration()),
        wait in 0_u64..100_000,
    ) {
        paused(async {
            let now = Instant::now();
            for at in [now.checked_add(ahead), now.checked_sub(behind)].into_iter().flatten() {
                let seen = deadline::scope(at, async { (deadline::current(), deadline::remaining()) }).await;
                // A deadline beyond the end of the timeline is none.
                assert!(seen.1.is_none_or(|left| left <= at.saturating_duration_since(now)));
                let call = async {
                    let mut call: std::pin::Pin<Box<dyn Future<Output = Result<(), BoxError>>>> =
                        Box::pin(tokio::time::sleep(Duration::from_millis(wait)).map(Ok));
                    for limit in &limits {
                        let timeout = Timeout::new("t", *limit);
                        call = Box::pin(async move { timeout.run(call).await });
                    }
                    call.await
                };
                let result = deadline::scope(at, call).await;
                let shortest = limits.iter().copied().min().unwrap().min(at.saturating_duration_since(now));
                if shortest > Duration::from_millis(wait + 2) && wait == 0 {
                    assert!(result.is_ok());
                }
            }
        });
    }

    #[test]
    fn a_backoff_stays_within_its_maximum(
        (base, max) in (duration(), duration()),
        factor in prop_oneof![select(vec![1.0, 2.0, f64::MAX, f64::MIN_POSITIVE, f64::NAN, -1.0]), any::<f64>()],
        jitter in select(vec![Jitter::None, Jitter::Full, Jitter::Equal, Jitter::Decorrelated]),
    ) {
        for backoff in [Backoff::exponential(base, max), Backoff::fixed(max)] {
            let delays: Vec<_> = backoff.factor(factor).jitter(jitter).delays(7).take(100).collect();
            prop_assert!(delays.iter().all(|delay| *delay <= max));
            let retry = Retry::builder("r").max_attempts(3).backoff(backoff.factor(factor).jitter(jitter)).deadline(max);
            if let Ok(retry) = retry.max_retry_after(base).build() {
                // The first delay is begun, whatever it is.
                paused(async { drop(poll_once(retry.run(|_| async { Err::<(), BoxError>("failed".into()) }))) });
            }
        }
    }

    #[test]
    fn waits_of_any_length_are_begun(limit in duration(), wait in duration(), reading in reading()) {
        let clock = ManualClock::new();
        clock.set(Nanos::new(reading));
        let bulkhead = Bulkhead::builder("k").max_concurrent(1).max_wait(wait).clock(clock.clone()).build().unwrap();
        let limiter = RateLimiter::builder("l", Rate::new(1, Duration::from_secs(86_400 * 365))).max_wait(wait);
        let limiter = limiter.clock(clock.clone()).build().unwrap();
        let timeout = Timeout::new("t", limit);
        paused(async {
            let _permit = bulkhead.try_acquire().unwrap();
            drop(poll_once(bulkhead.run(async { Ok::<_, BoxError>(()) })));
            limiter.check().unwrap();
            drop(poll_once(limiter.acquire(1)));
            drop(poll_once(timeout.run(adapt(std::future::pending::<Result<(), std::io::Error>>()))));
        });
        clock.advance(wait);
        prop_assert!(clock.now() >= Nanos::new(reading));
    }

    #[test]
    fn points_in_time_saturate(a in reading(), b in reading(), duration in duration()) {
        let (a, b) = (Nanos::new(a), Nanos::new(b));
        prop_assert!(a.saturating_add(duration) >= a && a.saturating_sub(duration) <= a);
        prop_assert_eq!(a.saturating_since(b).is_zero(), a <= b);
    }
}

#[cfg(feature = "http")]
mod http {
    use std::fmt::Write;

    use ::http::{HeaderMap, HeaderValue, Request};
    use tower::{Layer, ServiceExt, service_fn};
    use tower_rampart::http::{DeadlineHeader, rate_limit_reset, retry_after};

    use super::*;

    /// A number as clients write it: in range, out of range, with a fraction.
    fn digits() -> impl Strategy<Value = String> {
        prop_oneof![
            reading().prop_map(|number| number.to_string()),
            any::<u128>().prop_map(|number| number.to_string()),
            select(vec!["18446744073710", "18446744073709551615", "18446744073709551616", "9e9", "", "0", "-1"])
                .prop_map(str::to_owned),
            (reading(), any::<u32>()).prop_map(|(whole, part)| format!("{whole}.{part}")),
            "[0-9]{1,40}",
        ]
    }

    proptest! {
        #[test]
        fn a_remote_deadline_of_any_number_is_survived(digits in digits(), unit in select(vec!["H", "M", "S", "m", "u", "n", "x"])) {
            paused(async {
                for (header, name, value) in [
                    (DeadlineHeader::default(), "x-request-timeout-ms", digits.clone()),
                    (DeadlineHeader::grpc(), "grpc-timeout", format!("{digits}{unit}")),
                ] {
                    let timeout = Timeout::new("t", Duration::MAX);
                    let inner = service_fn(move |_: Request<()>| {
                        let timeout = timeout.clone();
                        async move {
                            let left = deadline::remaining();
                            let _ = (deadline::current(), timeout.run(async { Ok::<_, BoxError>(()) }).await);
                            Ok::<_, BoxError>(left)
                        }
                    });
                    let send = header.send().layer(inner);
                    let request = Request::builder().header(name, &value).body(()).unwrap();
                    let asked = header.read(request.headers());
                    let left = header.receive().layer(send).oneshot(request).await.unwrap();
                    if let (Some(asked), Some(left)) = (asked, left) {
                        assert!(left <= asked.max(Duration::from_millis(1)), "{left:?} of {value}");
                    }
                }
            });
        }

        #[test]
        fn a_hint_of_any_number_is_survived(digits in digits(), other in digits(), unit in "[a-z]{0,2}") {
            let mut value = digits.clone();
            write!(value, "{unit}{other}{unit}").unwrap();
            for text in [&digits, &value] {
                for name in [
                    "retry-after", "retry-after-ms", "ratelimit-reset", "x-ratelimit-reset", "x-ratelimit-reset-after",
                    "x-ratelimit-reset-requests", "x-rate-limit-reset", "grpc-retry-pushback-ms",
                ] {
                    let mut headers = HeaderMap::new();
                    headers.insert(name, HeaderValue::from_str(text).unwrap());
                    let _ = (retry_after(&headers), rate_limit_reset(&headers));
                }
                let mut headers = HeaderMap::new();
                let quota = format!("\"q\";r=0;t={text}, limit={text}, remaining=0, reset={text}");
                headers.insert("ratelimit", HeaderValue::from_str(&quota).unwrap());
                let _ = rate_limit_reset(&headers);
            }
        }

        #[test]
        fn a_limit_of_any_length_is_written(limit in duration()) {
            for header in [DeadlineHeader::default(), DeadlineHeader::grpc()] {
                let mut headers = HeaderMap::new();
                header.write(limit, &mut headers);
                let read = header.read(&headers).unwrap();
                assert!(read <= limit.max(milliseconds()));
            }
        }
    }
}
