use std::{
    fmt,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    Retry,
    future::ResponseFuture,
    inner::RetryInner,
    retry_call::{AttemptSource, HasRetry, StartingRetryCall},
};
use crate::{
    call::{Leaf, WithShared},
    classify::{Classify, DefaultClassifier},
    request::{Cloned, Repeat},
    shared::striped::StripedArc,
};

/// Service made by [`RetryLayer`](super::RetryLayer).
///
/// There is no `get_mut`: further attempts are made on clones of the service as it was when it was wrapped.
pub struct RetryService<S, C = DefaultClassifier, Q = Cloned> {
    inner: S,
    call_site: StripedArc<CallSite<S, C, Q>>,
}

/// What the calls of one service need of it, shared by its clones: so that a call clones neither the service (layers
/// within have counters that all threads share) nor the classifier.
pub(super) struct CallSite<S, C, Q> {
    pub(super) retry: Retry,
    pub(super) classify: C,
    pub(super) repeat: Q,
    /// The service that further attempts are made on. Locked to clone it, by a retry that is about to wait anyway.
    template: Mutex<S>,
}

impl<S: Clone, C, Q> AttemptSource<Leaf<S>> for CallSite<S, C, Q> {
    fn service(&self) -> Leaf<S> {
        Leaf::new(self.template.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl<S, C, Q> HasRetry for CallSite<S, C, Q> {
    type AttemptShared = ();
    type Classifier = C;
    type Repeat = Q;

    #[inline(always)]
    fn retry(&self) -> Option<&RetryInner> {
        Some(&self.retry.0)
    }

    fn attempts(&self) -> &() {
        &()
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.classify
    }

    #[inline(always)]
    fn repeat(&self) -> &Q {
        &self.repeat
    }
}

impl<S: Clone> RetryService<S> {
    /// Judges by [`DefaultClassifier`] and clones requests.
    pub fn new(inner: S, retry: &Retry) -> Self {
        Self::with(inner, retry, DefaultClassifier, Cloned)
    }
}

impl<S: Clone, C, Q> RetryService<S, C, Q> {
    pub(super) fn with(inner: S, retry: &Retry, classify: C, repeat: Q) -> Self {
        let template = Mutex::new(inner.clone());
        Self { inner, call_site: StripedArc::new(CallSite { retry: retry.clone(), classify, repeat, template }) }
    }
}

impl<S, C, Q> RetryService<S, C, Q> {
    /// The retry.
    pub fn retry(&self) -> &Retry {
        &self.call_site.retry
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, C, Q> Clone for RetryService<S, C, Q> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), call_site: self.call_site.clone() }
    }
}

impl<S: fmt::Debug, C, Q> fmt::Debug for RetryService<S, C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryService").field("inner", &self.inner).field("retry", &self.call_site.retry).finish()
    }
}

impl<S, C, Q, Req> Service<Req> for RetryService<S, C, Q>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    Q: Repeat<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, Req, C, Q>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 2 RMWs on this thread's reference count and one load of the budget; no clock without a deadline of its own, no
    // allocation but what copying the request takes.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let call_site = self.call_site.acquire_ref();
        let beginning = StartingRetryCall::new(&*call_site, &request);
        let call = beginning.started(Leaf::new(self.inner.call(request)));
        ResponseFuture::new(WithShared::new(call_site, call))
    }
}
