use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use super::{
    Bulkhead,
    future::{ResponseFuture, WaitFuture},
    inner::{Acquire, Inner, Slot},
    queue::Waiting,
};
use crate::{
    error::FromRejection,
    guarded::Guarded,
    hold::Hold,
    readiness::{Backpressure, Reject, Wait},
};

/// Service made by [`BulkheadLayer`](super::BulkheadLayer).
pub struct BulkheadService<S, M = Reject> {
    inner: S,
    bulkhead: Bulkhead,
    reserved: Reserved,
    mode: PhantomData<fn() -> M>,
}

/// What `poll_ready` has taken for the call to come, in backpressure mode.
enum Reserved {
    Nothing,
    Place(Waiting<Hold<Inner>>),
    Permit(Slot<Hold<Inner>>),
}

impl<S> BulkheadService<S> {
    /// Refuses at once what exceeds the limit of `bulkhead`.
    pub fn new(inner: S, bulkhead: &Bulkhead) -> Self {
        Self::with(inner, bulkhead)
    }
}

impl<S, M> BulkheadService<S, M> {
    pub(super) fn with(inner: S, bulkhead: &Bulkhead) -> Self {
        Self { inner, bulkhead: bulkhead.clone(), reserved: Reserved::Nothing, mode: PhantomData }
    }

    /// The bulkhead.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service within, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

/// A clone starts without a reservation.
impl<S: Clone, M> Clone for BulkheadService<S, M> {
    fn clone(&self) -> Self {
        Self::with(self.inner.clone(), &self.bulkhead)
    }
}

impl<S: fmt::Debug, M> fmt::Debug for BulkheadService<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadService").field("inner", &self.inner).field("bulkhead", &self.bulkhead).finish()
    }
}

impl<S, Req> Service<Req> for BulkheadService<S, Reject>
where
    S: Service<Req>,
    S::Error: FromRejection,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 2 RMWs on the permit word (acquire, release) and 2 on this thread's reference count; no clock, no allocation.
    // A refusal: no RMW on the permit word.
    fn call(&mut self, request: Req) -> Self::Future {
        match Slot::try_take(self.bulkhead.0.hold()) {
            Ok(slot) => {
                let guard = slot.admit();
                ResponseFuture::new(Guarded::Calling { future: self.inner.call(request), guard })
            }
            Err(inner) => ResponseFuture::new(Guarded::refused(inner.full())),
        }
    }
}

impl<S, Req> Service<Req> for BulkheadService<S, Backpressure>
where
    S: Service<Req>,
    S::Error: FromRejection,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        ready!(self.poll_permit(cx));
        let inner = self.inner.poll_ready(cx);
        if !matches!(inner, Poll::Ready(Ok(()))) {
            // A permit is not kept while the service is not ready: that may take long, and others could use it.
            self.reserved = Reserved::Nothing;
        }
        inner
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match mem::replace(&mut self.reserved, Reserved::Nothing) {
            Reserved::Permit(slot) => {
                let guard = slot.admit();
                ResponseFuture::new(Guarded::Calling { future: self.inner.call(request), guard })
            }
            Reserved::Nothing | Reserved::Place(_) => panic!("`call` without a `poll_ready` that was ready"),
        }
    }
}

impl<S> BulkheadService<S, Backpressure> {
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.reserved = match &mut self.reserved {
                Reserved::Permit(_) => return Poll::Ready(()),
                Reserved::Nothing => match Slot::try_take(self.bulkhead.0.hold()) {
                    Ok(slot) => Reserved::Permit(slot),
                    Err(inner) => Reserved::Place(Waiting::new(inner, u32::MAX)),
                },
                Reserved::Place(waiting) => match ready!(Pin::new(waiting).poll(cx)) {
                    Ok(()) => Reserved::Permit(Slot::granted(self.bulkhead.0.hold())),
                    // Four billion wait already: look again when somebody has left.
                    Err(_) => Reserved::Nothing,
                },
            }
        }
    }
}

impl<S, Req> Service<Req> for BulkheadService<S, Wait>
where
    S: Service<Req> + Clone,
    S::Error: FromRejection,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = WaitFuture<S, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // As in the refusing mode when a permit is free; the service is cloned only by a call that waits.
    fn call(&mut self, request: Req) -> Self::Future {
        match Slot::try_take(self.bulkhead.0.hold()) {
            Ok(slot) => {
                let guard = slot.admit();
                WaitFuture::responding(Guarded::Calling { future: self.inner.call(request), guard })
            }
            Err(inner) if inner.may_wait() => {
                // The instance that was polled ready makes the call; its clone takes its place.
                let clone = self.inner.clone();
                WaitFuture::waiting(mem::replace(&mut self.inner, clone), request, Acquire::new(inner))
            }
            Err(inner) => WaitFuture::responding(Guarded::refused(inner.full())),
        }
    }
}
