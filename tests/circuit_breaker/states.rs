//! Tripping, probing and closing, through the handle and without Tower.

use std::time::Duration;

use tower_rampart::{
    Rejection, Verdict,
    circuit_breaker::{CircuitBreaker, CircuitState},
    clock::{Clock, ManualClock, Nanos},
};

use super::{OPEN, consecutive};
use crate::support::recorder::Recorder;

fn finish(breaker: &CircuitBreaker, verdict: Verdict) {
    breaker.try_acquire().expect("admitted").finish(verdict);
}

fn fail(breaker: &CircuitBreaker) {
    finish(breaker, Verdict::Failure);
}

fn retry_after(breaker: &CircuitBreaker) -> Option<Duration> {
    match breaker.try_acquire() {
        Err(Rejection::CircuitOpen { retry_after, .. }) => retry_after.map(Into::into),
        other => panic!("not rejected: {other:?}"),
    }
}

// B1, B2, B3, B4
#[test]
fn it_trips_at_exactly_the_limit_of_consecutive_failures() {
    let breaker = consecutive(3).build().unwrap();
    assert_eq!(breaker.state(), CircuitState::Closed);
    fail(&breaker);
    fail(&breaker);
    finish(&breaker, Verdict::Success);
    fail(&breaker);
    finish(&breaker, Verdict::Ignored);
    finish(&breaker, Verdict::Throttled);
    fail(&breaker);
    assert_eq!(breaker.snapshot().consecutive_failures, 2);
    assert_eq!(breaker.state(), CircuitState::Closed);
    fail(&breaker);
    assert_eq!(breaker.state(), CircuitState::Open);
}

fn by_rate(clock: &ManualClock, rate: f64) -> CircuitBreaker {
    CircuitBreaker::builder("db")
        .time_window(Duration::from_secs(10))
        .min_calls(10)
        .failure_rate(rate)
        .clock(clock.clone())
        .build()
        .unwrap()
}

// B5, B6
#[test]
fn a_rate_trips_at_the_first_failure_that_crosses_it_once_the_minimum_is_met() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock, 0.5);
    (0..9).for_each(|_| fail(&breaker));
    assert_eq!(breaker.state(), CircuitState::Closed, "nine calls are below the minimum");
    fail(&breaker);
    assert_eq!(breaker.state(), CircuitState::Open);

    let breaker = by_rate(&clock, 0.5);
    (0..10).for_each(|_| finish(&breaker, Verdict::Success));
    (0..9).for_each(|_| fail(&breaker));
    assert_eq!(breaker.state(), CircuitState::Closed, "9 of 19");
    fail(&breaker);
    assert_eq!(breaker.state(), CircuitState::Open, "10 of 20");
}

// B7
#[test]
fn a_rate_of_one_trips_only_when_every_call_fails() {
    let breaker = by_rate(&ManualClock::new(), 1.0);
    finish(&breaker, Verdict::Success);
    (0..100).for_each(|_| fail(&breaker));
    assert_eq!(breaker.state(), CircuitState::Closed);
    let breaker = by_rate(&ManualClock::new(), 1.0);
    (0..10).for_each(|_| fail(&breaker));
    assert_eq!(breaker.state(), CircuitState::Open);
}

// B7: a failure rate can be disabled.
#[test]
fn without_a_failure_rate_the_window_does_not_trip() {
    let breaker = CircuitBreaker::builder("db").no_failure_rate().consecutive_failures(1000).build().unwrap();
    (0..500).for_each(|_| fail(&breaker));
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// B8, B9
#[test]
fn old_calls_age_out_and_a_burst_counts_like_spread_out_calls() {
    let clock = ManualClock::new();
    let breaker = by_rate(&clock, 0.5);
    (0..9).for_each(|_| fail(&breaker));
    clock.advance(Duration::from_secs(11));
    fail(&breaker);
    assert_eq!(breaker.snapshot().time_window.unwrap().calls, 1, "the nine have aged out");
    for gap in [Duration::from_secs(u64::from(u32::MAX) + 7), Duration::from_secs(1 << 33)] {
        clock.advance(gap);
        fail(&breaker);
        assert_eq!(breaker.snapshot().time_window.unwrap().calls, 1, "after {gap:?}");
    }
    for _ in 0..8 {
        clock.advance(Duration::from_secs(1));
        fail(&breaker);
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
    fail(&breaker);
    assert_eq!(breaker.state(), CircuitState::Open, "ten failures, at once or over nine seconds");
}

// B10
#[test]
fn consecutive_failures_are_reported_before_the_failure_rate() {
    let recorder = Recorder::new();
    let breaker = CircuitBreaker::builder("db")
        .consecutive_failures(10)
        .min_calls(10)
        .observer(recorder.clone())
        .build()
        .unwrap();
    (0..10).for_each(|_| fail(&breaker));
    assert_eq!(recorder.take().last().unwrap(), "completed failure");
    let breaker = CircuitBreaker::builder("db").min_calls(10).observer(recorder.clone()).build().unwrap();
    (0..10).for_each(|_| fail(&breaker));
    assert_eq!(recorder.count("state closed -> open: failure_rate"), 1);
}

#[test]
fn the_count_window_keeps_only_the_last_calls() {
    let breaker = CircuitBreaker::builder("db").no_time_window().count_window(100).failure_rate(0.5).build().unwrap();
    (0..10_000).for_each(|_| finish(&breaker, Verdict::Success));
    let mut failures = 0;
    while breaker.state() == CircuitState::Closed {
        fail(&breaker);
        failures += 1;
    }
    assert_eq!(failures, 50, "half of the last hundred calls");
}

// B11, B14
#[test]
fn an_open_circuit_rejects_with_the_time_left() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    let mut last = Duration::MAX;
    for _ in 0..10 {
        let left = retry_after(&breaker).unwrap();
        assert!(left < last && left <= OPEN, "{left:?}");
        last = left;
        clock.advance(Duration::from_millis(99));
    }
    assert!(breaker.snapshot().open_for.unwrap() < Duration::from_millis(20));
    clock.advance(OPEN);
    assert!(breaker.try_acquire().is_ok());
}

// B15, B16
#[test]
fn one_of_a_hundred_racing_callers_probes_at_the_deadline() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    clock.advance(OPEN);
    let barrier = std::sync::Barrier::new(10);
    let permits = std::thread::scope(|scope| {
        let race = || {
            barrier.wait();
            (0..10).filter_map(|_| breaker.try_acquire().ok()).collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..10).map(|_| scope.spawn(race)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
    });
    assert_eq!(permits.len(), 1);
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
}

// B17, B18, B19
#[test]
fn failed_probes_lengthen_the_open_time_up_to_a_limit_and_recovery_resets_it() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).open_growth(2.0, Duration::from_secs(5)).clock(clock.clone()).build().unwrap();
    let open_time = |breaker: &CircuitBreaker| {
        let left = breaker.snapshot().open_for.unwrap();
        clock.advance(left);
        left.as_secs_f64().round() as u32
    };
    fail(&breaker);
    assert_eq!(open_time(&breaker), 1);
    for expected in [2, 4, 5, 5] {
        fail(&breaker);
        assert_eq!(open_time(&breaker), expected);
    }
    finish(&breaker, Verdict::Success);
    assert_eq!((breaker.state(), breaker.snapshot().reopened), (CircuitState::Closed, 0));
    fail(&breaker);
    assert_eq!(open_time(&breaker), 1);
}

// B19
#[test]
fn jitter_draws_from_the_upper_half_of_the_open_time() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).open_jitter(true).seed(7).clock(clock.clone()).build().unwrap();
    let mut times: Vec<_> = (0..50)
        .map(|_| {
            fail(&breaker);
            let left = breaker.snapshot().open_for.unwrap();
            clock.advance(left);
            left
        })
        .collect();
    assert!(times.iter().all(|time| (OPEN.mul_f64(0.499)..=OPEN).contains(time)), "{times:?}");
    times.dedup();
    assert!(times.len() > 40, "the open times differ");
}

// B20, B21: dropping a future drops its permit.
#[test]
fn a_cancelled_probe_releases_its_slot() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    clock.advance(OPEN);
    for _ in 0..5 {
        drop(breaker.try_acquire().unwrap());
        assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (CircuitState::HalfOpen, 0));
    }
    finish(&breaker, Verdict::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// B22, G30: the breaker cannot tell whose panic drops a permit that its caller holds.
#[test]
fn a_permit_that_a_panic_drops_is_cancelled() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    clock.advance(OPEN);
    let probe = std::panic::AssertUnwindSafe(|| {
        let _permit = breaker.try_acquire().unwrap();
        panic!("deliberate panic");
    });
    assert!(std::panic::catch_unwind(probe).is_err());
    assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (CircuitState::HalfOpen, 0));
}

// B23
#[test]
fn an_ignored_probe_does_not_close_the_circuit() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    clock.advance(OPEN);
    finish(&breaker, Verdict::Ignored);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    finish(&breaker, Verdict::Throttled);
    assert_eq!(breaker.state(), CircuitState::Open, "a throttled probe fails");
}

// B24
#[test]
fn a_probe_that_never_completes_does_not_keep_the_circuit_half_open() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).probe_timeout(Duration::from_secs(5)).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    clock.advance(OPEN);
    std::mem::forget(breaker.try_acquire().unwrap());
    assert_eq!(retry_after(&breaker), None);
    clock.advance(Duration::from_secs(5));
    finish(&breaker, Verdict::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// B25, B26, B27
#[test]
fn calls_admitted_in_another_state_do_not_count() {
    let clock = ManualClock::new();
    let recorder = Recorder::new();
    let breaker = consecutive(1).clock(clock.clone()).observer(recorder.clone()).build().unwrap();
    let [first, second, third, fourth] = [(); 4].map(|()| breaker.try_acquire().unwrap());
    fail(&breaker);
    let left = retry_after(&breaker);
    first.success();
    assert_eq!(breaker.state(), CircuitState::Open);
    second.failure();
    assert_eq!(retry_after(&breaker), left, "the open time is not extended");
    clock.advance(OPEN);
    let probe = breaker.try_acquire().unwrap();
    third.success();
    fourth.failure();
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    probe.success();
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(recorder.count("state"), 3);
}

// B31
#[test]
fn the_state_can_be_changed_manually() {
    let clock = ManualClock::new();
    let recorder = Recorder::new();
    let breaker = consecutive(2).clock(clock.clone()).observer(recorder.clone()).build().unwrap();
    breaker.force_open();
    clock.advance(Duration::from_secs(1 << 20));
    assert_eq!(retry_after(&breaker), None, "a forced state has no end");
    breaker.disable();
    (0..10).for_each(|_| fail(&breaker));
    assert_eq!(breaker.state(), CircuitState::Disabled, "a disabled breaker never trips");
    breaker.close();
    assert_eq!(breaker.snapshot().consecutive_failures, 0);
    fail(&breaker);
    breaker.close();
    fail(&breaker);
    assert_eq!(breaker.state(), CircuitState::Closed, "closing resets the counts of a closed circuit");
    breaker.open_for(Duration::from_secs(9));
    assert!(retry_after(&breaker).unwrap() > Duration::from_secs(8));
    breaker.half_open();
    finish(&breaker, Verdict::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
    let states: Vec<_> = recorder.take().into_iter().filter(|line| line.starts_with("state")).collect();
    assert_eq!(
        states,
        [
            "state closed -> forced_open: manual",
            "state forced_open -> disabled: manual",
            "state disabled -> closed: manual",
            "state closed -> open: manual",
            "state open -> half_open: manual",
            "state half_open -> closed: probe_succeeded",
        ]
    );
}

#[test]
fn a_disabled_breaker_still_counts() {
    let breaker = CircuitBreaker::new("db");
    breaker.disable();
    (0..30).for_each(|_| fail(&breaker));
    let window = breaker.snapshot().time_window.unwrap();
    assert_eq!((window.calls, window.failed, breaker.state()), (30, 30, CircuitState::Disabled));
}

// B32
#[test]
fn clones_share_one_circuit_and_two_breakers_do_not() {
    let breaker = consecutive(1).build().unwrap();
    let (clone, other) = (breaker.clone(), consecutive(1).build().unwrap());
    fail(&clone);
    assert_eq!(breaker.state(), CircuitState::Open);
    assert_eq!(other.state(), CircuitState::Closed);
}

// B36
#[test]
fn slow_calls_count_when_they_complete() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("db")
        .no_failure_rate()
        .slow_calls(Duration::from_millis(100), 0.5)
        .min_calls(4)
        .clock(clock.clone())
        .build()
        .unwrap();
    let permits = [(); 4].map(|()| breaker.try_acquire().unwrap());
    clock.advance(Duration::from_millis(100));
    let [first, second, third, fourth] = permits;
    first.success();
    second.success();
    clock.advance(Duration::from_millis(1));
    third.success();
    assert_eq!(breaker.state(), CircuitState::Closed);
    fourth.success();
    assert_eq!(breaker.state(), CircuitState::Open, "two of four took longer than 100 ms");
}

#[test]
fn a_cancelled_call_counts_as_slow_if_it_was_slow() {
    let clock = ManualClock::new();
    let breaker = CircuitBreaker::builder("db")
        .slow_calls(Duration::from_millis(100), 0.5)
        .min_calls(2)
        .clock(clock.clone())
        .build()
        .unwrap();
    drop(breaker.try_acquire().unwrap());
    assert_eq!(breaker.snapshot().time_window.unwrap().calls, 0, "an early cancellation is not counted");
    for expected in [CircuitState::Closed, CircuitState::Open] {
        let permit = breaker.try_acquire().unwrap();
        clock.advance(Duration::from_millis(101));
        drop(permit);
        assert_eq!(breaker.state(), expected);
    }
}

#[test]
fn gradual_recovery_admits_a_growing_share_of_calls() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).gradual_recovery(Duration::from_secs(10)).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    clock.advance(OPEN);
    finish(&breaker, Verdict::Success);
    let admitted = || (0..100).filter(|_| breaker.try_acquire().is_ok()).count();
    let early = admitted();
    // The circuit is closed, and a caller who tries again at any time may be admitted.
    let rejection = (0..100).find_map(|_| breaker.try_acquire().err()).unwrap();
    assert_eq!(rejection.to_string(), "circuit breaker `db` is recovering and admits 10% of the calls");
    assert_eq!(
        (rejection.reason(), rejection.retry_after(), breaker.state()),
        ("circuit_recovering", None, CircuitState::Closed)
    );
    clock.advance(Duration::from_secs(5));
    let half = admitted();
    clock.advance(Duration::from_secs(6));
    assert!((8..=12).contains(&early) && (50..=60).contains(&half), "{early} {half}");
    assert_eq!(admitted(), 100);
}

// B8, B14: an open circuit admits no call and eventually recovers, whatever the clock does.
#[test]
fn clock_jumps_neither_keep_the_circuit_open_nor_admit_calls_early() {
    let day = Duration::from_secs(86_400);
    let clock = ManualClock::new();
    clock.advance(day);
    let breaker = consecutive(1).min_calls(1000).time_window(OPEN * 10).clock(clock.clone()).build().unwrap();
    for jump in [Duration::ZERO, OPEN / 2, day / 2, day * 3650 - OPEN * 9] {
        fail(&breaker);
        let opened = clock.now();
        clock.set(opened.saturating_sub(jump));
        assert!(retry_after(&breaker).unwrap() <= jump + OPEN, "open for longer by at most the backward jump");
        clock.set(opened.saturating_add(OPEN));
        finish(&breaker, Verdict::Success);
        assert_eq!(breaker.state(), CircuitState::Closed);
        clock.advance(jump);
    }
    clock.set(Nanos::MAX);
    fail(&breaker);
    finish(&breaker, Verdict::Success);
    assert_eq!(breaker.state(), CircuitState::Closed, "it recovers even at the end of the clock's range");
}

// B38
#[test]
fn several_probes_run_at_once_and_the_required_number_must_succeed() {
    let clock = ManualClock::new();
    let breaker = consecutive(1).probes(2).probe_successes(3).clock(clock.clone()).build().unwrap();
    fail(&breaker);
    clock.advance(OPEN);
    let (first, second) = (breaker.try_acquire().unwrap(), breaker.try_acquire().unwrap());
    assert!(breaker.try_acquire().is_err(), "two probe slots");
    first.success();
    second.success();
    assert_eq!((breaker.state(), breaker.snapshot().probes_succeeded), (CircuitState::HalfOpen, 2));
    finish(&breaker, Verdict::Success);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// G24
#[test]
fn a_panicking_observer_does_not_undo_the_transition() {
    let breaker = consecutive(1)
        .observer(|event: &tower_rampart::Event<'_>| {
            if let tower_rampart::EventKind::StateChanged { .. } = event.kind {
                panic!("deliberate panic");
            }
        })
        .build()
        .unwrap();
    let failing = std::panic::AssertUnwindSafe(|| fail(&breaker));
    assert!(std::panic::catch_unwind(failing).is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
    assert!(breaker.try_acquire().is_err());
}

// B37, G26; `tests/events.rs` checks the order.
#[test]
fn concurrent_transitions_are_reported_once_each() {
    let recorder = Recorder::new();
    let breaker = consecutive(5).observer(recorder.clone()).open_duration(Duration::from_millis(1)).build().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let breaker = &breaker;
            scope.spawn(move || {
                for call in 0..500_u32 {
                    if let Ok(permit) = breaker.try_acquire() {
                        permit.finish(if (call / 50 + thread) % 2 == 0 { Verdict::Failure } else { Verdict::Success });
                    }
                }
            });
        }
    });
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
    let closed = recorder.count("state half_open -> closed");
    let opened = recorder.count("state closed -> open");
    assert!(opened > 0 && opened - closed <= 1, "{opened} trips, {closed} recoveries");
}
