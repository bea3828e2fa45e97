use std::marker::PhantomData;

use tower_layer::Layer;

use super::{Bulkhead, BulkheadService};
use crate::readiness::{Backpressure, Reject, Wait};

/// Puts a [`Bulkhead`] around a service.
///
/// `M` is the [readiness mode](crate::readiness): refuse at once (the default), [`backpressure`](Self::backpressure), or
/// [`wait`](Self::wait) in the call.
#[derive(Clone, Debug)]
pub struct BulkheadLayer<M = Reject> {
    bulkhead: Bulkhead,
    mode: PhantomData<fn() -> M>,
}

impl BulkheadLayer {
    /// Refuses at once what exceeds the limit.
    pub fn new(bulkhead: &Bulkhead) -> Self {
        Self { bulkhead: bulkhead.clone(), mode: PhantomData }
    }
}

impl<M> BulkheadLayer<M> {
    /// Takes the permit in `poll_ready`, which is pending until there is one. `max_wait` and `max_queue` do not apply.
    pub fn backpressure(self) -> BulkheadLayer<Backpressure> {
        BulkheadLayer { bulkhead: self.bulkhead, mode: PhantomData }
    }

    /// Waits in the response future, for up to `max_wait` and with up to `max_queue` others. The service must be
    /// `Clone`; it is cloned only by a call that has to wait.
    pub fn wait(self) -> BulkheadLayer<Wait> {
        BulkheadLayer { bulkhead: self.bulkhead, mode: PhantomData }
    }
}

impl<S, M> Layer<S> for BulkheadLayer<M> {
    type Service = BulkheadService<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        BulkheadService::with(inner, &self.bulkhead)
    }
}
