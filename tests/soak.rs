//! Random faults, cancellations, panics and configuration changes at full speed on every core. At
//! the end all permits are released, all counters add up, and memory has not grown.
//!
//! By default the test runs for a few seconds. `RAMPART_SOAK_SECONDS=300 cargo test --release
//! --test soak` runs it for 300 seconds.
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

/// Counts of admissions and terminal events, by pattern.
#[derive(Clone, Default)]
struct Counts(Arc<[[AtomicU64; 4]; PATTERNS.len()]>);

const ADMITTED: usize = 0;
const COMPLETED: usize = 1;
const CANCELLED: usize = 2;
const TIMED_OUT: usize = 3;

impl Observer for Counts {
    fn on_event(&self, event: &Event<'_>) {
        let counter = match event.kind {
            EventKind::Admitted => ADMITTED,
            EventKind::Completed { .. } => COMPLETED,
            EventKind::Cancelled { admitted: true, .. } => CANCELLED,
            // A timeout rejects calls after admitting them; the other patterns reject instead of
            // admitting.
            EventKind::Rejected { rejection } if rejection.was_attempted() => TIMED_OUT,
            _ => return,
        };
        if let Some(pattern) = PATTERNS.iter().position(|pattern| *pattern == event.pattern) {
            self.0[pattern][counter].fetch_add(1, SeqCst);
        }
    }
}

/// A request that scripts the service's behaviour.
#[derive(Clone, Copy)]
enum Request {
    Respond,
    RespondLater(Duration),
    Fail,
    Hang,
    Panic,
}

impl Request {
    fn draw(rng: &mut SmallRng) -> Self {
        match rng.random_range(0..100) {
            0..60 => Self::Respond,
            60..80 => Self::RespondLater(Duration::from_micros(rng.random_range(1..3000))),
            80..94 => Self::Fail,
            94..98 => Self::Hang,
            _ => Self::Panic,
        }
    }
}

async fn serve(request: Request) -> Result<(), BoxError> {
    match request {
        Request::Respond => Ok(()),
        Request::RespondLater(delay) => {
            tokio::time::sleep(delay).await;
            Ok(())
        }
        Request::Fail => Err("scripted failure".into()),
        Request::Hang => std::future::pending().await,
        Request::Panic => std::panic::panic_any("deliberate panic"),
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
    fn change_a_setting(&self, rng: &mut SmallRng) {
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

/// Resident memory in bytes, where the system reports it.
fn resident() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * 4096)
}

/// Runs this many calls per task while settings change.
async fn storm(handles: &Arc<Handles>, counts: &Counts, seed: u64, calls: u64) {
    const TASKS: u64 = 32;
    let done = Arc::new(AtomicBool::new(false));
    let changer = {
        let (handles, done) = (Arc::clone(handles), Arc::clone(&done));
        tokio::spawn(async move {
            let mut rng = SmallRng::seed_from_u64(seed);
            while !done.load(SeqCst) {
                handles.change_a_setting(&mut rng);
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
    let partial = handles.breaker.layer().layer(handles.bulkhead.layer().layer(service_fn(serve)));
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (stacked, partial) = (stacked.clone(), partial.clone());
            tokio::spawn(async move {
                let mut rng = SmallRng::seed_from_u64(seed ^ (task + 1).wrapping_mul(0x9E37_79B9));
                for _ in 0..calls {
                    let request = Request::draw(&mut rng);
                    let call = match rng.random_range(0..3) {
                        0 => partial.clone().oneshot(request).boxed(),
                        _ => stacked.clone().oneshot(request).boxed(),
                    };
                    let call = AssertUnwindSafe(call).catch_unwind();
                    match rng.random_range(0..10) {
                        0 => drop(call),
                        1 => {
                            let patience = Duration::from_micros(rng.random_range(1..2000));
                            let _ = tokio::time::timeout(patience, call).await;
                        }
                        // Without a timeout in the stack, only the caller ends a call that hangs.
                        _ => drop(tokio::time::timeout(Duration::from_millis(20), call).await),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    done.store(true, SeqCst);
    changer.await.unwrap();
}

fn assert_nothing_leaked(handles: &Handles, counts: &Counts) {
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
        assert!(admitted > 0, "{pattern:?} admitted nothing");
        assert_eq!(admitted, completed + cancelled + timed_out, "{pattern:?}: each call has one terminal event");
    }
}

#[test]
#[allow(clippy::disallowed_methods)] // the test's own duration, not a decision of the library
fn a_storm_of_faults_and_changes_leaks_nothing() {
    let default_hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Keep the service's deliberate panics out of the output.
        if info.payload().downcast_ref::<&str>() != Some(&"deliberate panic") {
            default_hook(info);
        }
    }));
    let seconds = std::env::var("RAMPART_SOAK_SECONDS").ok().map(|seconds| seconds.parse::<u64>().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
    let counts = Counts::default();
    let handles = Arc::new(Handles::new(&counts));
    runtime.block_on(async {
        storm(&handles, &counts, 1, 600).await;
        assert_nothing_leaked(&handles, &counts);
        let before = resident();
        let begun = tokio::time::Instant::now();
        let mut round = 1;
        loop {
            round += 1;
            handles.breaker.close();
            storm(&handles, &counts, round, 600).await;
            assert_nothing_leaked(&handles, &counts);
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
