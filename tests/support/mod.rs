//! What the behaviour tests share: a probing service, a recording observer, and small conveniences.
#![allow(dead_code, unreachable_pub)] // every test binary uses its own part

pub mod probe;
pub mod recorder;

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Polls once, with a waker that does nothing.
pub fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// Runs what `work` makes on so many threads at once, each with a runtime of its own.
pub fn on_threads<F: Future<Output = ()>>(threads: usize, work: impl Fn(usize) -> F + Sync) {
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let work = &work;
            scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work(thread));
            });
        }
    });
}
