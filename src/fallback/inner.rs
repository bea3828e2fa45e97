//! The state that all clones and calls of one fallback share.

use std::sync::Arc;

use crate::{
    call::{EventOnly, HasEvents},
    event::{EventEmitter, EventKind, Served},
};

pub(crate) struct FallbackInner<V, W> {
    pub(super) serve: Arc<V>,
    pub(super) when: W,
    pub(super) events: EventEmitter,
}

impl<V, W> FallbackInner<V, W> {
    pub(super) fn served(&self, served: Served) {
        self.events.emit(|| EventKind::FallbackServed { served });
    }
}

/// The state of a call, which only reports events.
pub(super) type ObservedCall = EventOnly<Fallback>;

/// Names the pattern whose events [`ObservedCall`] reports.
pub(super) struct Fallback;

impl<V, W> HasEvents<Fallback> for FallbackInner<V, W> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        Some(&self.events)
    }
}
