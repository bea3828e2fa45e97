use std::{
    fmt,
    marker::PhantomData,
    mem,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    CircuitBreaker,
    admitted::AdmittedCall,
    future::ResponseFuture,
    inner::{BreakerOwner, CircuitBreakerInner, HasBreaker},
    ready_state::ReadyState,
};
use crate::{
    call::{
        CallService, CancelOnDrop, Guarded, Leaf, PatternService, RejectCall, Rejectable, StartingCall, WithShared,
    },
    classify::{Classify, DefaultClassifier},
    error::{AsRejection, FromRejection, Rejection},
    readiness::{Backpressure, Reject},
    shared::striped::StripedRef,
};

/// A call of [`WithBreaker`].
pub(crate) type BreakerCall<C> = Guarded<C, AdmittedCall>;

/// The call service of a breaker, in reject mode.
pub(crate) struct WithBreaker<S> {
    inner: S,
    ready_state: ReadyState,
}

impl<S> WithBreaker<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, ready_state: ReadyState::default() }
    }
}

/// The clone is not ready.
impl<S: Clone> Clone for WithBreaker<S> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<P, S, Req> PatternService<P, Req> for WithBreaker<S>
where
    P: HasBreaker + AsRef<CircuitBreaker>,
    P::Classifier: Classify<S::Response, S::Error>,
    S: CallService<P, Req, Call: RejectCall>,
    S::Error: From<Rejection> + AsRejection,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = BreakerCall<S::Call>;
    /// `None` for a call that bypasses the breaker.
    type Admission = Result<Option<AdmittedCall>, Rejection>;

    #[inline(always)]
    fn poll_ready(&mut self, enabled: bool, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if enabled {
            self.ready_state.poll_rejecting(shared.as_ref(), cx, |cx| self.inner.poll_ready(shared, cx))
        } else {
            self.inner.poll_ready(shared, cx)
        }
    }

    #[inline(always)]
    fn admit(&mut self, shared: &P) -> Self::Admission {
        self.ready_state.admit_rejecting(&shared.as_ref().0).map(Some)
    }

    #[inline(always)]
    fn bypass() -> Self::Admission {
        Ok(None)
    }

    #[inline(always)]
    fn start(&mut self, shared: &P, admission: Self::Admission, request: Req) -> Self::Call {
        match admission {
            Ok(admitted) => {
                let starting = StartingCall::new(shared, admitted);
                let call = self.inner.call(shared, request);
                Guarded::started(call, starting.started())
            }
            Err(rejection) => Guarded::rejected(rejection),
        }
    }
}

/// The service of a [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
pub struct CircuitBreakerService<S, C = DefaultClassifier, M = Reject> {
    calls: WithBreaker<Leaf<S>>,
    breaker: CircuitBreaker,
    classify: C,
    mode: PhantomData<fn() -> M>,
}

impl<S> CircuitBreakerService<S> {
    /// Creates a service that rejects calls while `breaker` is open, and classifies results with
    /// [`DefaultClassifier`].
    pub fn new(inner: S, breaker: &CircuitBreaker) -> Self {
        Self::with(inner, breaker, DefaultClassifier)
    }
}

impl<S, C, M> CircuitBreakerService<S, C, M> {
    pub(super) fn with(inner: S, breaker: &CircuitBreaker, classify: C) -> Self {
        let calls = WithBreaker::new(Leaf::new(inner));
        Self { calls, breaker: breaker.clone(), classify, mode: PhantomData }
    }

    /// Returns the breaker.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
    }
}

service_access!(CircuitBreakerService<S, C, M>, calls.inner.inner);

/// The clone is not ready.
impl<S: Clone, C: Clone, M> Clone for CircuitBreakerService<S, C, M> {
    fn clone(&self) -> Self {
        Self::with(self.get_ref().clone(), &self.breaker, self.classify.clone())
    }
}

impl<S: fmt::Debug, C, M> fmt::Debug for CircuitBreakerService<S, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerService").field("inner", self.get_ref()).field("breaker", &self.breaker).finish()
    }
}

impl<S, C: Clone, M> CircuitBreakerService<S, C, M> {
    /// Rejects a call that was not admitted by a closed circuit, or makes it after all.
    #[inline(never)]
    fn reject_or_start<Req>(&mut self, request: Req) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
    {
        let Self { calls: WithBreaker { inner, ready_state }, breaker: CircuitBreaker(breaker), classify, .. } = self;
        ready_state.admit_rejecting_as(
            breaker,
            |admitted| Self::start(inner, breaker.acquire_ref(), classify, admitted, request),
            |rejection| ResponseFuture::new(Rejectable::rejected(rejection)),
        )
    }

    /// Makes a call that is admitted; its future owns `breaker`.
    #[inline(always)]
    fn start<Req>(
        inner: &mut Leaf<S>,
        breaker: StripedRef<CircuitBreakerInner>,
        classify: &C,
        admitted: AdmittedCall,
        request: Req,
    ) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
    {
        let guard = CancelOnDrop::new(&*breaker, admitted);
        let classify = classify.clone();
        let (_, admitted) = guard.disarm();
        let owner = BreakerOwner { breaker, classify };
        let starting = StartingCall::new(&owner, Some(admitted));
        let call = inner.call(&owner, request);
        let call = Guarded::started(call, starting.started());
        ResponseFuture::new(Rejectable::started(WithShared::new(owner, call)))
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C, Reject>
where
    S: Service<Req>,
    S::Error: FromRejection + AsRejection,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        let WithBreaker { inner, ready_state } = &mut self.calls;
        ready_state.poll_rejecting(&self.breaker, cx, |cx| inner.inner.poll_ready(cx))
    }

    // Closed and healthy: 2 RMWs on this thread's reference count; on the circuit, one load here,
    // one in `poll_ready` and two at completion. A time window adds one store to the thread's own
    // line and one clock read, slow calls one more clock read. No allocation. Rejected: no RMW.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match self.calls.ready_state.try_admit_fast(&self.breaker.0) {
            Some(admitted) => {
                let breaker = self.breaker.0.acquire_ref();
                Self::start(&mut self.calls.inner, breaker, &self.classify, admitted, request)
            }
            None => self.reject_or_start(request),
        }
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C, Backpressure>
where
    S: Service<Req>,
    S::Error: FromRejection + AsRejection,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.calls.ready_state.poll_admitting(&self.breaker, cx).is_pending() {
            return Poll::Pending;
        }
        // A probe slot is released while the inner service is not ready, or if it panics: other
        // callers could use it.
        let reserved = mem::take(&mut self.calls.ready_state);
        let ready = self.get_mut().poll_ready(cx);
        if matches!(ready, Poll::Ready(Ok(()))) {
            self.calls.ready_state = reserved;
        }
        ready
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self.calls.ready_state.admit_admitting(&self.breaker.0) {
            Ok(admitted) => {
                let breaker = self.breaker.0.acquire_ref();
                Self::start(&mut self.calls.inner, breaker, &self.classify, admitted, request)
            }
            Err(rejection) => ResponseFuture::new(Rejectable::rejected(rejection)),
        }
    }
}
