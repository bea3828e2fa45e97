//! The state that a pattern keeps of a call in flight.

use std::{marker::PhantomData, ops::Deref};

use super::panic_guard::cancel;
use crate::{
    classify::{Classify, DefaultClassifier},
    event::{EventEmitter, EventKind},
    verdict::Verdict,
};

/// A pattern's state of one call, such as a permit. Plain data: [`Finish::finish`] or
/// [`cancel`](Self::cancel) must consume it.
pub(crate) trait InFlight<P: ?Sized> {
    /// The call was dropped before it completed: by its caller, or by a panic that is not the
    /// service's.
    fn cancel(self, shared: &P);
}

/// The [`InFlight`] state of a call that is made.
pub(crate) trait Finish<P: ?Sized>: InFlight<P> {
    /// The call completed with this verdict. Releases what is held now, however long the caller
    /// keeps the future.
    fn finish(self, shared: &P, verdict: Verdict);
}

/// The state of calls with such results.
pub(crate) trait Complete<P: ?Sized, T, E>: Finish<P> {
    /// Returns how the result counts. May call foreign code, so the state is still guarded.
    fn verdict(shared: &P, result: Result<&T, &E>) -> Verdict;

    /// Completes the call with the verdict on its result.
    #[inline(always)]
    fn finish_with(self, shared: &P, verdict: Verdict, result: Result<&T, &E>)
    where
        Self: Sized,
    {
        let _ = result;
        self.finish(shared, verdict);
    }
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

    /// Completes the call with this verdict. Does nothing if the state is consumed already.
    #[inline(always)]
    pub(crate) fn finish(&mut self, verdict: Verdict)
    where
        K: Finish<H::Target>,
    {
        self.consume(|shared, in_flight| in_flight.finish(shared, verdict));
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
    // Not inlined, it would force the guard into memory.
    #[inline(always)]
    fn drop(&mut self) {
        self.consume(|shared, in_flight| cancel(shared, in_flight));
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

impl<K, P: HasEvents<K> + ?Sized> Finish<P> for EventOnly<K> {
    #[inline(always)]
    fn finish(self, shared: &P, verdict: Verdict) {
        if let Some(events) = shared.events() {
            events.emit(|| EventKind::Completed { verdict, elapsed: None });
        }
    }
}

impl<K, P: HasEvents<K> + ?Sized, T, E> Complete<P, T, E> for EventOnly<K> {
    #[inline(always)]
    fn verdict(_shared: &P, result: Result<&T, &E>) -> Verdict {
        DefaultClassifier.classify(result)
    }
}

/// Emits [`EventKind::Admitted`]. If the observer panics, the call is cancelled.
#[inline(never)]
pub(crate) fn emit_admitted<P: ?Sized, K: InFlight<P>>(events: &EventEmitter, shared: &P, in_flight: K) -> K {
    let guard = CancelOnDrop::new(shared, in_flight);
    events.emit(|| EventKind::Admitted);
    guard.disarm().1
}
