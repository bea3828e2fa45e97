use std::{
    fmt,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    Retry,
    call_site::CallSite,
    future::ResponseFuture,
    retry_call::{AttemptSource, HasRetry, RetryCall, StartingRetryCall},
};
use crate::{
    call::{CallService, Leaf, PatternService, WithShared},
    classify::{Classify, DefaultClassifier},
    error::AsRejection,
    request::{Cloned, Repeat},
    shared::striped::StripedArc,
};

/// The call service of a retry.
#[derive(Clone)]
pub(crate) struct WithRetry<S> {
    inner: S,
}

impl<S> WithRetry<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self { inner }
    }
}

impl<P, S, Req> PatternService<P, Req> for WithRetry<S>
where
    P: HasRetry<Classifier: Classify<S::Response, S::Error>, Repeat: Repeat<Req>> + AttemptSource<S>,
    S: CallService<P::AttemptShared, Req>,
    S::Error: AsRejection,
{
    type Response = S::Response;
    type Error = S::Error;
    type Call = RetryCall<S::Call, S, Req, P::Repeat, S::Error>;
    /// Whether the call may be retried.
    type Admission = bool;

    #[inline(always)]
    fn poll_ready(&mut self, _enabled: bool, shared: &P, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(shared.attempt_shared(), cx)
    }

    #[inline(always)]
    fn admit(&mut self, _shared: &P) -> bool {
        true
    }

    #[inline(always)]
    fn bypass() -> bool {
        false
    }

    #[inline(always)]
    fn start(&mut self, shared: &P, enabled: bool, request: Req) -> Self::Call {
        let starting = StartingRetryCall::new(shared, enabled, &request);
        starting.started(self.inner.call(shared.attempt_shared(), request))
    }
}

/// The service of a [`RetryLayer`](super::RetryLayer).
///
/// There is no `get_mut`: further attempts are made on clones of the service as it was when it was
/// wrapped.
pub struct RetryService<S, C = DefaultClassifier, Q = Cloned> {
    calls: WithRetry<Leaf<S>>,
    call_site: StripedArc<CallSite<S, C, Q>>,
}

impl<S: Clone> RetryService<S> {
    /// Creates a service that classifies results with [`DefaultClassifier`] and clones requests.
    pub fn new(inner: S, retry: &Retry) -> Self {
        Self::with(inner, retry, DefaultClassifier, Cloned)
    }
}

impl<S: Clone, C, Q> RetryService<S, C, Q> {
    pub(super) fn with(inner: S, retry: &Retry, classify: C, repeat: Q) -> Self {
        let call_site = CallSite::new(retry.clone(), classify, repeat, inner.clone());
        Self { calls: WithRetry::new(Leaf::new(inner)), call_site: StripedArc::new(call_site) }
    }
}

impl<S, C, Q> RetryService<S, C, Q> {
    /// Returns the retry.
    pub fn retry(&self) -> &Retry {
        &self.call_site.retry
    }
}

service_access!(ref RetryService<S, C, Q>, calls.inner.inner);

impl<S: Clone, C, Q> Clone for RetryService<S, C, Q> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), call_site: self.call_site.clone() }
    }
}

impl<S: fmt::Debug, C, Q> fmt::Debug for RetryService<S, C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService").field("inner", self.get_ref()).field("retry", self.retry()).finish()
    }
}

impl<S, C, Q, Req> Service<Req> for RetryService<S, C, Q>
where
    S: Service<Req> + Clone,
    S::Error: AsRejection,
    C: Classify<S::Response, S::Error>,
    Q: Repeat<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, Q>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.inner.inner.poll_ready(cx)
    }

    // 2 RMWs on this thread's reference count and one load of the budget; no clock read without a
    // deadline of its own, no allocation other than that of saving the request.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let call_site = self.call_site.acquire_ref();
        let call = self.calls.start(&*call_site, true, request);
        ResponseFuture::new(WithShared::new(call_site, call))
    }
}
