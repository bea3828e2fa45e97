use std::{
    fmt,
    hash::Hash,
    mem,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{evict::Evict, future::PerKeyFuture, handle::PerKey};

/// Service made by [`PerKeyLayer`](super::PerKeyLayer).
pub struct PerKeyService<S, K, H, F, L> {
    inner: S,
    handles: PerKey<K, H>,
    key: F,
    layer: L,
}

impl<S, K, H, F, L> PerKeyService<S, K, H, F, L> {
    pub(super) fn new(inner: S, handles: PerKey<K, H>, key: F, layer: L) -> Self {
        Self { inner, handles, key, layer }
    }

    /// Returns the handles.
    pub fn handles(&self) -> &PerKey<K, H> {
        &self.handles
    }
}

service_access!(PerKeyService, K, H, F, L);

impl<S: Clone, K, H, F: Clone, L: Clone> Clone for PerKeyService<S, K, H, F, L> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            handles: self.handles.clone(),
            key: self.key.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S: fmt::Debug, K, H, F, L> fmt::Debug for PerKeyService<S, K, H, F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKeyService")
            .field("inner", &self.inner)
            .field("handles", &self.handles)
            .finish_non_exhaustive()
    }
}

impl<S, K, H, F, L, M, Req> Service<Req> for PerKeyService<S, K, H, F, L>
where
    S: Service<Req> + Clone,
    K: Eq + Hash + Clone + fmt::Display,
    H: Evict,
    F: Fn(&Req) -> Option<K>,
    L: Fn(&H) -> M,
    M: Layer<S>,
    M::Service: Service<Req, Error = S::Error>,
{
    type Response = <M::Service as Service<Req>>::Response;
    type Error = S::Error;
    type Future = PerKeyFuture<M::Service, Req>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let handle = match (self.key)(&request) {
            Some(key) => self.handles.get_or_create(&key),
            None => self.handles.overflow().clone(),
        };
        // The instance that was polled ready makes the call.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        PerKeyFuture::new((self.layer)(&handle).layer(ready), request)
    }
}
