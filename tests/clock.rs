//! The time source: it is read only where a decision needs it, and a custom clock decides alone. A
//! paused clock does not show how often it is read, so these tests count the readings.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use proptest::{prelude::*, sample::select};
use support::{BoxError, poll_once};
use tower_rampart::{
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    clock::{Clock, ManualClock, Nanos},
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::RetryBudget,
};

/// A clock that counts its readings.
#[derive(Clone, Default)]
struct CountingClock {
    clock: ManualClock,
    readings: Arc<AtomicUsize>,
}

impl Clock for CountingClock {
    fn now(&self) -> Nanos {
        self.readings.fetch_add(1, SeqCst);
        self.clock.now()
    }
}

impl CountingClock {
    /// Starts at a time that is not zero.
    fn new() -> Self {
        let counting = Self::default();
        counting.clock.advance(Duration::from_secs(1_000));
        counting
    }

    /// Counts the readings during `action`.
    fn readings(&self, action: impl FnOnce()) -> usize {
        let before = self.readings.load(SeqCst);
        action();
        self.readings.load(SeqCst) - before
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_breaker_on_consecutive_failures_reads_no_clock_until_it_trips() {
    let clock = CountingClock::new();
    let breaker = CircuitBreaker::builder("x").no_time_window().no_failure_rate().consecutive_failures(2);
    let breaker = breaker.clock(clock.clone()).build().unwrap();
    let call = |succeeds: bool| {
        let permit = breaker.try_acquire().unwrap();
        if succeeds { permit.success() } else { permit.failure() }
    };
    assert_eq!(clock.readings(|| call(true)), 0);
    assert_eq!(clock.readings(|| call(false)), 0);
    assert_eq!(clock.readings(|| drop(breaker.try_acquire().unwrap())), 0);
    assert_eq!(clock.readings(|| call(false)), 1, "it trips");
    assert_eq!(clock.readings(|| assert!(breaker.try_acquire().is_err())), 1);
    assert_eq!(clock.readings(|| assert_eq!(breaker.state(), CircuitState::Open)), 0);
}

#[test]
fn a_count_window_reads_no_clock_and_a_time_window_reads_it_once_per_call() {
    let clock = CountingClock::new();
    let by_count = CircuitBreaker::builder("x").no_time_window().count_window(100).clock(clock.clone());
    let by_count = by_count.build().unwrap();
    assert_eq!(clock.readings(|| by_count.try_acquire().unwrap().success()), 0);
    assert_eq!(clock.readings(|| by_count.try_acquire().unwrap().failure()), 0);
    let by_time = CircuitBreaker::builder("x").clock(clock.clone()).build().unwrap();
    assert_eq!(clock.readings(|| by_time.try_acquire().unwrap().success()), 1);
    assert_eq!(clock.readings(|| drop(by_time.try_acquire().unwrap())), 0, "cancelled");
    let slow = CircuitBreaker::builder("x").slow_calls(SECOND, 0.5).clock(clock.clone()).build().unwrap();
    assert_eq!(clock.readings(|| slow.try_acquire().unwrap().success()), 2, "one at admission and one at completion");
}

#[test]
fn a_limiter_reads_the_clock_once_per_decision() {
    let clock = CountingClock::new();
    let limiter = RateLimiter::builder("x", Rate::per_second(1)).clock(clock.clone()).build().unwrap();
    assert_eq!(clock.readings(|| assert!(limiter.check().is_ok())), 1);
    assert_eq!(clock.readings(|| assert!(limiter.check().is_err())), 1);
    let keyed = KeyedRateLimiter::<str>::builder("x", Rate::per_second(1)).clock(clock.clone()).build().unwrap();
    assert_eq!(clock.readings(|| assert!(keyed.check_key("a").is_ok())), 1);
    assert_eq!(clock.readings(|| assert!(keyed.check_key("a").is_err())), 1);
}

#[tokio::test]
async fn a_bulkhead_reads_its_clock_neither_for_permits_nor_for_waits() {
    let clock = CountingClock::new();
    let bulkhead = Bulkhead::builder("x").max_concurrent(1).max_wait(SECOND).clock(clock.clone()).build().unwrap();
    let mut permit = None;
    assert_eq!(clock.readings(|| permit = Some(bulkhead.try_acquire().unwrap())), 0);
    assert_eq!(clock.readings(|| assert!(bulkhead.try_acquire().is_err())), 0);
    let run = || assert!(poll_once(bulkhead.run(async { Ok::<_, BoxError>(()) })).is_pending());
    assert_eq!(clock.readings(run), 0, "a wait lasts by tokio's clock");
    drop(permit);
    let run = || assert!(poll_once(bulkhead.run(async { Ok::<_, BoxError>(()) })).is_ready());
    assert_eq!(clock.readings(run), 0);
}

#[test]
fn a_budget_without_a_rate_reads_no_clock() {
    let clock = CountingClock::new();
    let budget = RetryBudget::builder().min_per_second(0).clock(clock.clone()).build().unwrap();
    let use_it = || {
        assert!(budget.try_withdraw());
        budget.deposit();
    };
    assert_eq!(clock.readings(use_it), 0);
}

// Tokio's clock does not matter.
#[tokio::test(start_paused = true)]
async fn decisions_follow_the_custom_clock() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("x").consecutive_failures(1).open_jitter(false).open_duration(SECOND);
    let breaker = breaker.clock(clock.clone()).build().unwrap();
    breaker.try_acquire().unwrap().failure();
    tokio::time::advance(SECOND * 60).await;
    let left = breaker.try_acquire().unwrap_err().retry_after().unwrap();
    assert!(left.abs_diff(SECOND) < Duration::from_millis(1), "{left:?}");
    clock.advance(SECOND);
    assert!(breaker.try_acquire().is_ok());
}

#[test]
fn clones_of_a_manual_clock_share_its_time_which_saturates() {
    let clock = ManualClock::new();
    let shown = clock.clone();
    assert_eq!(shown.now(), Nanos::new(0));
    clock.advance(SECOND);
    assert_eq!(shown.now(), Nanos::new(1_000_000_000));
    clock.set(Nanos::new(7));
    assert_eq!(shown.now().get(), 7, "it may go backwards, as a broken clock would");
    clock.advance(Duration::MAX);
    assert_eq!(shown.now(), Nanos::MAX);
    clock.advance(SECOND);
    assert_eq!(shown.now(), Nanos::MAX);
    let shared: Arc<dyn Clock> = Arc::new(clock);
    assert_eq!(shared.now(), Nanos::MAX, "an `Arc` of a clock is a clock");
}

/// A breaker that trips when all of at least twenty calls in `window` have failed.
fn by_time(window: Duration, clock: &ManualClock) -> CircuitBreaker {
    let builder = CircuitBreaker::builder("x").time_window(window).min_calls(20).failure_rate(1.0);
    // It stays open.
    let builder = builder.open_duration(SECOND * 86_400).open_jitter(false);
    builder.clock(clock.clone()).build().unwrap()
}

proptest! {
    /// B40: after a jump of the clock the windows count the calls that follow, and no call from
    /// before dilutes them.
    #[test]
    fn a_breaker_trips_after_a_clock_jump_as_it_does_without(
        window in select(vec![SECOND, 10 * SECOND, 60 * SECOND, 3600 * SECOND]),
        ahead in prop_oneof![0..100_000_u64, select(vec![1, 10, 60, 3600, 86_400 * 365])],
        before in 0..50_u64,
        meanwhile in 0..50_u64,
    ) {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(1 << 20));
        let breaker = by_time(window, &clock);
        // Failures only, so that none is held against the rate.
        let mut calls = 0;
        let mut fail = |count: u64| {
            for _ in 0..count {
                match breaker.try_acquire() {
                    Ok(permit) => permit.failure(),
                    Err(_) => return calls,
                }
                calls += 1;
                clock.advance(window / 40);
            }
            calls
        };
        fail(before);
        let back = clock.now();
        clock.advance(Duration::from_secs(ahead));
        fail(meanwhile);
        clock.set(back);
        let sofar = fail(0);
        let tripped = fail(21) - sofar;
        prop_assert!(tripped <= 20, "{tripped} more failures");
        prop_assert!(breaker.try_acquire().is_err());
    }

    /// B41: a recovery is over in time, whether or not it was called meanwhile.
    #[test]
    fn a_closed_circuit_admits_every_call_after_its_recovery(
        recovery in 100_u64..=3_600_000,
        // Also close to where a counter of nanoseconds would wrap.
        idle in prop_oneof![
            0..10_000_000_u64,
            0..200_000_000_000_u64,
            (36_u32..58, 0..3_600_000_u64).prop_map(|(bits, after)| (1 << bits) / 1_000_000 + after),
        ],
    ) {
        let clock = ManualClock::new();
        let breaker = CircuitBreaker::builder("x").consecutive_failures(1).open_jitter(false).open_duration(SECOND);
        let breaker = breaker.probe_successes(1).gradual_recovery(Duration::from_millis(recovery));
        let breaker = breaker.clock(clock.clone()).build().unwrap();
        breaker.try_acquire().unwrap().failure();
        clock.advance(SECOND);
        breaker.try_acquire().unwrap().success();
        clock.advance(Duration::from_millis(recovery + idle));
        prop_assert!((0..100).all(|_| breaker.try_acquire().map(|permit| permit.success()).is_ok()));
    }
}
