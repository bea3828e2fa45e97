use std::{
    fmt,
    hash::Hash,
    mem,
    task::{Context, Poll},
};

use tower_layer::Layer;
use tower_service::Service;

use super::{Evict, PerKey, PerKeyFuture};

/// Puts the handle of each request's key around a service. Made by [`PerKey::layer`].
pub struct PerKeyLayer<K, H, F, L> {
    handles: PerKey<K, H>,
    key: F,
    layer: L,
}

impl<K, H> PerKey<K, H> {
    /// The layer that looks up the handle of each request's key, which `key` finds, and calls the service through the
    /// layer that `layer` makes of the handle: any of its modes, or several around each other. A request without a key
    /// goes through [`overflow`](Self::overflow).
    pub fn layer<F, L, Req, M>(&self, key: F, layer: L) -> PerKeyLayer<K, H, F, L>
    where
        F: Fn(&Req) -> Option<K>,
        L: Fn(&H) -> M,
    {
        PerKeyLayer { handles: self.clone(), key, layer }
    }
}

impl<K, H, F: Clone, L: Clone> Clone for PerKeyLayer<K, H, F, L> {
    fn clone(&self) -> Self {
        Self { handles: self.handles.clone(), key: self.key.clone(), layer: self.layer.clone() }
    }
}

impl<K, H, F, L> fmt::Debug for PerKeyLayer<K, H, F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKeyLayer").field("handles", &self.handles).finish_non_exhaustive()
    }
}

impl<S, K, H, F: Clone, L: Clone> Layer<S> for PerKeyLayer<K, H, F, L> {
    type Service = PerKeyService<S, K, H, F, L>;

    fn layer(&self, inner: S) -> Self::Service {
        PerKeyService { inner, per: self.clone() }
    }
}

/// Service made by [`PerKeyLayer`].
pub struct PerKeyService<S, K, H, F, L> {
    inner: S,
    per: PerKeyLayer<K, H, F, L>,
}

impl<S, K, H, F, L> PerKeyService<S, K, H, F, L> {
    /// The handles.
    pub fn handles(&self) -> &PerKey<K, H> {
        &self.per.handles
    }
}

service_access!(PerKeyService, K, H, F, L);

impl<S: Clone, K, H, F: Clone, L: Clone> Clone for PerKeyService<S, K, H, F, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), per: self.per.clone() }
    }
}

impl<S: fmt::Debug, K, H, F, L> fmt::Debug for PerKeyService<S, K, H, F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKeyService").field("inner", &self.inner).field("per", &self.per).finish()
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
        let handles = &self.per.handles;
        let handle =
            (self.per.key)(&request).map_or_else(|| handles.overflow().clone(), |key| handles.get_or_create(&key));
        // The instance that was polled ready makes the call.
        let clone = self.inner.clone();
        let ready = mem::replace(&mut self.inner, clone);
        PerKeyFuture::new((self.per.layer)(&handle).layer(ready), request)
    }
}
