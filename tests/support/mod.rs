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
