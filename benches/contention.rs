//! The cost of structures and layers when many threads share one instance.
//!
//! `cargo bench --bench contention` prints the tables; `-- --quick` is a smoke test. In each row
//! all threads share one instance. Next to each structure is the obvious implementation, the same
//! structure in a mutex.
#![allow(missing_docs)]

#[path = "support/harness.rs"]
mod harness;
#[path = "support/locked.rs"]
mod locked;
#[path = "support/processor.rs"]
mod processor;
#[path = "support/service.rs"]
mod service;
#[path = "support/statistics.rs"]
mod statistics;

use std::{hint::black_box, sync::Arc, time::Duration};

use harness::{Candidate, Effort, Setting::Shared, Worker};
use service::{Immediate, calls};
use tower::Layer;
use tower_rampart::{
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    fallback::Fallback,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Retry, RetryBudget},
    stack,
    timeout::Timeout,
};

const THREADS: [usize; 5] = [1, 2, 4, 8, 16];

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let effort = if quick { Effort::QUICK } else { Effort { rounds: 15, ..Effort::FULL } };
    table("structures", &structures(), effort);
    table("layers, per call", &layers(), effort);
}

fn table(name: &str, candidates: &[Candidate], effort: Effort) {
    println!("\n### {name}\n");
    println!(
        "| | ns, 1 thread | M/s: 1 | 2 | 4 | 8 | 16 threads | 2-thread efficiency |\n|---|---|---|---|---|---|---|---|"
    );
    for one in harness::measure(candidates, &THREADS.map(Shared), effort) {
        let rate = |threads| one.rate(Shared(threads)).unwrap_or(f64::NAN);
        let rates: Vec<String> = THREADS.iter().map(|threads| format!("{:.1}", rate(*threads))).collect();
        let nanos = one.nanos(Shared(1)).unwrap_or(f64::NAN);
        println!("| {} | {nanos:.2} | {} | {:.0}% |", one.name, rates.join(" | "), 50.0 * rate(2) / rate(1));
    }
}

/// Returns a worker that passes the number of the call to the closure.
fn worker(mut operation: impl FnMut(u64) + Send + 'static) -> Worker {
    let mut call = 0;
    Box::new(move |operations| {
        for _ in 0..operations {
            call += 1;
            operation(call);
        }
    })
}

/// A candidate whose threads share the value that `make` returns.
fn shared<T: Send + Sync + 'static>(name: &'static str, make: fn() -> T, operation: fn(&T, u64)) -> Candidate {
    Candidate::new(name, move || {
        let shared = Arc::new(make());
        move || {
            let shared = Arc::clone(&shared);
            worker(move |call| operation(black_box(&shared), call))
        }
    })
}

fn count_window() -> CircuitBreaker {
    let breaker = CircuitBreaker::builder("b").no_time_window().count_window(100).build().unwrap();
    (0..200).for_each(|_| breaker.try_acquire().unwrap().success());
    breaker
}

fn open() -> CircuitBreaker {
    let breaker = count_window();
    breaker.open_for(Duration::from_secs(3600));
    breaker
}

fn plenty() -> RateLimiter {
    RateLimiter::new("l", Rate::per_second(60_000_000)).unwrap()
}

fn succeed(breaker: &CircuitBreaker, _: u64) {
    breaker.try_acquire().unwrap().success();
}

/// One call in a hundred fails.
fn mostly_succeed(breaker: &CircuitBreaker, call: u64) {
    let permit = breaker.try_acquire().unwrap();
    if call.is_multiple_of(100) { permit.failure() } else { permit.success() }
}

fn structures() -> Vec<Candidate> {
    vec![
        shared("breaker, count window, clean", count_window, succeed),
        shared("breaker, count window, 1% failures", count_window, mostly_succeed),
        shared("breaker, time window, clean", || CircuitBreaker::new("b"), succeed),
        shared("breaker, time window, 1% failures", || CircuitBreaker::new("b"), mostly_succeed),
        shared("breaker, rejection", open, |breaker, _| assert!(breaker.try_acquire().is_err())),
        shared(
            "a count window in a mutex",
            || locked::Window::new(100),
            |window, call| {
                assert!(window.record(call.is_multiple_of(100)));
            },
        ),
        shared("limiter, admission", plenty, |limiter, _| limiter.check().unwrap()),
        shared(
            "limiter, rejection",
            || {
                let limiter = RateLimiter::new("l", Rate::per_hour(1)).unwrap();
                limiter.check().unwrap();
                limiter
            },
            |limiter, _| assert!(limiter.check().is_err()),
        ),
        shared("a token bucket in a mutex", || locked::Bucket::new(60e6), |bucket, _| assert!(bucket.take())),
        shared(
            "keyed limiter, 1000 keys",
            || KeyedRateLimiter::<u64>::builder("u", Rate::per_second(10_000)).build().unwrap(),
            |limiter, call| drop(black_box(limiter.check_key(&(call % 1000)))),
        ),
        shared("bulkhead", || Bulkhead::new("k", 64).unwrap(), |bulkhead, _| drop(bulkhead.try_acquire().unwrap())),
        shared(
            "a count of permits in a mutex",
            || locked::Permits::new(64),
            |permits, _| {
                assert!(permits.acquire());
                permits.release();
            },
        ),
        shared("budget, full", RetryBudget::default, |budget, _| budget.deposit()),
        shared("budget, withdrawal and return", RetryBudget::default, |budget, _| {
            if budget.try_withdraw() {
                budget.give_back();
            }
        }),
    ]
}

/// A candidate with the layer around a service that responds immediately; each thread has a clone.
fn layer<L>(name: &'static str, make: fn() -> L) -> Candidate
where
    L: Layer<Immediate> + 'static,
    L::Service: tower::Service<u64> + Clone + Send + Sync + 'static,
{
    Candidate::new(name, move || {
        let service = make().layer(Immediate);
        move || calls(service.clone())
    })
}

fn layers() -> Vec<Candidate> {
    vec![
        layer("bare service", tower::layer::util::Identity::new),
        layer("circuit breaker, count window", || count_window().layer()),
        layer("circuit breaker, time window", || CircuitBreaker::new("b").layer()),
        layer("retry", || Retry::attempts("r", 3).unwrap().layer()),
        layer("timeout", || Timeout::new("t", Duration::from_secs(1)).layer()),
        layer("bulkhead", || Bulkhead::new("k", 64).unwrap().layer()),
        layer("rate limiter", || plenty().layer()),
        layer("fallback", || Fallback::value("f", 1_u64)),
        layer("client stack", || stack::client("c").build().unwrap()),
        layer("client stack, count window", || stack::client("c").circuit_breaker(&count_window()).build().unwrap()),
        layer("server stack", || stack::server("s").build().unwrap()),
    ]
}
