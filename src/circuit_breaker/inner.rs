//! What all handles and futures of one breaker share, and the life of one call in it.

use std::time::Duration;

use crate::{
    call::HasShared,
    call::{CancelOnDrop, Complete, InFlight, emit_admitted},
    classify::{Classify, Verdict},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{CircuitState, EventEmitter, EventKind},
    shared::random::Random,
    shared::waker_list::WakerList,
    shared::{striped::StripedRef, thread_id::thread_number},
    state::{
        circuit::{self, Admission, Circuit, Outcome, PeekedAdmission},
        time::nanos_of,
        transition::Transition,
    },
};

/// The beginning of a call whose time nobody asks for.
const UNTIMED: Nanos = Nanos::MAX;

#[derive(Debug)]
pub(crate) struct CircuitBreakerInner {
    pub(crate) circuit: Circuit,
    pub(crate) open_times: OpenTimes,
    /// Calls that take longer are slow.
    pub(crate) slow_after: Option<Duration>,
    /// There is an observer, or calls are timed.
    pub(crate) watched: bool,
    /// Neither that, nor a time window: a healthy call has nobody to tell and nothing to write.
    pub(crate) quiet: bool,
    pub(crate) random: Random,
    pub(crate) waiters: WakerList,
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
    /// `first * growth^reopen_count`, at most `max`; with jitter, uniform between half of that and all of it.
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

    /// A change of state is made. Those who wait are woken first: an observer that panics must not leave them asleep.
    #[cold]
    fn changed(&self, Transition { from, to, generation, cause }: Transition) {
        self.waiters.wake_all();
        self.events.emit(|| EventKind::StateChanged { from, to, generation, cause });
    }

    pub(crate) fn set(&self, to: CircuitState, open_for: Duration) {
        match self.circuit.set(to, self.now(), open_for) {
            Some(transition) => self.changed(transition),
            None => self.waiters.wake_all(),
        }
    }

    pub(crate) fn honor_retry_after(&self, open_for: Duration) {
        if let Some(transition) = self.circuit.honor_retry_after(self.now(), open_for) {
            self.changed(transition);
        }
    }

    /// Lets a call in, or refuses it.
    #[inline(always)]
    pub(crate) fn admit(&self) -> Result<AdmittedCall, Rejection> {
        match self.reserve() {
            Ok(place) => Ok(place.begin(self)),
            Err(refused) => Err(self.rejected(refused)),
        }
    }

    /// A place for a probe, if there is one and one is needed.
    pub(crate) fn take_probe(&self) -> Option<UnusedAdmission> {
        self.reserve().ok().filter(|place| place.is_probe())
    }

    #[inline(always)]
    fn reserve(&self) -> Result<UnusedAdmission, NotAdmitted> {
        match self.circuit.try_admit_fast() {
            Some(ticket) => Ok(UnusedAdmission(ticket)),
            None => self.reserve_slow(),
        }
    }

    #[inline(never)]
    fn reserve_slow(&self) -> Result<UnusedAdmission, NotAdmitted> {
        match self.circuit.try_reject_fast(|| self.now()) {
            Ok(nanos) => Err(NotAdmitted(nanos)),
            Err(now) => self.reserve_cold(now),
        }
    }

    #[cold]
    fn reserve_cold(&self, now: Option<Nanos>) -> Result<UnusedAdmission, NotAdmitted> {
        match self.circuit.admit(|| now.unwrap_or_else(|| self.now())) {
            Admission::Admitted(ticket) => Ok(UnusedAdmission(ticket)),
            Admission::Probe(ticket, transition) => {
                if let Some(transition) = transition {
                    self.guarding(UnusedAdmission(ticket), || self.changed(transition));
                }
                Ok(UnusedAdmission(ticket))
            }
            Admission::Rejected { retry_after } => Err(NotAdmitted(retry_after.map_or(NEVER, nanos_of))),
        }
    }

    /// Tells an observer of what was just admitted: if it panics, the place is given back.
    fn guarding(&self, place: UnusedAdmission, tell: impl FnOnce()) {
        let held = CancelOnDrop::new(self, place);
        tell();
        held.release();
    }

    /// A call begins that is observed, or measured.
    #[inline(never)]
    fn begin(&self, ticket: circuit::Admitted) -> AdmittedCall {
        let started = if self.slow_after.is_some() { self.now() } else { UNTIMED };
        let admitted = AdmittedCall { ticket, started };
        if self.events.has_observer() { emit_admitted(&self.events, self, admitted) } else { admitted }
    }

    fn finish(&self, ticket: circuit::Admitted, outcome: Outcome, slow: bool, ended: Option<Nanos>) {
        let now = || ended.unwrap_or_else(|| self.now());
        let open_for = |reopen_count| self.open_times.draw(reopen_count, &self.random);
        match self.circuit.finish(ticket, outcome, slow, thread_number, now, open_for) {
            Some(transition) => self.changed(transition),
            // Its place is free.
            None if ticket.is_probe() => self.waiters.wake_all(),
            None => {}
        }
    }

    /// A call ended so.
    #[inline(never)]
    fn end(&self, ticket: circuit::Admitted, started: Nanos, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Success => Outcome::Success,
            Verdict::Failure => Outcome::Failure,
            Verdict::Throttled => Outcome::Throttled,
            Verdict::Ignored => Outcome::Ignored,
        };
        let (ended, elapsed, slow) = self.clock(started);
        self.finish(ticket, outcome, slow, ended);
        self.events.emit(|| EventKind::Completed { verdict, elapsed });
    }

    /// A call was dropped before it ended.
    #[cold]
    fn cancel(&self, ticket: circuit::Admitted, started: Nanos) {
        if std::thread::panicking() {
            return self.end(ticket, started, Verdict::Failure);
        }
        let (ended, elapsed, slow) = self.clock(started);
        // A cancelled call says nothing, unless it had been slow already: or else a timeout outside of the breaker
        // could never trip it.
        let outcome = if slow { Outcome::CancelledSlow } else { Outcome::Ignored };
        if slow || ticket.is_probe() {
            self.finish(ticket, outcome, slow, ended);
        }
        self.events.emit(|| EventKind::Cancelled { admitted: true, elapsed });
    }

    /// The end of a call, its length, and whether that was slow, when slow calls are counted.
    fn clock(&self, started: Nanos) -> (Option<Nanos>, Option<Duration>, bool) {
        let Some(limit) = self.slow_after.filter(|_| started != UNTIMED) else { return (None, None, false) };
        let now = self.now();
        let elapsed = now.saturating_since(started);
        (Some(now), Some(elapsed), elapsed > limit)
    }

    #[inline(always)]
    pub(crate) fn rejects(&self) -> bool {
        self.circuit.try_admit_fast().is_none() && self.rejects_slow()
    }

    #[inline(never)]
    fn rejects_slow(&self) -> bool {
        matches!(self.circuit.peek_admission(|| self.now()), PeekedAdmission::Reject { .. })
    }

    /// The refusal of a call that was not let as far as the circuit.
    pub(crate) fn reject(&self) -> Rejection {
        self.rejected(NotAdmitted(self.circuit.retry_after(|| self.now()).map_or(NEVER, nanos_of)))
    }

    #[inline(never)]
    fn rejected(&self, NotAdmitted(nanos): NotAdmitted) -> Rejection {
        let retry_after = if nanos == NEVER { None } else { Some(Duration::from_nanos(nanos)) };
        self.events.reject(|name| Rejection::circuit_open(name, retry_after))
    }
}

/// A place that no call uses yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnusedAdmission(circuit::Admitted);

impl UnusedAdmission {
    pub(crate) fn is_probe(self) -> bool {
        self.0.is_probe()
    }

    /// Whether it still admits. It does not when the state has changed since, or when it lay idle for so long that it
    /// was given to another.
    pub(crate) fn is_current(self, inner: &CircuitBreakerInner) -> bool {
        inner.circuit.is_current(self.0)
    }

    /// The call begins.
    #[inline(always)]
    pub(crate) fn begin(self, inner: &CircuitBreakerInner) -> AdmittedCall {
        if inner.watched { inner.begin(self.0) } else { AdmittedCall { ticket: self.0, started: UNTIMED } }
    }
}

impl InFlight<CircuitBreakerInner> for UnusedAdmission {
    /// A probe's place is free again.
    fn cancel(self, inner: &CircuitBreakerInner) {
        if self.is_probe() {
            inner.finish(self.0, Outcome::Ignored, false, None);
        }
    }
}

/// Not admitted; with the nanoseconds after which to ask again, or [`NEVER`].
struct NotAdmitted(u64);

/// That is not known.
const NEVER: u64 = u64::MAX;

/// A call that was let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdmittedCall {
    ticket: circuit::Admitted,
    /// When it began, or [`UNTIMED`].
    started: Nanos,
}

impl AdmittedCall {
    #[inline(always)]
    pub(crate) fn finish(self, inner: &CircuitBreakerInner, verdict: Verdict) {
        // What nearly all calls come to.
        let changes_nothing =
            inner.quiet && verdict == Verdict::Success && inner.circuit.success_changes_nothing(self.ticket);
        if !changes_nothing {
            inner.end(self.ticket, self.started, verdict);
        }
    }
}

/// What a call is lent.
pub(crate) trait HasBreaker {
    type Classifier;

    /// `None` when the breaker was left out of the stack.
    fn breaker(&self) -> Option<&CircuitBreakerInner>;

    fn classifier(&self) -> &Self::Classifier;
}

impl HasBreaker for CircuitBreakerInner {
    type Classifier = ();

    fn breaker(&self) -> Option<&CircuitBreakerInner> {
        Some(self)
    }

    fn classifier(&self) -> &() {
        &()
    }
}

/// What the future of a layer's call owns: `None` when the call was refused.
#[derive(Debug)]
pub(crate) struct BreakerOwner<C> {
    pub(crate) hold: Option<StripedRef<CircuitBreakerInner>>,
    pub(crate) classify: C,
}

impl<C> HasShared for BreakerOwner<C> {
    type Shared = Self;

    #[inline(always)]
    fn shared(&self) -> &Self {
        self
    }
}

impl<C> HasBreaker for BreakerOwner<C> {
    type Classifier = C;

    #[inline(always)]
    fn breaker(&self) -> Option<&CircuitBreakerInner> {
        self.hold.as_deref()
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.classify
    }
}

impl<P: HasBreaker> InFlight<P> for AdmittedCall {
    fn cancel(self, shared: &P) {
        if let Some(inner) = shared.breaker() {
            inner.cancel(self.ticket, self.started);
        }
    }
}

impl<P, T, E> Complete<P, T, E> for AdmittedCall
where
    P: HasBreaker,
    P::Classifier: Classify<T, E>,
{
    #[inline(always)]
    fn complete(self, shared: &P, result: Result<&T, &E>) {
        if let Some(inner) = shared.breaker() {
            self.finish(inner, shared.classifier().classify(result));
        }
    }
}
