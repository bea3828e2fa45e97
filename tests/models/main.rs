//! Long random courses through the public handles, beside obviously right models: lists and plain numbers.
//!
//! The state core is compared with models of its own where it lies. Here the handles are asked, with what they add: who
//! waits and is woken, what is dropped half-way, what is changed while calls are under way, and what the observer hears.

#[path = "../support/mod.rs"]
mod support;

mod budget;
mod bulkhead;
mod circuit;
mod limiter;

use std::future::Future;

/// Runs it on a runtime whose clock moves by hand.
fn paused<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}
