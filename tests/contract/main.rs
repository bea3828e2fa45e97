//! What every layer must get right (the contract's items G), asked of every layer in every readiness mode.
//!
//! The table at the end is the list of layers: a new one is a line. A layer that is missing there is noticed by
//! `no_layer_is_missing`. What is particular to a pattern is in the pattern's own tests.

#[path = "../support/mod.rs"]
mod support;

mod checks;
mod plain;

use std::time::Duration;

use tower_rampart::{
    bulkhead::{Bulkhead, BulkheadLayer},
    circuit_breaker::{CircuitBreaker, CircuitBreakerLayer},
    fallback::Fallback,
    rate_limit::{KeyedRateLimiter, Rate, RateLimitLayer, RateLimiter},
    retry::{Retry, RetryLayer},
    stack,
    timeout::{Timeout, TimeoutLayer},
};

fn breaker() -> CircuitBreaker {
    CircuitBreaker::new("b")
}

/// Of one, so that whatever is not given back is missed.
fn bulkhead() -> Bulkhead {
    Bulkhead::queued("k", 1, Duration::from_secs(1)).unwrap()
}

/// More in a burst than any check has calls.
fn limiter() -> RateLimiter {
    RateLimiter::builder("l", Rate::per_second(10_000)).max_wait(Duration::from_secs(1)).build().unwrap()
}

/// One attempt, so that results pass as they are.
fn retry() -> Retry {
    Retry::attempts("r", 1).unwrap()
}

fn keyed() -> KeyedRateLimiter<str> {
    KeyedRateLimiter::builder("u", Rate::per_second(10_000)).build().unwrap()
}

/// The tests of `checks` for each layer; and those of `plain` for those that need no `Clone`.
macro_rules! layers {
    ($($name:ident, $plain:ident => $layer:expr;)+) => {
        $(
            mod $name {
                use super::*;

                checks::all!($layer);
                plain::$plain!($layer);
            }
        )+
    };
}

layers! {
    circuit_breaker, asked => CircuitBreakerLayer::new(&breaker());
    circuit_breaker_backpressure, asked => CircuitBreakerLayer::new(&breaker()).backpressure();
    retry, spared => RetryLayer::new(&super::retry());
    timeout, asked => TimeoutLayer::new(&Timeout::new("t", Duration::from_secs(1)));
    bulkhead, asked => BulkheadLayer::new(&super::bulkhead());
    bulkhead_backpressure, asked => BulkheadLayer::new(&super::bulkhead()).backpressure();
    bulkhead_wait, spared => BulkheadLayer::new(&super::bulkhead()).wait();
    rate_limit, asked => RateLimitLayer::new(&limiter());
    rate_limit_backpressure, asked => RateLimitLayer::new(&limiter()).backpressure();
    rate_limit_wait, spared => RateLimitLayer::new(&limiter()).wait();
    keyed_rate_limit, spared => keyed().layer(|request: &&'static str| Some(*request));
    fallback, spared => Fallback::value("f", "instead");
    client_stack, spared => stack::client("c").retry(&super::retry()).bulkhead(&super::bulkhead()).build().unwrap();
    server_stack, spared => stack::server("s").bulkhead(&super::bulkhead()).build().unwrap();
}

/// Every layer of the crate is in the table above, but for those that change the error or the response's type, and the one
/// that makes a layer for each call and so calls the service when its future is polled. They have tests of their own.
#[test]
fn no_layer_is_missing() {
    const ELSEWHERE: [&str; 3] = ["AdaptErrorLayer", "RespondLayer", "PerKeyLayer"];
    const AS: [(&str, &str); 4] = [
        ("KeyedRateLimitLayer", "keyed().layer"),
        ("FallbackLayer", "Fallback::"),
        ("ClientStack", "stack::client"),
        ("ServerStack", "stack::server"),
    ];
    let here = include_str!("main.rs");
    let mut directories = vec![std::path::PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut seen = 0;
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                // What HTTP knows is tested with HTTP.
                if !path.ends_with("http") {
                    directories.push(path);
                }
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            for line in source.lines().filter(|line| line.starts_with("impl") && line.contains(" Layer<S> for ")) {
                let name = line.split(" Layer<S> for ").nth(1).unwrap().split(['<', ' ']).next().unwrap();
                let name = AS.iter().find(|(layer, _)| *layer == name).map_or(name, |(_, made)| made);
                seen += 1;
                assert!(here.contains(name) || ELSEWHERE.contains(&name), "{name} is not in the table");
            }
        }
    }
    assert!(seen >= 9, "the sources are written otherwise than this test thinks: {seen}");
}
