//! The inner service: each call is pending until the gate releases it.

use std::{
    future::Future,
    marker::PhantomData,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Waker},
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};
use tower::Service;
use tower_rampart::BoxError;

/// Releases waiting calls in a random order, as calls complete.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Mutex<State>>);

struct State {
    /// When this many calls are waiting, the gate releases one.
    limit: usize,
    waiting: Vec<(u32, Waker)>,
    /// By call: whether the gate has released it.
    released: Vec<bool>,
    unused: Vec<u32>,
    releases: u64,
    random: SmallRng,
}

impl Gate {
    /// Creates a gate at which fewer than `limit` calls wait.
    pub(crate) fn new(limit: usize) -> Self {
        Self::with(limit, limit)
    }

    /// Creates a gate that releases calls only by [`release_all`](Self::release_all), with memory
    /// for this many.
    pub(crate) fn manual(calls: usize) -> Self {
        Self::with(usize::MAX, calls)
    }

    fn with(limit: usize, calls: usize) -> Self {
        let calls = calls + 1;
        Self(Arc::new(Mutex::new(State {
            limit,
            waiting: Vec::with_capacity(calls),
            released: vec![false; calls],
            unused: (0..calls as u32).rev().collect(),
            releases: 0,
            random: SmallRng::seed_from_u64(7),
        })))
    }

    pub(crate) fn service(&self) -> Held {
        Held(self.clone())
    }

    pub(crate) fn release_all(&self) {
        while let Some(waker) = self.lock().release() {
            waker.wake();
        }
    }

    /// Returns the number of calls released so far.
    pub(crate) fn releases(&self) -> u64 {
        self.lock().releases
    }

    fn join(&self, waker: &Waker) -> u32 {
        let mut state = self.lock();
        let call = state.unused.pop().expect("memory for this many calls");
        state.waiting.push((call, waker.clone()));
        let released = if state.waiting.len() >= state.limit { state.release() } else { None };
        drop(state);
        if let Some(waker) = released {
            waker.wake();
        }
        call
    }

    /// Returns whether the call was released; it is then over.
    fn leave(&self, call: u32) -> bool {
        let mut state = self.lock();
        let released = std::mem::take(&mut state.released[call as usize]);
        if released {
            state.unused.push(call);
        }
        released
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    fn release(&mut self) -> Option<Waker> {
        if self.waiting.is_empty() {
            return None;
        }
        let position = self.random.random_range(0..self.waiting.len());
        let (call, waker) = self.waiting.swap_remove(position);
        self.released[call as usize] = true;
        self.releases += 1;
        Some(waker)
    }
}

/// A request of the measurements.
pub(crate) trait Request: Send + 'static {
    type Response: Default + Send + 'static;

    fn new() -> Self;
}

impl Request for u64 {
    type Response = u64;

    fn new() -> Self {
        7
    }
}

/// A service whose calls are pending until their gate releases them.
#[derive(Clone)]
pub(crate) struct Held(Gate);

impl<R: Request> Service<R> for Held {
    type Response = R::Response;
    type Error = BoxError;
    type Future = HeldCall<R::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: R) -> Self::Future {
        HeldCall { gate: self.0.clone(), call: None, response: PhantomData }
    }
}

/// 16 bytes, like the future of hyper-util's client.
pub(crate) struct HeldCall<T> {
    gate: Gate,
    /// Set by the first poll.
    call: Option<u32>,
    response: PhantomData<fn() -> T>,
}

impl<T: Default> Future for HeldCall<T> {
    type Output = Result<T, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.call {
            Some(call) if self.gate.leave(call) => Poll::Ready(Ok(T::default())),
            Some(_) => Poll::Pending,
            None => {
                self.call = Some(self.gate.join(cx.waker()));
                Poll::Pending
            }
        }
    }
}

/// Starts a call of a service that is always ready.
pub(crate) fn start<S: Service<R>, R: Request>(service: &mut S) -> S::Future {
    let ready = service.poll_ready(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(ready, Poll::Ready(Ok(()))), "no call waits before it starts");
    service.call(R::new())
}
