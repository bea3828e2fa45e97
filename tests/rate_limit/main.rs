//! The rate limiter: items L and G of the contract.
#![allow(clippy::disallowed_methods)] // the time is paused

#[path = "../support/mod.rs"]
mod support;

mod crowd;
mod handle;
mod keyed;
mod layer;
mod levels;
mod races;
mod reentry;

use std::time::Duration;

use support::recorder::Recorder;
use tower_rampart::rate_limit::{Rate, RateLimiter};

/// One token per second; waits are at most `max_wait` seconds.
fn limiter(burst: u32, max_wait: u64) -> (RateLimiter, Recorder) {
    let recorder = Recorder::new();
    let limiter = RateLimiter::builder("api", Rate::per_second(1))
        .burst(burst)
        .max_wait(Duration::from_secs(max_wait))
        .observer(recorder.clone())
        .build()
        .unwrap();
    (limiter, recorder)
}
