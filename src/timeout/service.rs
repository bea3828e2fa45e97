use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    Fixed, RequestLimit, Timeout,
    future::ResponseFuture,
    inner::{TimeoutOf, TimeoutOwner},
    timed_call::{StartingTimedCall, TimedCall},
};
use crate::{
    call::{CallService, LeafCall, PatternService, RejectCall, Rejectable, WithShared},
    error::{FromRejection, Rejection},
    state::time::nanos_of,
};

/// The call service of a timeout of the kind `K`.
pub(crate) struct WithTimeout<S, K> {
    inner: S,
    kind: PhantomData<fn() -> K>,
}

impl<S, K> WithTimeout<S, K> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner, kind: PhantomData }
    }
}

impl<S: Clone, K> Clone for WithTimeout<S, K> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone())
    }
}

impl<P, S, K, Req> PatternService<P, Req> for WithTimeout<S, K>
where
    P: TimeoutOf<K>,
    S: CallService<P, Req, Call: RejectCall>,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = TimedCall<S::Call, K>;
    /// The limit in nanoseconds.
    type Admission = Option<u64>;

    #[inline(always)]
    fn poll_ready(&mut self, _enabled: bool, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(shared, cx)
    }

    #[inline(always)]
    fn admit(&mut self, shared: &P) -> Option<u64> {
        Some(shared.timeout().limit())
    }

    #[inline(always)]
    fn bypass() -> Option<u64> {
        None
    }

    #[inline(always)]
    fn start(&mut self, shared: &P, limit: Option<u64>, request: Req) -> Self::Call {
        let mut saved = None;
        match StartingTimedCall::new(shared, limit, &mut saved) {
            Ok(starting) => starting.started(self.inner.call(shared, request)),
            Err(rejection) => TimedCall::rejected(rejection),
        }
    }
}

/// The service of a [`TimeoutLayer`](super::TimeoutLayer).
pub struct TimeoutService<S, D = Fixed> {
    inner: S,
    timeout: Timeout,
    limits: D,
}

impl<S> TimeoutService<S> {
    /// Creates a service with the same limit for all requests.
    pub fn new(inner: S, timeout: &Timeout) -> Self {
        Self::with(inner, timeout, Fixed)
    }
}

impl<S, D> TimeoutService<S, D> {
    pub(super) fn with(inner: S, timeout: &Timeout, limits: D) -> Self {
        Self { inner, timeout: timeout.clone(), limits }
    }

    /// Returns the timeout.
    pub fn timeout(&self) -> &Timeout {
        &self.timeout
    }
}

service_access!(TimeoutService<S, D>, inner);

impl<S: Clone, D: Clone> Clone for TimeoutService<S, D> {
    fn clone(&self) -> Self {
        Self::with(self.get_ref().clone(), &self.timeout, self.limits.clone())
    }
}

impl<S: fmt::Debug, D: fmt::Debug> fmt::Debug for TimeoutService<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutService")
            .field("inner", self.get_ref())
            .field("timeout", &self.timeout)
            .field("limits", &self.limits)
            .finish()
    }
}

impl<S, D, Req> Service<Req> for TimeoutService<S, D>
where
    S: Service<Req>,
    S::Error: FromRejection,
    D: RequestLimit<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // Ready at the first poll, with a `&'static str` for a name and no observer: one load of the
    // limit and a few accesses to a thread-local; no RMW, no clock read, no timer, no allocation.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let arriving = self.timeout.0.events.arriving();
        let limit = self.limits.limit(&request);
        arriving.arrived();
        let limit = limit.map_or_else(|| self.timeout.0.limit(), nanos_of);
        let owner = TimeoutOwner::of(&self.timeout.0);
        let mut saved = None;
        let call = match StartingTimedCall::new(&owner, Some(limit), &mut saved) {
            Ok(starting) => starting.started(LeafCall::new(self.inner.call(request))),
            Err(rejection) => return ResponseFuture::new(Rejectable::rejected(rejection)),
        };
        ResponseFuture::new(Rejectable::started(WithShared::new(owner, call)))
    }
}
