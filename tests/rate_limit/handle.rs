//! The handle, without Tower.

use std::time::Duration;

use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower_rampart::{
    Rejection,
    clock::{ManualClock, Nanos},
    rate_limit::{Rate, RateLimiter},
};

use crate::support::{BoxError, recorder::Recorder};

const MS: Duration = Duration::from_millis(1);

fn retry_after(result: Result<(), Rejection>) -> Option<Duration> {
    match result {
        Err(Rejection::RateLimited { retry_after, .. }) => retry_after.map(Into::into),
        other => panic!("not rejected: {other:?}"),
    }
}

// L1, L2, L3, L8
#[test]
fn a_burst_passes_and_the_rejection_tells_when_the_next_call_passes() {
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder("api", Rate::per_second(10)).burst(5).clock(clock.clone()).build().unwrap();
    assert!((0..5).all(|_| limiter.check().is_ok()), "the burst is available from the start");
    assert_eq!(retry_after(limiter.check()), Some(100 * MS));
    clock.advance(100 * MS - Duration::from_nanos(1));
    assert_eq!(retry_after(limiter.check()), Some(Duration::from_nanos(1)));
    clock.advance(Duration::from_nanos(1));
    assert!(limiter.check().is_ok());
    assert!(limiter.check().is_err());
}

// L4, L5, L6, L7
#[test]
fn no_interval_admits_more_than_the_burst_plus_the_rate() {
    for count in [1, 3, 7, 10] {
        let clock = ManualClock::new();
        let limiter =
            RateLimiter::builder("api", Rate::per_second(count)).burst(4).clock(clock.clone()).build().unwrap();
        let mut admitted = Vec::new();
        for step in 0..10_000_u64 {
            // Idle for a while halfway through.
            if step == 5_000 {
                clock.advance(Duration::from_secs(100));
            }
            clock.advance(10 * MS);
            if limiter.check().is_ok() {
                admitted.push(step * 10 + if step >= 5_000 { 100_000 } else { 0 });
            }
        }
        for (from, start) in admitted.iter().enumerate() {
            for (to, end) in admitted.iter().enumerate().skip(from).take(40) {
                let allowed = 4.0 + (end - start) as f64 / 1000.0 * f64::from(count);
                assert!((to - from + 1) as f64 <= allowed + 1e-9, "{count}/s: {} in {} ms", to - from + 1, end - start);
            }
        }
        let expected = 200 * count as usize / 2;
        assert!(admitted.len() >= expected - expected / 20, "{} of {expected}", admitted.len());
    }
}

// L9, L10
#[test]
fn clock_jumps_are_harmless() {
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).burst(2).clock(clock.clone()).build().unwrap();
    clock.advance(Duration::from_secs(1000));
    assert!(limiter.check().is_ok() && limiter.check().is_ok());
    clock.set(Nanos::new(0));
    assert!(limiter.check().is_err());
    clock.set(Nanos::MAX);
    let _ = limiter.check();
    clock.advance(Duration::MAX);
    let _ = limiter.check();
}

// L11, L12, L27
#[test]
fn clones_share_the_tokens_and_two_limiters_do_not() {
    let limiter = RateLimiter::new("api", Rate::per_hour(5)).unwrap();
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let limiter = limiter.clone();
                scope.spawn(move || (0..188).filter(|_| limiter.check().is_ok()).count())
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(admitted, 5, "of 1504");
    assert!(RateLimiter::new("api", Rate::per_hour(5)).unwrap().check().is_ok());
}

// L15, L16
#[tokio::test(start_paused = true)]
async fn waiters_are_paced_in_order_of_arrival() {
    let limiter = RateLimiter::smooth("api", Rate::per_second(10), Duration::from_secs(10)).unwrap();
    let began = Instant::now();
    let calls = (0..5_u32).map(|caller| {
        let limiter = limiter.clone();
        async move {
            limiter.acquire(1).await.unwrap();
            (caller, began.elapsed())
        }
    });
    let completed = futures_util::future::join_all(calls).await;
    for (caller, elapsed) in completed {
        let due = 100 * MS * caller;
        assert!(elapsed >= due && elapsed <= due + 2 * MS, "caller {caller} after {elapsed:?}");
    }
}

// L17
#[tokio::test(start_paused = true)]
async fn a_wait_above_the_limit_is_rejected_immediately_and_takes_no_token() {
    let limiter = RateLimiter::smooth("api", Rate::per_second(1), Duration::from_secs(1)).unwrap();
    limiter.acquire(1).await.unwrap();
    let mut waiting = task::spawn(limiter.acquire(1));
    assert_pending!(waiting.poll());
    let began = Instant::now();
    assert_eq!(retry_after(limiter.acquire(1).await), Some(Duration::from_secs(2)));
    assert_eq!(began.elapsed(), Duration::ZERO);
    advance(Duration::from_secs(1) + MS).await;
    assert!(assert_ready!(waiting.poll()).is_ok());
    advance(Duration::from_secs(1)).await;
    assert!(limiter.check().is_ok(), "the rejected call took nothing");
}

// L18
#[tokio::test(start_paused = true)]
async fn a_cancelled_wait_delays_no_other_caller() {
    let recorder = Recorder::new();
    let limiter = RateLimiter::builder("api", Rate::per_second(1))
        .burst(1)
        .max_wait(Duration::from_secs(10))
        .observer(recorder.clone())
        .build()
        .unwrap();
    limiter.acquire(1).await.unwrap();
    let mut waiting: Vec<_> = (0..3).map(|_| task::spawn(limiter.acquire(1))).collect();
    for call in &mut waiting {
        assert_pending!(call.poll());
    }
    // The second of three.
    drop(waiting.remove(1));
    let began = Instant::now();
    limiter.acquire(1).await.unwrap();
    assert!(began.elapsed() <= Duration::from_secs(2) + 2 * MS, "{:?}", began.elapsed());
    assert_eq!(recorder.count("cancelled waiting"), 1);
}

// L19
#[test]
fn a_cost_is_all_or_nothing_and_one_above_the_burst_never_passes() {
    let limiter = RateLimiter::builder("api", Rate::per_hour(10)).burst(10).build().unwrap();
    assert!(limiter.check_n(8).is_ok());
    assert!(retry_after(limiter.check_n(3)).is_some());
    assert!(limiter.check_n(2).is_ok(), "the rejected call took nothing");
    assert_eq!(retry_after(limiter.check_n(11)), None, "never");
    let rejection = limiter.check_n(11).unwrap_err();
    assert!(rejection.to_string().contains("exceeds the burst of 10"), "{rejection}");
}

// L20, L23
#[test]
fn peeking_takes_no_token_and_the_snapshot_shows_the_remaining_ones() {
    let limiter = RateLimiter::builder("api", Rate::per_hour(3600)).burst(3).build().unwrap();
    assert!((0..10).all(|_| limiter.peek(1).is_ok()));
    assert!(limiter.check_n(2).is_ok());
    let snapshot = limiter.snapshot();
    assert_eq!((snapshot.burst, snapshot.available), (3, 1));
    assert!(snapshot.full_after <= Duration::from_secs(2));
    assert!(limiter.peek(2).is_err());
    let Err(Rejection::RateLimited { limit, .. }) = limiter.check_n(2) else { panic!("not rejected") };
    assert_eq!(limit, 3);
}

// L21
#[test]
fn the_token_of_an_unsent_request_can_be_refunded() {
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder("api", Rate::per_hour(2)).burst(2).clock(clock).build().unwrap();
    let (first, second) = (limiter.try_acquire(1).unwrap(), limiter.try_acquire(1).unwrap());
    assert!(limiter.check().is_err());
    first.refund();
    assert!(limiter.check().is_ok());
    drop(second);
    assert!(limiter.check().is_err(), "a dropped token stays spent");
}

// L29
#[test]
fn rates_read_as_they_mean() {
    let clock = ManualClock::new();
    let limiter =
        RateLimiter::builder("api", Rate::new(2, Duration::from_secs(10))).clock(clock.clone()).build().unwrap();
    assert!(limiter.check().is_ok() && limiter.check().is_ok());
    assert_eq!(retry_after(limiter.check()), Some(Duration::from_secs(5)));
    assert_eq!(Rate::per_minute(60).to_string(), "60 per 60s");
}

// L33
#[test]
fn changing_the_rate_keeps_the_debt_in_tokens() {
    let clock = ManualClock::new();
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).burst(10).clock(clock.clone()).build().unwrap();
    (0..10).for_each(|_| limiter.check().unwrap());
    limiter.set_rate(Rate::per_second(100), 10).unwrap();
    assert_eq!(
        retry_after(limiter.check()),
        Some(10 * MS),
        "the debt in tokens is kept, and the bucket refills faster"
    );
    limiter.set_rate(Rate::per_minute(1), 10).unwrap();
    assert_eq!(retry_after(limiter.check()), Some(Duration::from_secs(60)));
    assert_eq!(limiter.set_rate(Rate::per_second(0), 1).unwrap_err().field(), "rate");
    assert_eq!(limiter.snapshot().rate, Rate::per_minute(1), "an invalid rate changes nothing");
}

#[test]
fn the_rate_can_change_during_concurrent_calls() {
    let limiter = RateLimiter::builder("api", Rate::per_hour(100)).burst(100).build().unwrap();
    let admitted: usize = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..4).map(|_| scope.spawn(|| (0..200).filter(|_| limiter.check().is_ok()).count())).collect();
        for round in 0..200 {
            limiter.set_rate(Rate::per_hour(50 + round % 100), 100).unwrap();
        }
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // The hourly rate adds no token in this time; converting the debt rounds by less than a token.
    assert!((99..=101).contains(&admitted), "{admitted}");
}

#[test]
fn a_configuration_error_names_the_field() {
    let field = |rate, burst| RateLimiter::builder("api", rate).burst(burst).build().unwrap_err().field();
    assert_eq!(field(Rate::per_second(0), 1), "rate");
    assert_eq!(field(Rate::new(1, Duration::ZERO), 1), "rate");
    assert_eq!(field(Rate::per_second(1), 0), "burst");
    assert_eq!(field(Rate::per_second(1), u32::MAX), "burst");
    assert_eq!(field(Rate::new(1, Duration::MAX), 1), "rate");
    assert_eq!(field(Rate::new(1, Duration::from_secs(86_400 * 365)), 100), "burst");
}

#[tokio::test(start_paused = true)]
async fn run_returns_a_flat_error() {
    let recorder = Recorder::new();
    let limiter = RateLimiter::builder("api", Rate::per_second(1)).observer(recorder.clone()).build().unwrap();
    limiter.run(async { Ok::<_, BoxError>(()) }).await.unwrap();
    let error = limiter.run(async { Ok::<_, BoxError>(()) }).await.unwrap_err();
    assert!(error.downcast_ref::<Rejection>().is_some());
    assert_eq!(recorder.take(), ["admitted", "completed success", "rejected rate_limited"]);
}
