//! The state that a pattern keeps of a call in flight.

use std::{marker::PhantomData, ops::Deref};

use crate::{
    classify::{Classify, DefaultClassifier},
    event::{EventEmitter, EventKind},
};

/// A pattern's state of one call, such as a permit. Plain data: [`Complete::complete`] or
/// [`cancel`](Self::cancel) must consume it.
pub(crate) trait InFlight<P: ?Sized> {
    /// The call was dropped before it completed: by its caller, or by a panic.
    fn cancel(self, shared: &P);
}

/// [`InFlight`] state of calls with such results.
pub(crate) trait Complete<P: ?Sized, T, E>: InFlight<P> {
    /// The call completed with `result`. Releases what is held now, however long the caller keeps
    /// the future.
    fn complete(self, shared: &P, result: Result<&T, &E>);
}

/// In-flight state together with its shared state. Cancels the call when it is dropped.
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
    pub(crate) fn new(shared: H, in_flight: K) -> Self {
        Self(Some((shared, in_flight)))
    }

    /// A guard of nothing, for a call that bypasses the pattern.
    #[inline(always)]
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Both parts, until the state is consumed.
    pub(crate) fn get(&self) -> Option<(&H::Target, &K)> {
        self.0.as_ref().map(|(shared, in_flight)| (&**shared, in_flight))
    }

    /// The in-flight state.
    #[inline(always)]
    pub(crate) fn in_flight_mut(&mut self) -> &mut K {
        &mut self.0.as_mut().expect("in-flight state is consumed last").1
    }

    /// Disarms the guard and returns both parts.
    #[inline(always)]
    pub(crate) fn disarm(mut self) -> (H, K) {
        self.0.take().expect("in-flight state is consumed once")
    }

    /// Disarms the guard and returns the in-flight state, if there is any.
    #[inline(always)]
    pub(crate) fn into_in_flight(mut self) -> Option<K> {
        self.0.take().map(|(_, in_flight)| in_flight)
    }

    /// Completes the call with `result`.
    #[inline(always)]
    pub(crate) fn complete<T, E>(self, result: Result<&T, &E>)
    where
        K: Complete<H::Target, T, E>,
    {
        let (shared, in_flight) = self.disarm();
        in_flight.complete(&shared, result);
    }

    /// Consumes the state by `consume`. Does nothing if it is consumed already.
    #[inline(always)]
    pub(crate) fn consume(&mut self, consume: impl FnOnce(&H::Target, K)) {
        if let Some((shared, in_flight)) = self.0.take() {
            consume(&shared, in_flight);
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
        self.consume(|shared, in_flight| in_flight.cancel(shared));
    }
}

/// Gives access to the events of the pattern `K`.
pub(crate) trait HasEvents<K> {
    /// `None` when the call reports to no observer.
    fn events(&self) -> Option<&EventEmitter>;
}

impl<K> HasEvents<K> for EventEmitter {
    fn events(&self) -> Option<&EventEmitter> {
        Some(self)
    }
}

/// The in-flight state of a pattern that holds nothing during a call and only reports how the call
/// ends.
pub(crate) struct EventOnly<K>(PhantomData<fn() -> K>);

impl<K> EventOnly<K> {
    /// Reports that the call is admitted.
    #[inline(always)]
    pub(crate) fn admitted(events: &EventEmitter) -> Self {
        if events.has_observer() { emit_admitted(events, events, Self(PhantomData)) } else { Self(PhantomData) }
    }
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
            events.emit(|| EventKind::Completed { verdict: DefaultClassifier.classify(result), elapsed: None });
        }
    }
}

/// Emits [`EventKind::Admitted`]. If the observer panics, the call is cancelled.
#[inline(never)]
pub(crate) fn emit_admitted<P: ?Sized, K: InFlight<P>>(events: &EventEmitter, shared: &P, in_flight: K) -> K {
    let guard = CancelOnDrop::new(shared, in_flight);
    events.emit(|| EventKind::Admitted);
    guard.disarm().1
}
