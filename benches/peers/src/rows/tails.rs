//! Tail latencies when more threads than processors share one breaker: do threads wait for a lock
//! holder that is not running?

use std::{
    hint::black_box,
    sync::{Arc, Barrier, Mutex},
    time::{Duration, Instant},
};

use failsafe::CircuitBreaker as _;
use hdrhistogram::Histogram;
use tower_rampart::circuit_breaker::CircuitBreaker;

pub struct Tail {
    pub name: &'static str,
    /// Nanoseconds per operation, including two clock readings.
    pub latencies: Histogram<u64>,
}

pub const THREADS: usize = 8;

/// Times each operation of eight threads.
pub fn tails(quick: bool) -> Vec<Tail> {
    let time = if quick { Duration::from_millis(20) } else { Duration::from_secs(3) };
    let ours = CircuitBreaker::builder("b").no_time_window().count_window(100).build().expect("the settings are valid");
    let recloser = recloser::Recloser::custom().error_rate(0.5).closed_len(100).build();
    let failsafe = failsafe::Config::new().build();
    let mutex = Mutex::new(0_u64);
    vec![
        tail("timing overhead", time, || {}),
        tail("rampart, count window", time, || {
            if let Ok(permit) = black_box(&ours).try_acquire() {
                permit.success();
            }
        }),
        tail("recloser", time, || drop(black_box(black_box(&recloser).call(|| Ok::<_, ()>(()))))),
        tail("failsafe", time, || drop(black_box(black_box(&failsafe).call(|| Ok::<_, ()>(()))))),
        tail("a mutex around a counter", time, || *black_box(&mutex).lock().expect("no thread panics") += 1),
    ]
}

fn tail(name: &'static str, time: Duration, operation: impl Fn() + Sync) -> Tail {
    let start = Arc::new(Barrier::new(THREADS));
    let all = Mutex::new(histogram());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut own = histogram();
                start.wait();
                let started = Instant::now();
                while started.elapsed() < time {
                    for _ in 0..100 {
                        let before = Instant::now();
                        operation();
                        own.saturating_record(before.elapsed().as_nanos() as u64);
                    }
                }
                all.lock().expect("no thread panics").add(own).expect("the histograms have the same bounds");
            });
        }
    });
    Tail { name, latencies: all.into_inner().expect("no thread panics") }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(10_000_000_000, 3).expect("the settings are valid")
}
