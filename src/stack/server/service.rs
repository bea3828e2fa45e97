use std::{
    fmt,
    task::{Context, Poll},
};

use tower_service::Service;

use crate::{
    call::{CallService, RejectableLeaf, WithShared},
    classify::{Classify, DefaultClassifier},
    error::{AsRejection, FromRejection},
    shared::striped::StripedArc,
    stack::{future::ServerFuture, layers::ServerCalls, parts::StackParts},
};

/// The service of a [`ServerStack`](super::ServerStack).
///
/// It behaves like the separate layers, but a call owns all of their handles through one reference.
pub struct ServerService<S, C = DefaultClassifier> {
    calls: ServerCalls<RejectableLeaf<S>>,
    parts: StripedArc<StackParts<C>>,
}

impl<S, C> ServerService<S, C> {
    pub(super) fn new(calls: ServerCalls<RejectableLeaf<S>>, parts: StackParts<C>) -> Self {
        Self { calls, parts: StripedArc::new(parts) }
    }
}

impl<S: Clone, C> Clone for ServerService<S, C> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), parts: self.parts.clone() }
    }
}

impl<S, C> fmt::Debug for ServerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerService").finish_non_exhaustive()
    }
}

impl<S, C, Req> Service<Req> for ServerService<S, C>
where
    S: Service<Req> + Clone,
    S::Error: FromRejection + AsRejection,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ServerFuture<S, Req, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(&*self.parts, cx)
    }

    // Healthy, with the default parts: 4 RMWs (2 on this thread's reference count, 2 on the
    // bulkhead's permits); no clock read, but one read and one timer if the service is not ready
    // immediately. No allocation.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let parts = self.parts.acquire_ref();
        let call = self.calls.call(&*parts, request);
        ServerFuture::new(WithShared::new(parts, call))
    }
}
