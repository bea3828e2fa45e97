use tower_layer::Layer;

use super::{inner_service::InnerService, service::FullResponse};

/// Applies layers to a service so that they cover its whole responses. See the [module
/// docs](super).
#[derive(Clone, Copy, Debug)]
pub struct FullResponseLayer<L> {
    layers: L,
}

impl<L> FullResponseLayer<L> {
    /// Wraps `layers`: circuit breakers, bulkheads, timeouts, rate limiters, but no retry.
    pub const fn new(layers: L) -> Self {
        Self { layers }
    }
}

impl<S, L> Layer<S> for FullResponseLayer<L>
where
    L: Layer<InnerService<S>>,
{
    type Service = FullResponse<L::Service>;

    fn layer(&self, inner: S) -> Self::Service {
        FullResponse::new(self.layers.layer(InnerService::new(inner)))
    }
}
