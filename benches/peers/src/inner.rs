//! The inner services of all candidates, and the code that calls them.

use std::{
    fmt,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

use tokio::runtime::Runtime;
use tower::Service;
use tower_rampart::{AsRejection, Rejection};

use crate::harness::Worker;

#[derive(Clone, Debug)]
pub enum Fault {
    Rejected(Rejection),
    Failed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Fault {}

impl From<Rejection> for Fault {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl AsRejection for Fault {
    fn as_rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            Self::Failed => None,
        }
    }
}

/// Responds immediately.
#[derive(Clone)]
pub struct Immediate;

impl Service<u64> for Immediate {
    type Response = u64;
    type Error = Fault;
    type Future = Ready<Result<u64, Fault>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// Responds at the second poll.
#[derive(Clone)]
pub struct PendingOnce;

pub struct Once {
    polled: bool,
    answer: u64,
}

impl Future for Once {
    type Output = Result<u64, Fault>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.polled, true) {
            return Poll::Ready(Ok(self.answer));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Service<u64> for PendingOnce {
    type Response = u64;
    type Error = Fault;
    type Future = Once;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, answer: u64) -> Once {
        Once { polled: false, answer }
    }
}

/// Fails one call in `every`.
#[derive(Clone)]
pub struct Failing {
    pub every: u64,
    pub calls: u64,
}

impl Service<u64> for Failing {
    type Response = u64;
    type Error = Fault;
    type Future = Ready<Result<u64, Fault>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        self.calls += 1;
        ready(if self.calls.is_multiple_of(self.every) { Err(Fault::Failed) } else { Ok(request) })
    }
}

/// The runtime that drives timers.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().expect("a runtime")
});

/// Makes one call and polls it to completion without a runtime, whose overhead would be the same
/// for all candidates.
#[inline(always)]
pub fn call<S: Service<u64>>(service: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    if !matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))) {
        return false;
    }
    let mut response = pin!(service.call(black_box(7)));
    loop {
        if let Poll::Ready(answer) = response.as_mut().poll(&mut cx) {
            return black_box(answer).is_ok();
        }
    }
}

/// Returns a worker that calls a service, and checks that the calls succeed or fail as `ok` says,
/// if given.
pub fn calls<S>(mut service: S, ok: Option<bool>) -> Worker
where
    S: Service<u64> + Send + 'static,
{
    Box::new(move |operations| {
        let _timers = RUNTIME.enter();
        for _ in 0..operations {
            let answered = call(&mut service);
            assert!(ok.is_none_or(|ok| ok == answered), "the candidate does not behave as required");
        }
    })
}
