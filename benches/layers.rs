//! The cost of a call through the handle and through the layer, around a service that responds
//! immediately.
//!
//! `cargo bench --bench layers`. Compare figures of one run only: they include the machine's noise.
#![allow(missing_docs)]

#[path = "support/service.rs"]
mod service;

use std::time::Duration;

use divan::{Bencher, black_box};
use service::{Immediate, call};
use tower::{Layer, Service};
use tower_rampart::{
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    fallback::Fallback,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Retry, RetryBudget},
    stack,
    timeout::Timeout,
};

fn main() {
    divan::main();
}

fn bench<L>(bencher: Bencher<'_, '_>, layer: &L)
where
    L: Layer<Immediate>,
    L::Service: Service<u64>,
{
    let mut service = layer.layer(Immediate);
    bencher.bench_local(|| assert!(call(&mut service)));
}

fn count_window() -> CircuitBreaker {
    CircuitBreaker::builder("b").no_time_window().count_window(100).build().unwrap()
}

mod handles {
    use super::*;

    #[divan::bench]
    fn breaker_count_window_clean(bencher: Bencher<'_, '_>) {
        let breaker = count_window();
        (0..200).for_each(|_| breaker.try_acquire().unwrap().success());
        bencher.bench_local(|| black_box(&breaker).try_acquire().unwrap().success());
    }

    #[divan::bench]
    fn breaker_time_window(bencher: Bencher<'_, '_>) {
        let breaker = CircuitBreaker::new("b");
        bencher.bench_local(|| black_box(&breaker).try_acquire().unwrap().success());
    }

    #[divan::bench]
    fn breaker_rejection(bencher: Bencher<'_, '_>) {
        let breaker = count_window();
        breaker.open_for(Duration::from_secs(3600));
        bencher.bench_local(|| black_box(&breaker).try_acquire().is_err());
    }

    #[divan::bench]
    fn bulkhead(bencher: Bencher<'_, '_>) {
        let bulkhead = Bulkhead::new("k", 8).unwrap();
        bencher.bench_local(|| drop(black_box(&bulkhead).try_acquire().unwrap()));
    }

    #[divan::bench]
    fn limiter(bencher: Bencher<'_, '_>) {
        let limiter = RateLimiter::new("l", Rate::per_second(60_000_000)).unwrap();
        bencher.bench_local(|| black_box(&limiter).check().is_ok());
    }

    #[divan::bench]
    fn limiter_rejection(bencher: Bencher<'_, '_>) {
        let limiter = RateLimiter::new("l", Rate::per_hour(1)).unwrap();
        limiter.check().unwrap();
        bencher.bench_local(|| black_box(&limiter).check().is_err());
    }

    #[divan::bench]
    fn keyed_limiter(bencher: Bencher<'_, '_>) {
        let limiter = KeyedRateLimiter::<u64>::builder("u", Rate::per_second(10_000)).build().unwrap();
        let mut key = 0;
        bencher.bench_local(|| {
            key = (key + 1) % 1000;
            black_box(&limiter).check_key(&key).is_ok()
        });
    }

    #[divan::bench]
    fn retry_budget_full(bencher: Bencher<'_, '_>) {
        let budget = RetryBudget::default();
        bencher.bench_local(|| black_box(&budget).deposit());
    }
}

mod layers {
    use super::*;

    #[divan::bench]
    fn bare_service(bencher: Bencher<'_, '_>) {
        bench(bencher, &tower_layer::Identity::new());
    }

    #[divan::bench]
    fn breaker_count_window(bencher: Bencher<'_, '_>) {
        bench(bencher, &count_window().layer());
    }

    #[divan::bench]
    fn breaker_time_window(bencher: Bencher<'_, '_>) {
        bench(bencher, &CircuitBreaker::new("b").layer());
    }

    #[divan::bench]
    fn retry(bencher: Bencher<'_, '_>) {
        bench(bencher, &Retry::attempts("r", 3).unwrap().layer());
    }

    #[divan::bench]
    fn timeout(bencher: Bencher<'_, '_>) {
        bench(bencher, &Timeout::new("t", Duration::from_secs(1)).layer());
    }

    #[divan::bench]
    fn bulkhead(bencher: Bencher<'_, '_>) {
        bench(bencher, &Bulkhead::new("k", 8).unwrap().layer());
    }

    #[divan::bench]
    fn limiter(bencher: Bencher<'_, '_>) {
        bench(bencher, &RateLimiter::new("l", Rate::per_second(60_000_000)).unwrap().layer());
    }

    #[divan::bench]
    fn fallback(bencher: Bencher<'_, '_>) {
        bench(bencher, &Fallback::value("f", 1_u64));
    }

    #[divan::bench]
    fn client_stack(bencher: Bencher<'_, '_>) {
        bench(bencher, &stack::client("c").build().unwrap());
    }
}
