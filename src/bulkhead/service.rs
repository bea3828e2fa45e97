use std::{
    fmt,
    marker::PhantomData,
    mem,
    task::{Context, Poll, ready},
    time::Duration,
};

use tower_service::Service;

use super::{
    Bulkhead,
    future::{ResponseFuture, WaitFuture},
    inner::{BulkheadInner, CallPermit, HasBulkhead, PermitWait, UnusedPermit, WaitForPermit},
};
use crate::{
    call::{
        Acquisition, CallService, CancelOnDrop, Guarded, LeafCall, PatternService, Queued, RejectCall, Rejectable,
        RejectableLeaf, StartingCall, WithShared,
    },
    error::{FromRejection, Rejection},
    readiness::{Backpressure, Reject, Wait},
    shared::striped::StripedRef,
};

/// A call of [`WithBulkhead`].
pub(crate) type BulkheadCall<S, Req, C> = Queued<S, Req, WaitForPermit<StripedRef<BulkheadInner>>, C, CallPermit>;

/// The call service of a bulkhead, in wait mode.
#[derive(Clone)]
pub(crate) struct WithBulkhead<S> {
    inner: S,
}

impl<S> WithBulkhead<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<P, S, Req> PatternService<P, Req> for WithBulkhead<S>
where
    P: HasBulkhead + AsRef<Bulkhead>,
    S: CallService<P, Req, Call: RejectCall> + Clone,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = BulkheadCall<S, Req, S::Call>;
    type Admission = Acquisition<CallPermit, WaitForPermit<StripedRef<BulkheadInner>>>;

    #[inline(always)]
    fn poll_ready(&mut self, _enabled: bool, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(shared, cx)
    }

    #[inline(always)]
    fn admit(&mut self, shared: &P) -> Self::Admission {
        BulkheadInner::admit(&shared.as_ref().0)
    }

    #[inline(always)]
    fn bypass() -> Self::Admission {
        Acquisition::Bypassed
    }

    #[inline(always)]
    fn start(&mut self, shared: &P, admission: Self::Admission, request: Req) -> Self::Call {
        Queued::start(shared, admission, &mut self.inner, request)
    }
}

/// The service of a [`BulkheadLayer`](super::BulkheadLayer).
pub struct BulkheadService<S, M = Reject> {
    calls: WithBulkhead<RejectableLeaf<S>>,
    bulkhead: Bulkhead,
    reserved: Reserved,
    mode: PhantomData<fn() -> M>,
}

/// The reservation that `poll_ready` has made for the next call, in backpressure mode.
enum Reserved {
    Nothing,
    Waiting(Box<PermitWait<StripedRef<BulkheadInner>>>),
    Permit(CancelOnDrop<StripedRef<BulkheadInner>, UnusedPermit>),
}

impl<S> BulkheadService<S> {
    /// Creates a service that rejects calls above the limit of `bulkhead` immediately.
    pub fn new(inner: S, bulkhead: &Bulkhead) -> Self {
        Self::with(inner, bulkhead)
    }
}

impl<S, M> BulkheadService<S, M> {
    pub(super) fn with(inner: S, bulkhead: &Bulkhead) -> Self {
        Self {
            calls: WithBulkhead::new(RejectableLeaf::new(inner)),
            bulkhead: bulkhead.clone(),
            reserved: Reserved::Nothing,
            mode: PhantomData,
        }
    }

    /// Returns the bulkhead.
    pub fn bulkhead(&self) -> &Bulkhead {
        &self.bulkhead
    }

    /// Makes a call that is admitted; its future owns `bulkhead`.
    #[inline(always)]
    fn start<Req>(
        &mut self,
        bulkhead: StripedRef<BulkheadInner>,
        permit: CallPermit,
        request: Req,
    ) -> ResponseFuture<S::Future>
    where
        S: Service<Req>,
    {
        let starting = StartingCall::new(&*bulkhead, Some(permit));
        let call = LeafCall::new(self.get_mut().call(request));
        let call = Guarded::started(call, starting.started());
        ResponseFuture::new(Rejectable::started(WithShared::new(bulkhead, call)))
    }
}

service_access!(BulkheadService<S, M>, calls.inner.inner);

/// The clone has no reservation.
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
        self.get_mut().poll_ready(cx)
    }

    // 2 RMWs on the permit word (acquire, release) and 2 on this thread's reference count; no clock
    // read, no allocation. A rejection: no RMW.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match self.bulkhead.0.try_admit() {
            Some(permit) => self.start(self.bulkhead.0.acquire_ref(), permit, request),
            None => self.bulkhead.0.reject_full_as(|rejection| ResponseFuture::new(Rejectable::rejected(rejection))),
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
        // Released while the inner service is not ready, or if it panics: that may take long, and
        // other callers could use it.
        let reserved = mem::replace(&mut self.reserved, Reserved::Nothing);
        let ready = self.get_mut().poll_ready(cx);
        if matches!(ready, Poll::Ready(Ok(()))) {
            self.reserved = reserved;
        }
        ready
    }

    // As in reject mode, and 1 RMW more on the permit word: a reservation that may lapse must be
    // claimed.
    fn call(&mut self, request: Req) -> Self::Future {
        let Reserved::Permit(guard) = mem::replace(&mut self.reserved, Reserved::Nothing) else {
            panic!("`call` without a `poll_ready` that was ready")
        };
        let (bulkhead, reserved) = guard.disarm();
        match bulkhead.admit_reserved(reserved) {
            Some(permit) => self.start(bulkhead, permit, request),
            None => bulkhead.reject_full_as(|rejection| ResponseFuture::new(Rejectable::rejected(rejection))),
        }
    }
}

impl<S> BulkheadService<S, Backpressure> {
    fn poll_permit(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let bulkhead = &self.bulkhead.0;
        loop {
            self.reserved = match &mut self.reserved {
                Reserved::Permit(guard) => {
                    if guard.in_flight_mut().renew(bulkhead) {
                        return Poll::Ready(());
                    }
                    Reserved::Nothing
                }
                Reserved::Nothing => match bulkhead.try_reserve() {
                    Some(reserved) => Reserved::Permit(CancelOnDrop::new(bulkhead.acquire_ref(), reserved)),
                    None => {
                        let wait = PermitWait::new(bulkhead.acquire_ref(), u32::MAX, Duration::MAX);
                        Reserved::Waiting(Box::new(wait))
                    }
                },
                Reserved::Waiting(wait) => match ready!(wait.poll(cx)) {
                    Ok(()) => Reserved::Permit(CancelOnDrop::new(bulkhead.acquire_ref(), bulkhead.reserve())),
                    // Four billion callers wait already: try again.
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
        self.get_mut().poll_ready(cx)
    }

    // As in reject mode if a permit is free; only a call that waits clones the service.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let acquisition = BulkheadInner::admit(&self.bulkhead.0);
        if let Acquisition::Rejected(rejection) = acquisition {
            return WaitFuture::new(Rejectable::rejected(rejection));
        }
        let bulkhead = self.bulkhead.0.acquire_ref();
        let call = Queued::start(&*bulkhead, acquisition, &mut self.calls.inner, request);
        WaitFuture::new(Rejectable::started(WithShared::new(bulkhead, call)))
    }
}
