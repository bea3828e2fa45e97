//! What a pattern keeps of a call while it runs.

use std::{marker::PhantomData, ops::Deref};

use crate::{
    classify::{Classify, ResultClassifier},
    event::{EventEmitter, EventKind},
};

/// What a pattern keeps of one call, such as a permit. Plain data: to be used up by [`Complete::complete`] or by this.
pub(crate) trait InFlight<P: ?Sized> {
    /// The call was dropped before it ended, by whoever waited for it or by a panic.
    fn cancel(self, shared: &P);
}

/// A [`InFlight`] for calls with such results.
pub(crate) trait Complete<P: ?Sized, T, E>: InFlight<P> {
    /// The call ended so: release now, however long the future's value is kept.
    fn complete(self, shared: &P, result: Result<&T, &E>);
}

/// What lends the voice of the pattern `K`, which keeps nothing of a call.
pub(crate) trait HasEvents<K> {
    /// `None` when nobody listens, or the pattern was left out of the stack.
    fn events(&self) -> Option<&EventEmitter>;
}

/// The ticket of a pattern that keeps nothing of a call: says how it ended, to those who listen.
pub(crate) struct EventOnly<K>(PhantomData<fn() -> K>);

impl<K> EventOnly<K> {
    /// The call is let in.
    #[inline(always)]
    pub(crate) fn admitted(events: &EventEmitter) -> Self {
        if events.has_observer() { emit_admitted(events, events, Self(PhantomData)) } else { Self(PhantomData) }
    }
}

impl<K> HasEvents<K> for EventEmitter {
    fn events(&self) -> Option<&EventEmitter> {
        Some(self)
    }
}

/// Tells those who listen that a call was admitted: if one of them panics, the call is cancelled.
#[inline(never)]
pub(crate) fn emit_admitted<P: ?Sized, K: InFlight<P>>(events: &EventEmitter, shared: &P, ticket: K) -> K {
    let held = CancelOnDrop::new(shared, ticket);
    events.emit(|| EventKind::Admitted);
    held.release().1
}

impl<K, P: HasEvents<K> + ?Sized> InFlight<P> for EventOnly<K> {
    fn cancel(self, shared: &P) {
        if let Some(events) = shared.events() {
            events.emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}

impl<K, P: HasEvents<K> + ?Sized, T, E> Complete<P, T, E> for EventOnly<K> {
    #[inline(always)]
    fn complete(self, shared: &P, result: Result<&T, &E>) {
        if let Some(events) = shared.events() {
            events.emit(|| EventKind::Completed { verdict: ResultClassifier.classify(result), elapsed: None });
        }
    }
}

/// A ticket with its handle, which cancels itself when it is dropped.
#[derive(Debug)]
pub(crate) struct CancelOnDrop<H, K>(Option<(H, K)>)
where
    H: Deref,
    K: InFlight<H::Target>;

impl<H, K> CancelOnDrop<H, K>
where
    H: Deref,
    K: InFlight<H::Target>,
{
    #[inline(always)]
    pub(crate) fn new(holder: H, ticket: K) -> Self {
        Self(Some((holder, ticket)))
    }

    /// Both, while the ticket is there.
    pub(crate) fn get(&self) -> Option<(&H::Target, &K)> {
        self.0.as_ref().map(|(holder, ticket)| (&**holder, ticket))
    }

    /// The ticket, to change it.
    #[inline(always)]
    pub(crate) fn ticket(&mut self) -> &mut K {
        &mut self.0.as_mut().expect("a ticket is used up last").1
    }

    /// Hands the ticket to somebody else.
    #[inline(always)]
    pub(crate) fn release(mut self) -> (H, K) {
        self.0.take().expect("a ticket is handed on once")
    }

    /// The call ended so.
    #[inline(always)]
    pub(crate) fn complete<T, E>(self, result: Result<&T, &E>)
    where
        K: Complete<H::Target, T, E>,
    {
        let (holder, ticket) = self.release();
        ticket.complete(&holder, result);
    }

    /// Uses the ticket up in another way.
    #[inline(always)]
    pub(crate) fn with(&mut self, use_up: impl FnOnce(&H::Target, K)) {
        if let Some((holder, ticket)) = self.0.take() {
            use_up(&holder, ticket);
        }
    }
}

impl<H, K> Drop for CancelOnDrop<H, K>
where
    H: Deref,
    K: InFlight<H::Target>,
{
    #[inline]
    fn drop(&mut self) {
        self.with(|shared, ticket| ticket.cancel(shared));
    }
}
