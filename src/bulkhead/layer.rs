use std::marker::PhantomData;

use tower_layer::Layer;

use super::{Bulkhead, BulkheadService};
use crate::readiness::{Backpressure, Reject, Wait};

/// A layer that limits the concurrent calls of a service by a [`Bulkhead`].
///
/// `M` is the [readiness mode](crate::readiness): reject immediately (the default),
/// [`backpressure`](Self::backpressure), or [`wait`](Self::wait) in the call.
#[derive(Clone, Debug)]
pub struct BulkheadLayer<M = Reject> {
    bulkhead: Bulkhead,
    mode: PhantomData<fn() -> M>,
}

impl BulkheadLayer {
    /// Creates a layer that rejects calls above the limit immediately.
    pub fn new(bulkhead: &Bulkhead) -> Self {
        Self { bulkhead: bulkhead.clone(), mode: PhantomData }
    }
}

impl<M> BulkheadLayer<M> {
    /// Reserves a permit in `poll_ready`, which is pending until one is free. `max_wait` and
    /// `max_queue` do not apply. A reservation that is not used may
    /// [lapse](super#idle-reservations).
    ///
    /// # Panics
    ///
    /// `poll_ready` panics if it has to wait outside of a tokio runtime with time enabled.
    pub fn backpressure(self) -> BulkheadLayer<Backpressure> {
        BulkheadLayer { bulkhead: self.bulkhead, mode: PhantomData }
    }

    /// Waits in the response future, for up to `max_wait` and with up to `max_queue` others. The
    /// service must be `Clone`; only a call that has to wait clones it.
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
