//! Random faults, cancellations, panics and changes of every setting, at full speed on every core: at the end all permits
//! are home, all counters add up, and the memory is where it was.
//!
//! The test ends after so many calls, a few seconds' worth. `RAMPART_SOAK_SECONDS=300 cargo test --release --test soak`
//! goes on for that long.
#![cfg(feature = "tower")]

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tower::{Layer, ServiceExt, service_fn};
use tower_rampart::{
    BoxError, Pattern,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    event::{Event, EventKind, Observer},
    rate_limit::{Rate, RateLimiter},
    retry::{Backoff, Retry, RetryBudget},
    stack,
};

const PATTERNS: [Pattern; 5] =
    [Pattern::CircuitBreaker, Pattern::Retry, Pattern::Timeout, Pattern::Bulkhead, Pattern::RateLimiter];

/// Beginnings and ends of calls, by pattern.
#[derive(Clone, Default)]
struct Counts(Arc<[[AtomicU64; 4]; PATTERNS.len()]>);

const ADMITTED: usize = 0;
const COMPLETED: usize = 1;
const CANCELLED: usize = 2;
const TIMED_OUT: usize = 3;

impl Observer for Counts {
    fn on_event(&self, event: &Event<'_>) {
        let what = match event.kind {
            EventKind::Admitted => ADMITTED,
            EventKind::Completed { .. } => COMPLETED,
            EventKind::Cancelled { admitted: true, .. } => CANCELLED,
            // A timeout rejects calls that it had admitted before; the others refuse instead of admitting.
            EventKind::Rejected { rejection } if rejection.was_attempted() => TIMED_OUT,
            _ => return,
        };
        if let Some(pattern) = PATTERNS.iter().position(|pattern| *pattern == event.pattern) {
            self.0[pattern][what].fetch_add(1, SeqCst);
        }
    }
}

/// What the service is told to do.
#[derive(Clone, Copy)]
enum Ask {
    Answer,
    AnswerLater(Duration),
    Fail,
    Hang,
    Panic,
}

impl Ask {
    fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..100) {
            0..60 => Self::Answer,
            60..80 => Self::AnswerLater(Duration::from_micros(rng.random_range(1..3000))),
            80..94 => Self::Fail,
            94..98 => Self::Hang,
            _ => Self::Panic,
        }
    }
}

async fn serve(ask: Ask) -> Result<(), BoxError> {
    match ask {
        Ask::Answer => Ok(()),
        Ask::AnswerLater(delay) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        Ask::Fail => Err("told to fail".into()),
        Ask::Hang => std::future::pending().await,
        Ask::Panic => std::panic::panic_any("told to"),
    }
}

struct Handles {
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    limiter: RateLimiter,
    retry: Retry,
    budget: RetryBudget,
}

impl Handles {
    fn new(counts: &Counts) -> Self {
        let breaker = CircuitBreaker::builder("b").count_window(50).slow_calls(Duration::from_millis(5), 0.9);
        let breaker = breaker.open_duration(Duration::from_millis(2)).probe_timeout(Duration::from_millis(20));
        let bulkhead = Bulkhead::builder("k").max_concurrent(8).max_wait(Duration::from_millis(2)).max_queue(16);
        let limiter = RateLimiter::builder("l", Rate::per_second(100_000)).max_wait(Duration::from_millis(1));
        let budget = RetryBudget::default();
        let backoff = Backoff::exponential(Duration::from_micros(100), Duration::from_millis(2));
        let retry = Retry::builder("r").max_attempts(3).backoff(backoff).budget(&budget);
        Self {
            breaker: breaker.observer(counts.clone()).build().unwrap(),
            bulkhead: bulkhead.observer(counts.clone()).build().unwrap(),
            limiter: limiter.observer(counts.clone()).build().unwrap(),
            retry: retry.observer(counts.clone()).build().unwrap(),
            budget,
        }
    }

    /// Changes one setting.
    fn disturb(&self, rng: &mut SmallRng) {
        match rng.random_range(0..24) {
            0 => self.bulkhead.resize(rng.random_range(1..16)).unwrap(),
            1 => self.limiter.set_rate(Rate::per_second(rng.random_range(1000..200_000)), 100).unwrap(),
            2 => self.breaker.open_for(Duration::from_micros(rng.random_range(1..3000))),
            3 => self.breaker.half_open(),
            4 => self.breaker.force_open(),
            5 => self.breaker.disable(),
            6 => self.retry.set_max_attempts(rng.random_range(1..5)).unwrap(),
            _ => self.breaker.close(),
        }
    }
}

/// Resident memory, in bytes, where the system tells.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4096)
}

/// Runs so many calls per task, and disturbs them.
async fn storm(handles: &Arc<Handles>, counts: &Counts, seed: u64, calls: u64) {
    const TASKS: u64 = 32;
    let over = Arc::new(AtomicBool::new(false));
    let disturber = {
        let (handles, over) = (Arc::clone(handles), Arc::clone(&over));
        tokio::spawn(async move {
            let mut rng = SmallRng::seed_from_u64(seed);
            while !over.load(SeqCst) {
                handles.disturb(&mut rng);
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        })
    };
    let client = stack::client("c")
        .observer(counts.clone())
        .total_timeout(Duration::from_millis(12))
        .attempt_timeout(Duration::from_millis(6))
        .retry(&handles.retry)
        .rate_limiter(&handles.limiter)
        .circuit_breaker(&handles.breaker)
        .bulkhead(&handles.bulkhead)
        .build()
        .unwrap();
    let stacked = client.layer(service_fn(serve));
    let apart = handles.breaker.layer().layer(handles.bulkhead.layer().layer(service_fn(serve)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (stacked, apart) = (stacked.clone(), apart.clone());
            tokio::spawn(async move {
                let mut rng = SmallRng::seed_from_u64(seed ^ (task + 1).wrapping_mul(0x9E37_79B9));
                for _ in 0..calls {
                    let ask = Ask::draw(&mut rng);
                    let call = match rng.random_range(0..3) {
                        0 => apart.clone().oneshot(ask).boxed(),
                        _ => stacked.clone().oneshot(ask).boxed(),
                    };
                    let call = AssertUnwindSafe(call).catch_unwind();
                    match rng.random_range(0..10) {
                        0 => drop(call),
                        1 => {
                            let patience = Duration::from_micros(rng.random_range(1..2000));
                            let _ = tokio::time::timeout(patience, call).await;
                        }
                        // Nothing but the callers' patience ends what hangs outside of a timeout.
                        _ => drop(tokio::time::timeout(Duration::from_millis(20), call).await),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    over.store(true, SeqCst);
    disturber.await.unwrap();
}

fn all_is_home(handles: &Handles, counts: &Counts) {
    let bulkhead = handles.bulkhead.snapshot();
    assert_eq!((bulkhead.in_flight, bulkhead.waiting), (0, 0), "permits");
    handles.breaker.close();
    handles.breaker.half_open();
    assert_eq!(handles.breaker.snapshot().probes_in_flight, 0, "probes");
    let budget = handles.budget.snapshot();
    assert!(budget.balance >= 0.0 && budget.balance <= budget.capacity, "{budget:?}");
    for (pattern, counts) in PATTERNS.iter().zip(counts.0.iter()) {
        let [admitted, completed, cancelled, timed_out] = counts.each_ref().map(|count| count.load(SeqCst));
        let timed_out = if *pattern == Pattern::Timeout { timed_out } else { 0 };
        assert!(admitted > 0, "{pattern:?} saw nothing");
        assert_eq!(admitted, completed + cancelled + timed_out, "{pattern:?}: each call has one end");
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // the length of the storm is no decision of the library
fn everything_at_once() {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The service's own panics are meant.
        if info.payload().downcast_ref::<&str>() != Some(&"told to") {
            loud(info);
        }
    }));
    let seconds = std::env::var("RAMPART_SOAK_SECONDS").ok().map(|seconds| seconds.parse::<u64>().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let counts = Counts::default();
    let handles = Arc::new(Handles::new(&counts));
    runtime.block_on(async {
        storm(&handles, &counts, 1, 600).await;
        all_is_home(&handles, &counts);
        let before = resident();
        let begun = tokio::time::Instant::now();
        let mut round = 1;
        loop {
            round += 1;
            handles.breaker.close();
            storm(&handles, &counts, round, 600).await;
            all_is_home(&handles, &counts);
            if seconds.is_none_or(|seconds| begun + Duration::from_secs(seconds) <= tokio::time::Instant::now()) {
                break;
            }
        }
        if let (Some(before), Some(after)) = (before, resident()) {
            let grown = after.saturating_sub(before) >> 20;
            assert!(grown < 8, "{grown} MiB more than after the first round");
        }
        println!("{round} rounds; {:?}", counts.0);
    });
}
