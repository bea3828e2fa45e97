//! The inner service of the benchmarks, and the code that calls it.
#![allow(unreachable_pub)] // shared by benches, as modules

use std::{
    future::{Future, Ready, ready},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use tower::Service;
use tower_rampart::BoxError;

/// Responds immediately.
#[derive(Clone)]
pub struct Immediate;

impl Service<u64> for Immediate {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

/// Responds at the second poll, as every real call does at some later one.
#[allow(dead_code)] // not every benchmark has calls that wait
#[derive(Clone)]
pub struct PendingOnce;

#[allow(dead_code)]
pub struct Once {
    request: u64,
    is_ready: bool,
}

impl Future for Once {
    type Output = Result<u64, BoxError>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::replace(&mut self.is_ready, true) { Poll::Ready(Ok(self.request)) } else { Poll::Pending }
    }
}

impl Service<u64> for PendingOnce {
    type Response = u64;
    type Error = BoxError;
    type Future = Once;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Once {
        Once { request, is_ready: false }
    }
}

/// Makes one call and polls it to completion without a runtime, whose overhead would be the same
/// for all candidates.
#[inline(always)]
pub fn call<S: Service<u64>>(service: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(())));
    let answered = matches!(black_box(pin!(service.call(black_box(7))).poll(&mut cx)), Poll::Ready(Ok(_)));
    ready && answered
}

/// Like [`call`], for a service that responds at the second poll.
#[allow(dead_code)]
#[inline(always)]
pub fn call_pending<S: Service<u64>>(service: &mut S) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let ready = matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(())));
    let mut response = pin!(service.call(black_box(7)));
    let pending = black_box(response.as_mut().poll(&mut cx)).is_pending();
    let answered = matches!(black_box(response.poll(&mut cx)), Poll::Ready(Ok(_)));
    ready && pending && answered
}

/// Returns a worker that calls a service; all calls must succeed.
#[allow(dead_code)] // not every benchmark has threads
pub fn calls<S: Service<u64> + Send + 'static>(mut service: S) -> Box<dyn FnMut(u64) + Send> {
    Box::new(move |operations| (0..operations).for_each(|_| assert!(call(&mut service))))
}
