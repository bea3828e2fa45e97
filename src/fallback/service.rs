use std::{
    fmt,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{
    FallbackLayer, Rejected, Serve, When,
    fallback_call::{FallbackCall, Kept},
    future::ResponseFuture,
    inner::ObservedCall,
};
use crate::call::{LeafCall, PanicGuard, StartingCall, WithShared};

/// The service of a [`FallbackLayer`].
pub struct FallbackService<S, V, W = Rejected> {
    inner: S,
    fallback: FallbackLayer<V, W>,
}

impl<S, V, W> FallbackService<S, V, W> {
    /// Creates a service that serves `fallback` in place of selected results of `inner`.
    pub fn new(inner: S, fallback: &FallbackLayer<V, W>) -> Self {
        Self { inner, fallback: fallback.clone() }
    }
}

service_access!(FallbackService, V, W);

impl<S: Clone, V, W> Clone for FallbackService<S, V, W> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), fallback: self.fallback.clone() }
    }
}

impl<S: fmt::Debug, V, W> fmt::Debug for FallbackService<S, V, W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackService").field("inner", &self.inner).field("fallback", &self.fallback).finish()
    }
}

impl<S, V, W, Req> Service<Req> for FallbackService<S, V, W>
where
    S: Service<Req>,
    V: Serve<Req, S::Response, S::Error>,
    W: When<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, Req, S::Response, S::Error, V, W>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // 2 RMWs on this thread's reference count; no clock read, no allocation other than that of
    // keeping the request.
    fn call(&mut self, request: Req) -> Self::Future {
        let shared = self.fallback.shared.acquire_ref();
        let mut in_flight = Some(ObservedCall::admitted(&shared.events));
        let guard = PanicGuard::new(&*shared, &mut in_flight);
        let kept = Kept::new(shared.serve.keep(&request));
        guard.disarm();
        let starting = StartingCall::new(&*shared, in_flight);
        let call = LeafCall::new(self.inner.call(request));
        let call = FallbackCall::started(call, kept, starting.started());
        ResponseFuture::new(WithShared::new(shared, call))
    }
}
