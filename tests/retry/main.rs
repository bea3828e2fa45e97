//! The retry: items R and G of the contract.

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod backoff;
mod budget;
mod deadlines;
mod events;
mod handle;
#[cfg(feature = "http")]
mod marked;
mod nested;
mod races;
mod readiness;
mod rejections;
mod types;

use std::time::Duration;

use support::{
    BoxError, address,
    probe::{Probe, Reply, Script},
    recorder::Recorder,
};
use tokio::time::Instant;
use tower_rampart::{
    Verdict,
    retry::{Backoff, Jitter, Retry, RetryBudget, RetryBuilder},
};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[allow(clippy::disallowed_methods)] // the tests' own reading of the paused clock
fn now() -> Instant {
    Instant::now()
}

/// Three attempts, 10 ms apart and without jitter, so that times are exact.
fn builder() -> RetryBuilder {
    Retry::builder("test").max_attempts(3).backoff(Backoff::fixed(ms(10)).jitter(Jitter::None))
}

/// The same builder, with a recorder.
fn recorded() -> (RetryBuilder, Recorder) {
    let recorder = Recorder::new();
    (builder().observer(recorder.clone()), recorder)
}

/// A budget of whole tokens that does not refill over time.
fn budget(capacity: u32) -> RetryBudget {
    RetryBudget::builder().ratio(1.0).capacity(capacity).min_per_second(0).build().unwrap()
}

/// A probe whose first `calls` calls fail.
fn failing(calls: usize) -> (Script, Probe) {
    let (script, probe) = Script::new();
    for _ in 0..calls {
        script.reply(Reply::Err("down".into()));
    }
    (script, probe)
}

/// A classifier by text: `Ok("bad")` is a failure, `Ok("slow down")` is throttled, an error with
/// "ignore" is ignored.
fn by_text(result: Result<&&'static str, &BoxError>) -> Verdict {
    match result {
        Ok(&"bad") => Verdict::Failure,
        Ok(&"slow down") => Verdict::Throttled,
        Ok(_) => Verdict::Success,
        Err(error) if error.to_string().contains("ignore") => Verdict::Ignored,
        Err(_) => Verdict::Failure,
    }
}

/// A boxed error with a size, so that its address identifies it.
fn error(text: &str) -> BoxError {
    text.into()
}

fn balance(budget: &RetryBudget) -> f64 {
    budget.snapshot().balance
}
