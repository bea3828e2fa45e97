//! Calls that a breaker has admitted, before and while they run.

use std::{cell::Cell, time::Duration};

use super::{
    inner::{CircuitBreakerInner, HasBreaker},
    reserved_probes::ProbeKey,
};
use crate::{
    call::{CancelOnDrop, Complete, Finish, InFlight, classify_result, emit_admitted},
    classify::{Classify, Verdict},
    clock::Nanos,
    error::{AsRejection, Rejection},
    event::EventKind,
    shared::{thread_id::thread_number, unwind::finally},
    state::{
        circuit::{Admitted, Outcome},
        transition::Transition,
    },
};

/// The start of a call that is not timed.
const UNTIMED: Nanos = Nanos::MAX;

/// An admission that no call has used yet. It may hold a probe slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnusedAdmission(pub(super) Admitted);

impl UnusedAdmission {
    pub(crate) fn is_probe(self) -> bool {
        self.0.is_probe()
    }

    /// Whether it still admits a call. It does not once the state has changed, or once its slot,
    /// idle for too long, was given to another caller.
    pub(crate) fn is_current(self, breaker: &CircuitBreakerInner) -> bool {
        breaker.circuit.is_current(self.0)
    }

    /// Begins the call.
    #[inline(always)]
    pub(crate) fn begin(self, breaker: &CircuitBreakerInner) -> AdmittedCall {
        if breaker.watched {
            breaker.begin_watched(self.0)
        } else {
            AdmittedCall { admitted: self.0, started: UNTIMED }
        }
    }
}

impl InFlight<CircuitBreakerInner> for UnusedAdmission {
    /// Releases the probe slot.
    fn cancel(self, breaker: &CircuitBreakerInner) {
        if self.is_probe() {
            let transition = breaker.record(self.0, Outcome::Ignored, &Measured::default());
            breaker.publish(self.0, transition);
        }
    }
}

/// A probe slot that is reserved for a service that is ready. It may lapse.
#[derive(Debug)]
pub(crate) struct ReservedProbe(ProbeKey);

impl ReservedProbe {
    pub(super) fn new(breaker: &CircuitBreakerInner) -> Option<Self> {
        breaker.reserve_probe().map(Self)
    }

    /// Renews the reservation, which its owner still wants. Returns whether it has not lapsed.
    pub(super) fn renew(&mut self, breaker: &CircuitBreakerInner) -> bool {
        let is_current = |admission: UnusedAdmission| admission.is_current(breaker);
        let renewed = breaker.reserved_probes.renew(self.0, breaker.now(), is_current);
        renewed.map(|renewed| self.0 = renewed).is_some()
    }

    /// Admits the call that the slot is reserved for. If the reservation has lapsed, the call is
    /// admitted or rejected as any other.
    pub(super) fn admit(self, breaker: &CircuitBreakerInner) -> Result<AdmittedCall, Rejection> {
        match breaker.reserved_probes.claim(self.0).filter(|admission| admission.is_current(breaker)) {
            Some(admission) => Ok(admission.begin(breaker)),
            None => breaker.admit(),
        }
    }
}

impl InFlight<CircuitBreakerInner> for ReservedProbe {
    fn cancel(self, breaker: &CircuitBreakerInner) {
        if let Some(admission) = breaker.reserved_probes.claim(self.0) {
            admission.cancel(breaker);
        }
    }
}

/// An admission whose call is about to begin.
struct Beginning(UnusedAdmission);

impl InFlight<CircuitBreakerInner> for Beginning {
    /// Releases the probe slot and reports that the call was cancelled.
    fn cancel(self, breaker: &CircuitBreakerInner) {
        let _event = finally(|| breaker.events.emit(|| EventKind::Cancelled { admitted: false, elapsed: None }));
        self.0.cancel(breaker);
    }
}

/// A call in flight that the breaker has admitted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmittedCall {
    admitted: Admitted,
    /// The time at which it began, or [`UNTIMED`].
    started: Nanos,
}

impl<P: HasBreaker> InFlight<P> for AdmittedCall {
    fn cancel(self, shared: &P) {
        shared.breaker().cancel(self);
    }
}

impl<P: HasBreaker> Finish<P> for AdmittedCall {
    #[inline(always)]
    fn finish(self, shared: &P, verdict: Verdict) {
        let breaker = shared.breaker();
        // The case of nearly all calls.
        let is_finished = verdict == Verdict::Success
            && if breaker.quiet {
                breaker.circuit.success_changes_nothing(self.admitted)
            } else {
                !breaker.watched && breaker.try_succeed(self)
            };
        if !is_finished {
            breaker.finish(self, verdict);
        }
    }
}

fn is_cut_short<T, E: AsRejection>(result: Result<&T, &E>) -> bool {
    let rejection = result.err().and_then(AsRejection::as_rejection);
    matches!(rejection, Some(Rejection::TimedOut { cut_short: true, .. }))
}

impl<P, T, E> Complete<P, T, E> for AdmittedCall
where
    P: HasBreaker,
    P::Classifier: Classify<T, E>,
    E: AsRejection,
{
    #[inline(always)]
    fn verdict(shared: &P, result: Result<&T, &E>) -> Verdict {
        classify_result(&shared.breaker().events, shared.classifier(), result)
    }

    #[inline(always)]
    fn finish_with(self, shared: &P, verdict: Verdict, result: Result<&T, &E>) {
        if verdict == Verdict::Ignored && is_cut_short(result) {
            return shared.breaker().finish_cut_short(self);
        }
        self.finish(shared, verdict);
    }
}

/// The end of a call, its duration, and whether that is slow, if slow calls are counted.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    ended: Option<Nanos>,
    elapsed: Option<Duration>,
    is_slow: bool,
}

impl CircuitBreakerInner {
    /// Begins a call that is watched.
    #[inline(never)]
    fn begin_watched(&self, admitted: Admitted) -> AdmittedCall {
        let guard = CancelOnDrop::new(self, Beginning(UnusedAdmission(admitted)));
        let started = if self.slow_after.is_some() { self.now() } else { UNTIMED };
        guard.disarm();
        let call = AdmittedCall { admitted, started };
        if self.events.has_observer() { emit_admitted(&self.events, self, call) } else { call }
    }

    /// Records an outcome in the circuit. To be [published](Self::publish).
    fn record(&self, admitted: Admitted, outcome: Outcome, measured: &Measured) -> Option<Transition> {
        let now = || measured.ended.unwrap_or_else(|| self.now());
        let open_for = |reopen_count| self.open_times.draw(reopen_count, &self.random);
        self.circuit.finish(admitted, outcome, measured.is_slow, thread_number, now, open_for)
    }

    /// Publishes the effect of an outcome that was recorded.
    fn publish(&self, admitted: Admitted, transition: Option<Transition>) {
        match transition {
            Some(transition) => self.changed(transition),
            // Its probe slot is free.
            None if admitted.is_probe() => self.wake_waiters(),
            None => {}
        }
    }

    /// Records a success of a breaker that is not watched, in the case of nearly all calls. Returns
    /// whether it is recorded.
    #[inline(never)]
    fn try_succeed(&self, call: AdmittedCall) -> bool {
        // The clock is foreign code: if it panics, nothing is recorded, and the call is cancelled.
        let guard = CancelOnDrop::new(self, call);
        let is_recorded = self.circuit.try_record_success(call.admitted, thread_number, || self.now());
        guard.disarm();
        is_recorded
    }

    /// Records and reports a call that completed with this verdict.
    #[inline(never)]
    fn finish(&self, call: AdmittedCall, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Success => Outcome::Success,
            Verdict::Failure => Outcome::Failure,
            Verdict::Throttled => Outcome::Throttled,
            Verdict::Ignored => Outcome::Ignored,
        };
        // The clock is foreign code: if it panics, nothing is recorded, and the call is cancelled.
        let guard = CancelOnDrop::new(self, call);
        let measured = self.measure(call.started);
        let transition = self.record(call.admitted, outcome, &measured);
        guard.disarm();
        let _event = finally(|| self.events.emit(|| EventKind::Completed { verdict, elapsed: measured.elapsed }));
        self.publish(call.admitted, transition);
    }

    /// Records and reports a call that its caller's deadline ended. Like a cancelled call, it is no
    /// evidence unless it was slow already.
    #[cold]
    fn finish_cut_short(&self, call: AdmittedCall) {
        let guard = CancelOnDrop::new(self, call);
        let measured = self.measure(call.started);
        let outcome = if measured.is_slow { Outcome::CancelledSlow } else { Outcome::Ignored };
        let transition = self.record(call.admitted, outcome, &measured);
        guard.disarm();
        let _event = finally(|| {
            self.events.emit(|| EventKind::Completed { verdict: Verdict::Ignored, elapsed: measured.elapsed });
        });
        self.publish(call.admitted, transition);
    }

    /// Records and reports a call that was dropped before it completed.
    #[cold]
    fn cancel(&self, call: AdmittedCall) {
        let measured = Cell::new(Measured::default());
        // The probe slot is released even if the clock panics.
        let _cancelled = finally(|| {
            let measured = measured.take();
            let _event = finally(|| {
                self.events.emit(|| EventKind::Cancelled { admitted: true, elapsed: measured.elapsed });
            });
            // A cancelled call is no evidence, unless it was slow already: otherwise a timeout
            // outside of the breaker could never trip it.
            let outcome = if measured.is_slow { Outcome::CancelledSlow } else { Outcome::Ignored };
            if measured.is_slow || call.admitted.is_probe() {
                let transition = self.record(call.admitted, outcome, &measured);
                self.publish(call.admitted, transition);
            }
        });
        measured.set(self.measure(call.started));
    }

    fn measure(&self, started: Nanos) -> Measured {
        let Some(limit) = self.slow_after.filter(|_| started != UNTIMED) else { return Measured::default() };
        let now = self.now();
        let elapsed = now.saturating_since(started);
        Measured { ended: Some(now), elapsed: Some(elapsed), is_slow: elapsed > limit }
    }
}
