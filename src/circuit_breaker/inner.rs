//! The state that all handles and calls of one breaker share, and whether it admits a call.

use std::{ops::Deref, time::Duration};

use super::{
    admitted::{AdmittedCall, UnusedAdmission},
    reserved_probes::{ProbeKey, ReservedProbes},
};
use crate::{
    call::{CancelOnDrop, HasShared},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{Arriving, Cause, CircuitState, EventEmitter, EventKind},
    shared::{
        random::Random,
        unwind::{self, finally},
        waker_list::WakerList,
    },
    state::{
        circuit::{Admission, Circuit, PeekedAdmission},
        time::CompactDuration,
        transition::Transition,
    },
};

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
    pub(super) fn draw(&self, reopen_count: u32, random: &Random) -> Duration {
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
    pub(super) fn changed(&self, Transition { from, to, generation, cause }: Transition) {
        let _event = finally(|| self.events.emit(|| EventKind::StateChanged { from, to, generation, cause }));
        self.wake_waiters();
    }

    pub(super) fn wake_waiters(&self) {
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
        self.admit_as(Ok, Err)
    }

    /// Admits a call to a closed circuit.
    #[inline(always)]
    pub(crate) fn try_admit_fast(&self) -> Option<AdmittedCall> {
        self.circuit.try_admit_fast().map(|admitted| UnusedAdmission(admitted).begin(self))
    }

    /// Admits or rejects a call, and makes an `R` of it.
    #[inline(always)]
    pub(crate) fn admit_as<R>(&self, admit: impl FnOnce(AdmittedCall) -> R, reject: impl FnOnce(Rejection) -> R) -> R {
        match self.try_admit_fast() {
            Some(call) => admit(call),
            None => self.admit_slow(admit, reject),
        }
    }

    #[inline(never)]
    fn admit_slow<R>(&self, admit: impl FnOnce(AdmittedCall) -> R, reject: impl FnOnce(Rejection) -> R) -> R {
        let arriving = self.events.arriving();
        match self.circuit.try_reject_fast(|| self.now()) {
            Ok(left) => {
                arriving.arrived();
                self.events.reject_as(|name| Rejection::CircuitOpen { name, retry_after: Some(left) }, reject)
            }
            Err(now) => self.admit_cold(arriving, now).map_or_else(reject, admit),
        }
    }

    #[cold]
    fn admit_cold(&self, arriving: Arriving<'_>, now: Option<Nanos>) -> Result<AdmittedCall, Rejection> {
        let reserved = self.reserve_cold(now);
        arriving.arrived();
        match reserved {
            Ok(admission) => Ok(admission.begin(self)),
            Err(NotAdmitted::Open(retry_after)) => Err(self.reject_open(retry_after)),
            Err(NotAdmitted::Recovering(percent)) => {
                Err(self.events.reject(|name| Rejection::circuit_recovering(name, percent)))
            }
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
            None => self.reserve_cold(None),
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
                .ok_or(NotAdmitted::Open(retry_after.map(CompactDuration::from))),
            Admission::RejectedInRecovery { admitted_percent } => Err(NotAdmitted::Recovering(admitted_percent)),
        }
    }

    /// Whether a call would be rejected now.
    #[inline(always)]
    pub(crate) fn rejects(&self) -> bool {
        self.circuit.try_admit_fast().is_none() && self.rejects_slow()
    }

    #[inline(never)]
    fn rejects_slow(&self) -> bool {
        match self.circuit.try_reject_fast(|| self.now()) {
            Ok(_) => true,
            Err(now) => self.rejects_cold(now),
        }
    }

    #[cold]
    fn rejects_cold(&self, now: Option<Nanos>) -> bool {
        let now = || now.unwrap_or_else(|| self.now());
        matches!(self.circuit.peek_admission(now), PeekedAdmission::Reject { .. }) && !self.has_lapsed_probe()
    }

    /// When a reserved probe slot lapses, which another caller can then take.
    pub(super) fn next_lapse(&self) -> Option<Nanos> {
        self.reserved_probes.next_lapse(|| self.now(), |admission| admission.is_current(self))
    }

    pub(super) fn has_lapsed_probe(&self) -> bool {
        self.next_lapse().is_some_and(|lapse| self.now() >= lapse)
    }

    /// Rejects a call without trying to acquire admission.
    #[inline(always)]
    pub(crate) fn reject_as<R>(&self, reject: impl FnOnce(Rejection) -> R) -> R {
        let arriving = self.events.arriving();
        let retry_after = match self.circuit.try_reject_fast(|| self.now()) {
            Ok(left) => Some(left),
            Err(now) => self.circuit.retry_after(|| now.unwrap_or_else(|| self.now())).map(CompactDuration::from),
        };
        arriving.arrived();
        self.events.reject_as(|name| Rejection::CircuitOpen { name, retry_after }, reject)
    }

    fn reject_open(&self, retry_after: Option<CompactDuration>) -> Rejection {
        self.events.reject(|name| Rejection::CircuitOpen { name, retry_after })
    }
}

/// The reason why a call was not admitted.
enum NotAdmitted {
    /// The circuit is open, for this time if that is known, or its probes are in flight.
    Open(Option<CompactDuration>),
    /// The circuit is closed, and admits this percentage of the calls.
    Recovering(u32),
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
