use std::fmt;

use tower_layer::Layer;

use super::{handle::PerKey, service::PerKeyService};

/// Wraps a service so that each request goes through its key's handle. Made by [`PerKey::layer`].
pub struct PerKeyLayer<K, H, F, L> {
    handles: PerKey<K, H>,
    key: F,
    layer: L,
}

impl<K, H> PerKey<K, H> {
    /// Returns a layer that selects a handle by each request's key.
    ///
    /// `key` extracts the key. `layer` turns the handle into the layer through which the service is
    /// called, in any of the handle's modes; it may also stack several layers. A request without a
    /// key goes through [`overflow`](Self::overflow).
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
        PerKeyService::new(inner, self.handles.clone(), self.key.clone(), self.layer.clone())
    }
}
