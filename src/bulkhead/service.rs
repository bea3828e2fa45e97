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
    inner::{BulkheadInner, CallPermit, UnusedPermit},
    queue::Waiter,
};
use crate::{
    call::{Acquisition, CancelOnDrop, Guarded, Queued},
    call::{Leaf, WithShared},
    error::FromRejection,
    readiness::{Backpressure, Reject, Wait},
    shared::striped::StripedRef,
};

/// Service made by [`BulkheadLayer`](super::BulkheadLayer).
pub struct BulkheadService<S, M = Reject> {
    inner: Leaf<S>,
    bulkhead: Bulkhead,
    reserved: Reserved,
    mode: PhantomData<fn() -> M>,
}

/// What `poll_ready` has taken for the call to come, in backpressure mode.
enum Reserved {
    Nothing,
    Place(Waiter<StripedRef<BulkheadInner>>),
    Permit(CancelOnDrop<StripedRef<BulkheadInner>, UnusedPermit>),
}

impl<S> BulkheadService<S> {
    /// Refuses at once what exceeds the limit of `bulkhead`.
    pub fn new(inner: S, bulkhead: &Bulkhead) -> Self {
        Self::with(inner, bulkhead)
    }
}

impl<S, M> BulkheadService<S, M> {
    pub(super) fn with(inner: S, bulkhead: &Bulkhead) -> Self {
        Self { inner: Leaf::new(inner), bulkhead: bulkhead.clone(), reserved: Reserved::Nothing, mode: PhantomData }
    }

    /// The bulkhead.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner.inner
    }

    /// The service within, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner.inner
    }
}

/// A clone starts without a reservation.
impl<S: Clone, M> Clone for BulkheadService<S, M> {
    fn clone(&self) -> Self {
        Self::with(self.get_ref().clone(), &self.bulkhead)
    }
}

impl<S: fmt::Debug, M> fmt::Debug for BulkheadService<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BulkheadService").field("inner", self.get_ref()).field("bulkhead", &self.bulkhead).finish()
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
        self.inner.inner.poll_ready(cx)
    }

    // 2 RMWs on the permit word (acquire, release) and 2 on this thread's reference count; no clock, no allocation.
    // A refusal: no RMW.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match self.bulkhead.0.admit() {
            Some(permitted) => self.permitted(self.bulkhead.0.acquire_ref(), permitted, request),
            None => ResponseFuture::new(WithShared::new(None, Guarded::rejected(self.bulkhead.0.full()))),
        }
    }
}

impl<S, M> BulkheadService<S, M> {
    /// Makes the call that was let in; `hold` is the share of the handle that its future keeps.
    #[inline(always)]
    fn permitted<Req>(
        &mut self,
        hold: StripedRef<BulkheadInner>,
        permitted: CallPermit,
        request: Req,
    ) -> ResponseFuture<S::Future>
    where
        S: Service<Req>,
    {
        let shared = Some(hold);
        let held = CancelOnDrop::new(&shared, permitted);
        let call = Guarded::started(Leaf::new(self.inner.inner.call(request)), Some(held));
        ResponseFuture::new(WithShared::new(shared, call))
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
        let inner = self.inner.inner.poll_ready(cx);
        if !matches!(inner, Poll::Ready(Ok(()))) {
            // A permit is not kept while the service is not ready: that may take long, and others could use it.
            self.reserved = Reserved::Nothing;
        }
        inner
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match mem::replace(&mut self.reserved, Reserved::Nothing) {
            Reserved::Permit(held) => {
                let (hold, UnusedPermit) = held.release();
                let permitted = hold.begin();
                self.permitted(hold, permitted, request)
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
                Reserved::Nothing if self.bulkhead.0.queue.try_acquire() => {
                    Reserved::Permit(CancelOnDrop::new(self.bulkhead.0.acquire_ref(), UnusedPermit))
                }
                Reserved::Nothing => Reserved::Place(Waiter::new(self.bulkhead.0.acquire_ref(), u32::MAX)),
                Reserved::Place(waiting) => match ready!(Pin::new(waiting).poll(cx)) {
                    Ok(()) => Reserved::Permit(CancelOnDrop::new(self.bulkhead.0.acquire_ref(), UnusedPermit)),
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
        self.inner.inner.poll_ready(cx)
    }

    // As in the refusing mode when a permit is free; the service is cloned only by a call that waits.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let entry = self.bulkhead.0.enter(|| self.bulkhead.0.acquire_ref());
        let shared = (!matches!(entry, Acquisition::Rejected(_))).then(|| self.bulkhead.0.acquire_ref());
        let call = Queued::enter(&shared, entry, &mut self.inner, request);
        WaitFuture::new(WithShared::new(shared, call))
    }
}
