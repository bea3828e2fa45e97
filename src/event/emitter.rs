use std::{fmt, mem, sync::Arc};

use super::{Event, EventKind, Observer, misfit::Logged};
use crate::{error::Rejection, name::Name, pattern::Pattern, shared::unwind};

/// Sends a handle's events to its observer, if it has one.
#[derive(Clone)]
pub(crate) struct EventEmitter {
    pub(super) pattern: Pattern,
    pub(super) logged: Logged,
    name: Name,
    observer: Option<Arc<dyn Observer>>,
}

impl EventEmitter {
    pub(crate) fn new(pattern: Pattern, name: Name, observer: Option<Arc<dyn Observer>>) -> Self {
        Self { pattern, logged: Logged::default(), name, observer }
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    /// Returns whether there is an observer: the only branch that a call without one pays.
    #[inline]
    pub(crate) fn has_observer(&self) -> bool {
        self.observer.is_some()
    }

    /// Emits the event that `kind` makes, if there is an observer.
    #[inline]
    pub(crate) fn emit<'a>(&'a self, kind: impl FnOnce() -> EventKind<'a>) {
        if let Some(observer) = &self.observer {
            self.notify(&**observer, kind());
        }
    }

    /// Makes a rejection with this handle's name, and emits [`EventKind::Rejected`].
    #[inline(always)]
    pub(crate) fn reject(&self, make: impl FnOnce(Name) -> Rejection) -> Rejection {
        self.reject_as(make, |rejection| rejection)
    }

    /// As [`reject`](Self::reject), as part of an `R`.
    //
    // The two paths have nothing in common, so that without an observer the rejection is made where
    // the caller wants it. A copy in pieces larger than those it was written in waits until they
    // have left the store buffer.
    #[inline(always)]
    pub(crate) fn reject_as<R>(&self, make: impl FnOnce(Name) -> Rejection, reject: impl FnOnce(Rejection) -> R) -> R {
        let name = self.name.clone();
        if self.has_observer() { reject(self.emit_rejection(make(name))) } else { reject(make(name)) }
    }

    #[inline(never)]
    fn emit_rejection(&self, rejection: Rejection) -> Rejection {
        self.emit(|| EventKind::Rejected { rejection: &rejection });
        rejection
    }

    #[inline(never)]
    fn notify(&self, observer: &dyn Observer, kind: EventKind<'_>) {
        let event = Event { pattern: self.pattern, name: &self.name, kind };
        unwind::contain(|| observer.on_event(&event));
    }

    /// Guards a call that has reached the handle, until it is admitted or rejected.
    #[inline(always)]
    pub(crate) fn arriving(&self) -> Arriving<'_> {
        Arriving(self)
    }
}

/// A call that is neither admitted nor rejected yet. Only a panic of foreign code, such as a clock,
/// drops it, which reports the call as cancelled.
#[must_use]
pub(crate) struct Arriving<'a>(&'a EventEmitter);

impl Arriving<'_> {
    /// The call is about to be admitted or rejected, which has an event of its own.
    #[inline(always)]
    pub(crate) fn arrived(self) {
        mem::forget(self);
    }
}

impl Drop for Arriving<'_> {
    #[cold]
    fn drop(&mut self) {
        self.0.emit(|| EventKind::Cancelled { admitted: false, elapsed: None });
    }
}

impl fmt::Debug for EventEmitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventEmitter")
            .field("name", &self.name)
            .field("observed", &self.has_observer())
            .finish_non_exhaustive()
    }
}
