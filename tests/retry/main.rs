//! The retry: what is repeated, when, how often, and what becomes of it in bad moments.

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod backoff;
mod budget;
mod deadlines;
mod events;
mod handle;
mod nested;
mod races;
mod readiness;
mod rejections;
mod types;

use std::time::Duration;

use support::{
    BoxError,
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

/// Three attempts, 10 ms apart without jitter, so that times are exact.
fn builder() -> RetryBuilder {
    Retry::builder("test").max_attempts(3).backoff(Backoff::fixed(ms(10)).jitter(Jitter::None))
}

/// The same, with a recorder.
fn recorded() -> (RetryBuilder, Recorder) {
    let recorder = Recorder::new();
    (builder().observer(recorder.clone()), recorder)
}

/// Tokens are whole and time adds none.
fn budget(capacity: u32) -> RetryBudget {
    RetryBudget::builder().ratio(1.0).capacity(capacity).min_per_second(0).build().unwrap()
}

/// A probe whose next calls fail, so many of them.
fn failing(calls: usize) -> (Script, Probe) {
    let (script, probe) = Script::new();
    for _ in 0..calls {
        script.reply(Reply::Err("down".into()));
    }
    (script, probe)
}

/// `Ok("bad")` is a failure, `Ok("slow down")` is throttled, `Err` with "ignore" in it says nothing.
fn by_word(result: Result<&&'static str, &BoxError>) -> Verdict {
    match result {
        Ok(&"bad") => Verdict::Failure,
        Ok(&"slow down") => Verdict::Throttled,
        Ok(_) => Verdict::Success,
        Err(error) if error.to_string().contains("ignore") => Verdict::Ignored,
        Err(_) => Verdict::Failure,
    }
}

/// Where a boxed error lives: the same address is the same error.
fn address(error: &BoxError) -> *const () {
    std::ptr::from_ref(&**error).cast()
}

/// An error that is something: those of no size all live at the same address.
fn error(text: &str) -> BoxError {
    text.into()
}
