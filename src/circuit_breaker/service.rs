use std::{
    fmt,
    marker::PhantomData,
    mem,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    CircuitBreaker,
    future::ResponseFuture,
    inner::{AdmittedCall, BreakerOwner, CircuitBreakerInner},
    ready_state::{ReadyState, is_current},
};
use crate::{
    call::{CancelOnDrop, Guarded},
    call::{Leaf, WithShared},
    classify::{Classify, DefaultClassifier},
    error::{FromRejection, Rejection},
    readiness::{Backpressure, Reject},
    shared::striped::StripedRef,
};

/// Service made by [`CircuitBreakerLayer`](super::CircuitBreakerLayer).
pub struct CircuitBreakerService<S, C = DefaultClassifier, M = Reject> {
    inner: S,
    breaker: CircuitBreaker,
    classify: C,
    ready_state: ReadyState,
    mode: PhantomData<fn() -> M>,
}

impl<S> CircuitBreakerService<S> {
    /// Refuses while `breaker` is open; judges by [`DefaultClassifier`].
    pub fn new(inner: S, breaker: &CircuitBreaker) -> Self {
        Self::with(inner, breaker, DefaultClassifier)
    }
}

impl<S, C, M> CircuitBreakerService<S, C, M> {
    pub(super) fn with(inner: S, breaker: &CircuitBreaker, classify: C) -> Self {
        Self { inner, breaker: breaker.clone(), classify, ready_state: ReadyState::Nothing, mode: PhantomData }
    }

    /// The breaker.
    pub fn breaker(&self) -> &CircuitBreaker {
        &self.breaker
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

/// A clone starts without readiness.
impl<S: Clone, C: Clone, M> Clone for CircuitBreakerService<S, C, M> {
    fn clone(&self) -> Self {
        Self::with(self.inner.clone(), &self.breaker, self.classify.clone())
    }
}

impl<S: fmt::Debug, C, M> fmt::Debug for CircuitBreakerService<S, C, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerService").field("inner", &self.inner).field("breaker", &self.breaker).finish()
    }
}

impl<S, C: Clone, M> CircuitBreakerService<S, C, M> {
    /// Makes the call that was let in; `hold` is the share of the handle that its future keeps.
    #[inline(always)]
    fn admitted<Req>(
        &mut self,
        hold: StripedRef<CircuitBreakerInner>,
        admitted: AdmittedCall,
        request: Req,
    ) -> ResponseFuture<S::Future, C>
    where
        S: Service<Req>,
    {
        let shared = BreakerOwner { hold: Some(hold), classify: self.classify.clone() };
        let held = CancelOnDrop::new(&shared, admitted);
        let call = Guarded::started(Leaf::new(self.inner.call(request)), Some(held));
        ResponseFuture::new(WithShared::new(shared, call))
    }

    fn rejected<F>(&self, rejection: Rejection) -> ResponseFuture<F, C> {
        let shared = BreakerOwner { hold: None, classify: self.classify.clone() };
        ResponseFuture::new(WithShared::new(shared, Guarded::rejected(rejection)))
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C, Reject>
where
    S: Service<Req>,
    S::Error: FromRejection,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.ready_state.poll_rejecting(&self.breaker, cx, |cx| self.inner.poll_ready(cx))
    }

    // Closed and healthy: 2 RMWs on this thread's reference count, and of the circuit one load here, one in
    // `poll_ready` and two at the end; a time window adds one store to the thread's own line and one clock read, slow
    // calls one more clock read. No allocation. NotAdmitted: no RMW.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        match self.ready_state.admit_rejecting(&self.breaker.0) {
            Ok(admitted) => self.admitted(self.breaker.0.acquire_ref(), admitted, request),
            Err(rejection) => self.rejected(rejection),
        }
    }
}

impl<S, C, Req> Service<Req> for CircuitBreakerService<S, C, Backpressure>
where
    S: Service<Req>,
    S::Error: FromRejection,
    C: Classify<S::Response, S::Error> + Clone,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, C>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        if self.ready_state.poll_admitting(&self.breaker, cx).is_pending() {
            return Poll::Pending;
        }
        let inner = self.inner.poll_ready(cx);
        if !matches!(inner, Poll::Ready(Ok(()))) {
            // A probe's place is not kept while the service is not ready: others could use it.
            self.ready_state = ReadyState::Nothing;
        }
        inner
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let admitted = match mem::replace(&mut self.ready_state, ReadyState::Nothing) {
            ReadyState::Probe(held) if is_current(&held) => {
                let (hold, place) = held.release();
                let admitted = place.begin(&hold);
                return self.admitted(hold, admitted, request);
            }
            _ => self.breaker.0.admit(),
        };
        match admitted {
            Ok(admitted) => self.admitted(self.breaker.0.acquire_ref(), admitted, request),
            Err(rejection) => self.rejected(rejection),
        }
    }
}
