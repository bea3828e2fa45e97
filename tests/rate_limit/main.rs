//! What a rate limiter promises: items L and G of the contract.
#![allow(clippy::disallowed_methods)] // the time is paused

#[path = "../support/mod.rs"]
mod support;

mod handle;
mod keyed;
mod layer;
mod races;

use std::time::Duration;

use support::{BoxError, recorder::Recorder};
use tower::{Service, ServiceExt};
use tower_rampart::{
    AsRejection, Rejection,
    rate_limit::{Rate, RateLimiter},
};

async fn call<S>(service: &mut S) -> Result<&'static str, BoxError>
where
    S: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    service.ready().await?.call("request").await
}

fn refused<T>(result: &Result<T, BoxError>) -> Option<&Rejection> {
    result.as_ref().err().and_then(AsRejection::as_rejection)
}

/// A token a second; waits are at most `max_wait` seconds.
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
