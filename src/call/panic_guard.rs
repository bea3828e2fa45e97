//! Whose panic ends a call.
//!
//! A panic that comes out of the inner service (its `call`, a poll of its future, the `poll_ready`
//! of a retry's next attempt) completes the call as a failure, when it passes: the call's future
//! may be kept, or dropped much later. Every other panic cancels the call: that of an observer, a
//! classifier or a clock, or of another future that is polled in the same task.

use std::mem;

use super::in_flight::{CancelOnDrop, Complete, Finish, InFlight};
use crate::{shared::unwind, verdict::Verdict};

/// Guards in-flight state while the inner service's `call` runs. Only a panic of the service drops
/// it, which completes the call as a failure.
#[must_use]
pub(crate) struct StartingCall<'a, P: ?Sized, K: Finish<P>>(Option<(&'a P, K)>);

impl<'a, P: ?Sized, K: Finish<P>> StartingCall<'a, P, K> {
    /// Without in-flight state, the call bypasses the pattern.
    #[inline(always)]
    pub(crate) fn new(shared: &'a P, in_flight: Option<K>) -> Self {
        Self(in_flight.map(|in_flight| (shared, in_flight)))
    }

    /// A call that bypasses the pattern.
    #[inline(always)]
    pub(crate) fn bypassing() -> Self {
        Self(None)
    }

    /// The service has started the call.
    #[inline(always)]
    pub(crate) fn started(mut self) -> Option<K> {
        self.0.take().map(|(_, in_flight)| in_flight)
    }
}

impl<P: ?Sized, K: Finish<P>> Drop for StartingCall<'_, P, K> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some((shared, in_flight)) = self.0.take() {
            fail(shared, in_flight);
        }
    }
}

/// Guards in-flight state, in its place in the call's future, while the inner service runs. Only a
/// panic of the service drops it, which completes the call as a failure: every other path must
/// [`leave`](Self::leave) it.
#[must_use]
pub(crate) struct ServiceGuard<'a, P: ?Sized, K: Finish<P>> {
    shared: &'a P,
    in_flight: &'a mut Option<K>,
}

impl<'a, P: ?Sized, K: Finish<P>> ServiceGuard<'a, P, K> {
    #[inline(always)]
    pub(crate) fn enter(shared: &'a P, in_flight: &'a mut Option<K>) -> Self {
        Self { shared, in_flight }
    }

    #[inline(always)]
    pub(crate) fn leave(self) {
        mem::forget(self);
    }
}

impl<P: ?Sized, K: Finish<P>> Drop for ServiceGuard<'_, P, K> {
    #[inline(always)]
    fn drop(&mut self) {
        fail_in_place(self.shared, self.in_flight);
    }
}

/// Guards in-flight state, in its place in the call's future, through a poll in which the inner
/// service and other code take turns. Only a panic drops it, which completes the call as a failure
/// if it is the service's and cancels the call otherwise: every other path must
/// [`disarm`](Self::disarm) it.
#[must_use]
pub(crate) struct PanicGuard<'a, P: ?Sized, K: Finish<P>> {
    shared: &'a P,
    in_flight: &'a mut Option<K>,
    in_service: bool,
}

impl<'a, P: ?Sized, K: Finish<P>> PanicGuard<'a, P, K> {
    #[inline(always)]
    pub(crate) fn new(shared: &'a P, in_flight: &'a mut Option<K>) -> Self {
        Self { shared, in_flight, in_service: false }
    }

    /// The inner service runs from now on.
    #[inline(always)]
    pub(crate) fn enter_service(&mut self) {
        self.in_service = true;
    }

    /// The inner service has returned.
    #[inline(always)]
    pub(crate) fn leave_service(&mut self) {
        self.in_service = false;
    }

    /// The state, until it is consumed.
    #[inline(always)]
    pub(crate) fn in_flight(&mut self) -> Option<&mut K> {
        self.in_flight.as_mut()
    }

    /// Takes the state, which must be consumed immediately.
    #[inline(always)]
    pub(crate) fn take(&mut self) -> Option<K> {
        self.in_flight.take()
    }

    /// Leaves the state where it is.
    #[inline(always)]
    pub(crate) fn disarm(self) {
        mem::forget(self);
    }
}

impl<P: ?Sized, K: Finish<P>> Drop for PanicGuard<'_, P, K> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(in_flight) = self.in_flight.take() {
            if self.in_service {
                fail(self.shared, in_flight);
            } else {
                cancel(self.shared, in_flight);
            }
        }
    }
}

/// Completes a call with `result`. Does nothing if it has completed, or bypasses the pattern.
#[inline(always)]
pub(crate) fn complete<P: ?Sized, K, T, E>(shared: &P, in_flight: &mut Option<K>, result: Result<&T, &E>)
where
    K: Complete<P, T, E>,
{
    if let Some(in_flight) = in_flight.take() {
        // A panic of the classifier cancels the call.
        let guard = CancelOnDrop::new(shared, in_flight);
        let verdict = K::verdict(shared, result);
        let (_, in_flight) = guard.disarm();
        in_flight.finish_with(shared, verdict, result);
    }
}

#[cold]
#[inline(never)]
fn fail_in_place<P: ?Sized, K: Finish<P>>(shared: &P, in_flight: &mut Option<K>) {
    if let Some(in_flight) = in_flight.take() {
        fail(shared, in_flight);
    }
}

#[cold]
fn fail<P: ?Sized, K: Finish<P>>(shared: &P, in_flight: K) {
    unwind::contain(|| in_flight.finish(shared, Verdict::Failure));
}

/// Cancels a call from a destructor.
#[cold]
pub(super) fn cancel<P: ?Sized, K: InFlight<P>>(shared: &P, in_flight: K) {
    unwind::contain(|| in_flight.cancel(shared));
}
