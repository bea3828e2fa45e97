//! The memory of a call while it is pending, and the allocations of a call in a steady state.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use allocation_counter::measure;
use tokio::runtime::Builder;
use tower::Service;

use crate::held::{Gate, Held, Request, start};

/// Enough calls that the growth of a shared table counts for each of them.
const PENDING: usize = 10_000;
const STEADY: usize = 100;
const TURNS: usize = 10;

#[derive(Clone, Copy)]
pub(crate) struct Footprint {
    /// The size of the response future.
    pub(crate) future: usize,
    /// Allocated bytes per call while [`PENDING`] calls are in flight, besides the futures.
    pub(crate) heap: f64,
    /// Allocations per call while [`STEADY`] calls are in flight, and each that completes is
    /// replaced by another.
    pub(crate) allocations: f64,
}

impl Footprint {
    pub(crate) fn of<S: Service<R>, R: Request>(make: impl Fn(Held) -> S) -> Self {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let heap = heap(&mut make(Gate::manual(PENDING).service()));
            let gate = Gate::manual(STEADY);
            let allocations = allocations(&mut make(gate.service()), &gate);
            Self { future: size_of::<S::Future>(), heap, allocations }
        })
    }

    pub(crate) fn above(&self, bare: &Self) -> Self {
        Self {
            future: self.future - bare.future,
            heap: self.heap - bare.heap,
            allocations: self.allocations - bare.allocations,
        }
    }
}

impl fmt::Display for Footprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { future, heap, allocations } = self;
        write!(f, "{future} bytes, {heap:.1} on the heap, {allocations} allocations")
    }
}

fn heap<S: Service<R>, R: Request>(service: &mut S) -> f64 {
    let mut calls = Vec::with_capacity(PENDING);
    let measured = measure(|| {
        calls.extend((0..PENDING).map(|_| {
            let mut call = Box::pin(start(service));
            assert!(poll(call.as_mut()).is_pending());
            call
        }));
    });
    measured.bytes_current as f64 / PENDING as f64 - size_of::<S::Future>() as f64
}

fn allocations<S: Service<R>, R: Request>(service: &mut S, gate: &Gate) -> f64 {
    let mut calls: Vec<_> = (0..STEADY).map(|_| Box::pin(start(service))).collect();
    calls.iter_mut().for_each(|call| assert!(poll(call.as_mut()).is_pending()));
    let mut turn = || {
        gate.release_all();
        for call in &mut calls {
            assert!(matches!(poll(call.as_mut()), Poll::Ready(Ok(_))));
            call.set(start(service));
            assert!(poll(call.as_mut()).is_pending());
        }
    };
    (0..TURNS).for_each(|_| turn());
    measure(|| (0..TURNS).for_each(|_| turn())).count_total as f64 / (TURNS * STEADY) as f64
}

fn poll<F: Future>(call: Pin<&mut F>) -> Poll<F::Output> {
    call.poll(&mut Context::from_waker(Waker::noop()))
}
