//! The state that all clones and calls of one fallback share, and the guard of a call.

use std::sync::Arc;

use crate::{
    classify::{Classify, DefaultClassifier},
    event::{EventEmitter, EventKind, Served},
    shared::striped::StripedRef,
};

pub(super) struct FallbackInner<V, W> {
    pub(super) serve: Arc<V>,
    pub(super) when: W,
    pub(super) events: EventEmitter,
}

impl<V, W> AsRef<EventEmitter> for FallbackInner<V, W> {
    fn as_ref(&self) -> &EventEmitter {
        &self.events
    }
}

impl<V, W> AsRef<EventEmitter> for StripedRef<FallbackInner<V, W>> {
    fn as_ref(&self) -> &EventEmitter {
        &self.events
    }
}

/// A call whose events are reported. Dropping it before it completes cancels the call.
pub(super) struct ObservedCall<H: AsRef<EventEmitter>> {
    shared: H,
    completed: bool,
}

impl<H: AsRef<EventEmitter>> ObservedCall<H> {
    /// Starts a call. If the observer panics, the call is cancelled.
    pub(super) fn begin(shared: H) -> Self {
        let call = Self { shared, completed: false };
        call.shared.as_ref().emit(|| EventKind::Admitted);
        call
    }

    pub(super) fn shared(&self) -> &H {
        &self.shared
    }

    pub(super) fn fallback_served(&self, served: Served) {
        self.shared.as_ref().emit(|| EventKind::FallbackServed { served });
    }

    /// Completes the call with the result that the caller gets, which also determines the verdict.
    pub(super) fn complete<T, E>(&mut self, result: &Result<T, E>) {
        self.completed = true;
        let verdict = DefaultClassifier.classify(result.as_ref());
        self.shared.as_ref().emit(|| EventKind::Completed { verdict, elapsed: None });
    }
}

impl<H: AsRef<EventEmitter>> Drop for ObservedCall<H> {
    fn drop(&mut self) {
        if !self.completed {
            self.shared.as_ref().emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}
