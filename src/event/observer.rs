use std::sync::Arc;

use super::Event;
use crate::shared::unwind::{self, finally};

/// Receives the events of the handles that it is set on.
///
/// Implemented for `Arc<O>`, for pairs `(A, B)` (both receive each event, `A` first, and `B` even
/// if `A` panics) and for every `Fn(&Event<'_>) + Send + Sync`.
pub trait Observer: Send + Sync + 'static {
    /// Receives an event. Runs on the call path: be quick, do not block.
    fn on_event(&self, event: &Event<'_>);
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn on_event(&self, event: &Event<'_>) {
        (**self).on_event(event);
    }
}

impl<A: Observer, B: Observer> Observer for (A, B) {
    fn on_event(&self, event: &Event<'_>) {
        // `B` receives the event even if `A` panics.
        let _second = finally(|| unwind::contain(|| self.1.on_event(event)));
        self.0.on_event(event);
    }
}

impl<F> Observer for F
where
    F: Fn(&Event<'_>) + Send + Sync + 'static,
{
    fn on_event(&self, event: &Event<'_>) {
        self(event);
    }
}
