use std::{
    fmt,
    task::{Context, Poll},
};

use tower_service::Service;

use super::ClientShared;
use crate::{
    call::{CallService, RejectableLeaf, WithShared},
    classify::{Classify, DefaultClassifier},
    error::{AsRejection, FromRejection},
    request::{Cloned, Repeat},
    shared::striped::StripedArc,
    stack::{future::ClientFuture, layers::ClientCalls},
};

/// The service of a [`ClientStack`](super::ClientStack), inside of its fallback.
///
/// It behaves like the separate layers, but a call owns all of their handles through one reference,
/// and the total timeout needs no timer while the attempt's timer runs.
pub struct ClientService<S, C = DefaultClassifier, Q = Cloned> {
    calls: ClientCalls<RejectableLeaf<S>>,
    shared: StripedArc<ClientShared<S, C, Q>>,
}

impl<S, C, Q> ClientService<S, C, Q> {
    pub(super) fn new(calls: ClientCalls<RejectableLeaf<S>>, shared: ClientShared<S, C, Q>) -> Self {
        Self { calls, shared: StripedArc::new(shared) }
    }
}

impl<S: Clone, C, Q> Clone for ClientService<S, C, Q> {
    fn clone(&self) -> Self {
        Self { calls: self.calls.clone(), shared: self.shared.clone() }
    }
}

impl<S, C, Q> fmt::Debug for ClientService<S, C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientService").finish_non_exhaustive()
    }
}

impl<S, C, Q, Req> Service<Req> for ClientService<S, C, Q>
where
    S: Service<Req> + Clone,
    S::Error: FromRejection + AsRejection,
    C: Classify<S::Response, S::Error>,
    Q: Repeat<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ClientFuture<S, Req, C, Q>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(&*self.shared, cx)
    }

    // Healthy, with the default parts: 4 RMWs (2 on this thread's reference count, 2 on the
    // bulkhead's permits) and one clock read, for the breaker's time window; one more read and one
    // timer if the service is not ready immediately. No allocation other than that of saving the
    // request.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let shared = self.shared.acquire_ref();
        let call = self.calls.call(&*shared, request);
        ClientFuture::new(WithShared::new(shared, call))
    }
}
