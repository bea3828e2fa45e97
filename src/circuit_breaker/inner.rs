//! The state that all handles and calls of one breaker share, and the admission of a call.

use std::{cell::Cell, ops::Deref, time::Duration};

use super::reserved_probes::{ProbeKey, ReservedProbes};
use crate::{
    call::{CancelOnDrop, Complete, Finish, HasShared, InFlight, classify_result, emit_admitted},
    classify::{Classify, Verdict},
    clock::{Nanos, TimeSource},
    error::{AsRejection, Rejection},
    event::{Cause, CircuitState, EventEmitter, EventKind},
    shared::{
        random::Random,
        thread_id::thread_number,
        unwind::{self, finally},
        waker_list::WakerList,
    },
    state::{
        circuit::{self, Admission, Circuit, Outcome, PeekedAdmission},
        time::nanos_of,
        transition::Transition,
    },
};

/// The start of a call that is not timed.
const UNTIMED: Nanos = Nanos::MAX;

#[derive(Debug)]
pub(crate) struct CircuitBreakerInner {
    pub(crate) circuit: Circuit,
    pub(crate) open_times: OpenTimes,
    /// Calls that take longer are slow.
    pub(crate) slow_after: Option<Duration>,
    /// There is an observer, or calls are timed.
    pub(crate) watched: bool,
    /// Not watched, and without a time window: a healthy call has nothing to report and nothing to
    /// write.
    pub(crate) quiet: bool,
    pub(crate) random: Random,
    pub(crate) waiters: WakerList,
    pub(crate) reserved_probes: ReservedProbes,
    pub(crate) events: EventEmitter,
    pub(crate) time: TimeSource,
}

/// How long the circuit stays open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct OpenTimes {
    pub(crate) first: Duration,
    pub(crate) growth: f64,
    pub(crate) max: Duration,
    pub(crate) jitter: bool,
}

impl OpenTimes {
    /// `first * growth^reopen_count`, at most `max`; with jitter, uniform between half of that and
    /// all of it.
    fn draw(&self, reopen_count: u32, random: &Random) -> Duration {
        let grown = self.first.as_secs_f64() * self.growth.powi(reopen_count.min(64) as i32);
        let full = Duration::try_from_secs_f64(grown).map_or(self.max, |grown| grown.min(self.max));
        if self.jitter { random.duration(full / 2..=full) } else { full }
    }
}

impl CircuitBreakerInner {
    pub(crate) fn now(&self) -> Nanos {
        self.time.now()
    }

    /// Publishes a state change that has been made. Waiters are woken first: an observer that
    /// panics must not leave them asleep.
    #[cold]
    fn changed(&self, Transition { from, to, generation, cause }: Transition) {
        let _event = finally(|| self.events.emit(|| EventKind::StateChanged { from, to, generation, cause }));
        self.wake_waiters();
    }

    fn wake_waiters(&self) {
        unwind::contain(|| self.waiters.wake_all());
    }

    pub(crate) fn set(&self, to: CircuitState, open_for: Duration) {
        match self.circuit.set(to, self.now(), open_for) {
            Some(transition) => self.changed(transition),
            None => self.wake_waiters(),
        }
    }

    /// Closes the circuit of a breaker that was evicted, for its observer.
    pub(crate) fn close_evicted(&self) {
        if let Some(transition) = self.circuit.set(CircuitState::Closed, self.now(), Duration::ZERO) {
            self.changed(Transition { cause: Cause::Evicted, ..transition });
        }
    }

    pub(crate) fn honor_retry_after(&self, open_for: Duration) {
        if let Some(transition) = self.circuit.honor_retry_after(self.now(), open_for) {
            self.changed(transition);
        }
    }

    /// Admits or rejects a call.
    #[inline(always)]
    pub(crate) fn admit(&self) -> Result<AdmittedCall, Rejection> {
        match self.circuit.try_admit_fast() {
            Some(admitted) => Ok(UnusedAdmission(admitted).begin(self)),
            None => self.admit_slow(),
        }
    }

    #[inline(never)]
    fn admit_slow(&self) -> Result<AdmittedCall, Rejection> {
        let arriving = self.events.arriving();
        let reserved = self.reserve_slow();
        arriving.arrived();
        match reserved {
            Ok(admission) => Ok(admission.begin(self)),
            Err(rejected) => Err(self.reject_for(rejected)),
        }
    }

    /// Reserves a probe slot, if the circuit needs a probe and has a free slot, or one that has
    /// lapsed.
    pub(super) fn reserve_probe(&self) -> Option<ProbeKey> {
        let reserve = || self.reserve().ok().filter(|admission| admission.is_probe());
        self.reserved_probes.reserve(self.now(), reserve)
    }

    #[inline(always)]
    fn reserve(&self) -> Result<UnusedAdmission, NotAdmitted> {
        match self.circuit.try_admit_fast() {
            Some(admitted) => Ok(UnusedAdmission(admitted)),
            None => self.reserve_slow(),
        }
    }

    #[inline(never)]
    fn reserve_slow(&self) -> Result<UnusedAdmission, NotAdmitted> {
        match self.circuit.try_reject_fast(|| self.now()) {
            Ok(nanos) => Err(NotAdmitted::Until(nanos)),
            Err(now) => self.reserve_cold(now),
        }
    }

    #[cold]
    fn reserve_cold(&self, now: Option<Nanos>) -> Result<UnusedAdmission, NotAdmitted> {
        match self.circuit.admit(|| now.unwrap_or_else(|| self.now())) {
            Admission::Admitted(admitted) => Ok(UnusedAdmission(admitted)),
            Admission::Probe(admitted, transition) => {
                if let Some(transition) = transition {
                    // If the observer panics, the probe slot is released.
                    let guard = CancelOnDrop::new(self, UnusedAdmission(admitted));
                    self.changed(transition);
                    guard.disarm();
                }
                Ok(UnusedAdmission(admitted))
            }
            Admission::Rejected { retry_after } => self
                .reserved_probes
                .take_lapsed(|| self.now(), |admission| admission.is_current(self))
                .ok_or(NotAdmitted::new(retry_after)),
            Admission::RejectedInRecovery { admitted_percent } => Err(NotAdmitted::Recovering(admitted_percent)),
        }
    }

    /// Begins a call that is watched.
    #[inline(never)]
    fn begin_watched(&self, admitted: circuit::Admitted) -> AdmittedCall {
        let guard = CancelOnDrop::new(self, Beginning(UnusedAdmission(admitted)));
        let started = if self.slow_after.is_some() { self.now() } else { UNTIMED };
        guard.disarm();
        let call = AdmittedCall { admitted, started };
        if self.events.has_observer() { emit_admitted(&self.events, self, call) } else { call }
    }

    /// Records an outcome in the circuit. To be [published](Self::publish).
    fn record(&self, admitted: circuit::Admitted, outcome: Outcome, measured: &Measured) -> Option<Transition> {
        let now = || measured.ended.unwrap_or_else(|| self.now());
        let open_for = |reopen_count| self.open_times.draw(reopen_count, &self.random);
        self.circuit.finish(admitted, outcome, measured.is_slow, thread_number, now, open_for)
    }

    /// Publishes the effect of an outcome that was recorded.
    fn publish(&self, admitted: circuit::Admitted, transition: Option<Transition>) {
        match transition {
            Some(transition) => self.changed(transition),
            // Its probe slot is free.
            None if admitted.is_probe() => self.wake_waiters(),
            None => {}
        }
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

    /// Whether a call would be rejected now.
    #[inline(always)]
    pub(crate) fn rejects(&self) -> bool {
        self.circuit.try_admit_fast().is_none() && self.rejects_slow()
    }

    #[inline(never)]
    fn rejects_slow(&self) -> bool {
        matches!(self.circuit.peek_admission(|| self.now()), PeekedAdmission::Reject { .. }) && !self.has_lapsed_probe()
    }

    /// When a reserved probe slot lapses, which another caller can then take.
    pub(super) fn next_lapse(&self) -> Option<Nanos> {
        self.reserved_probes.next_lapse(|| self.now(), |admission| admission.is_current(self))
    }

    pub(super) fn has_lapsed_probe(&self) -> bool {
        self.next_lapse().is_some_and(|lapse| self.now() >= lapse)
    }

    /// Rejects a call without trying to acquire admission.
    pub(crate) fn reject(&self) -> Rejection {
        let arriving = self.events.arriving();
        let retry_after = self.circuit.retry_after(|| self.now());
        arriving.arrived();
        self.reject_for(NotAdmitted::new(retry_after))
    }

    #[inline(never)]
    fn reject_for(&self, not_admitted: NotAdmitted) -> Rejection {
        let retry_after = match not_admitted {
            NotAdmitted::Until(nanos) => Some(Duration::from_nanos(nanos)),
            NotAdmitted::Unknown => None,
            NotAdmitted::Recovering(percent) => {
                return self.events.reject(|name| Rejection::circuit_recovering(name, percent));
            }
        };
        self.events.reject(|name| Rejection::circuit_open(name, retry_after))
    }
}

/// The end of a call, its duration, and whether that is slow, if slow calls are counted.
#[derive(Clone, Copy, Debug, Default)]
struct Measured {
    ended: Option<Nanos>,
    elapsed: Option<Duration>,
    is_slow: bool,
}

/// The reason why a call was not admitted.
enum NotAdmitted {
    /// The circuit is open, for this many nanoseconds.
    Until(u64),
    /// The circuit is open, or its probes are in flight.
    Unknown,
    /// The circuit is closed, and admits this percentage of the calls.
    Recovering(u32),
}

impl NotAdmitted {
    fn new(retry_after: Option<Duration>) -> Self {
        retry_after.map_or(Self::Unknown, |retry_after| Self::Until(nanos_of(retry_after)))
    }
}

/// Gives a call access to its breaker.
pub(crate) trait HasBreaker {
    type Classifier;

    fn breaker(&self) -> &CircuitBreakerInner;

    fn classifier(&self) -> &Self::Classifier;
}

impl HasBreaker for CircuitBreakerInner {
    type Classifier = ();

    fn breaker(&self) -> &CircuitBreakerInner {
        self
    }

    fn classifier(&self) -> &() {
        &()
    }
}

/// The owner of the breaker of a call through a single layer or handle.
#[derive(Debug)]
pub(crate) struct BreakerOwner<H, C> {
    pub(crate) breaker: H,
    pub(crate) classify: C,
}

impl<H, C> HasShared for BreakerOwner<H, C> {
    type Shared = Self;

    #[inline(always)]
    fn shared(&self) -> &Self {
        self
    }
}

impl<H: Deref<Target = CircuitBreakerInner>, C> HasBreaker for BreakerOwner<H, C> {
    type Classifier = C;

    #[inline(always)]
    fn breaker(&self) -> &CircuitBreakerInner {
        &self.breaker
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.classify
    }
}

/// An admission that no call has used yet. It may hold a probe slot.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnusedAdmission(circuit::Admitted);

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
    admitted: circuit::Admitted,
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
        let changes_nothing =
            breaker.quiet && verdict == Verdict::Success && breaker.circuit.success_changes_nothing(self.admitted);
        if !changes_nothing {
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
