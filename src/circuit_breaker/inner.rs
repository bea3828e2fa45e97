//! What all handles and futures of one breaker share, and the life of one call in it.

use std::{ops::Deref, time::Duration};

use crate::{
    classify::{Classify, Verdict},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{CircuitState, EventKind, Tell},
    guarded::Guard,
    hold::stripe,
    random::Random,
    state::{
        circuit::{Admission, Circuit, Outcome, Outlook, Ticket},
        transition::Transition,
    },
    wake::WakerList,
};

/// The beginning of a call whose time nobody asks for.
const UNTIMED: Nanos = Nanos::MAX;

#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) circuit: Circuit,
    pub(super) open_times: OpenTimes,
    /// Calls that take longer are slow.
    pub(super) slow_after: Option<Duration>,
    /// There is an observer, or calls are timed.
    pub(super) watched: bool,
    /// Neither that, nor a time window: a healthy call has nobody to tell and nothing to write.
    pub(super) quiet: bool,
    pub(super) random: Random,
    pub(super) waiters: WakerList,
    pub(super) tell: Tell,
    pub(super) time: TimeSource,
}

/// How long the circuit stays open.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct OpenTimes {
    pub(super) first: Duration,
    pub(super) growth: f64,
    pub(super) max: Duration,
    pub(super) jitter: bool,
}

impl OpenTimes {
    /// `first * growth^flaps`, at most `max`; with jitter, uniform between half of that and all of it.
    fn draw(&self, flaps: u32, random: &Random) -> Duration {
        let grown = self.first.as_secs_f64() * self.growth.powi(flaps.min(64) as i32);
        let full = Duration::try_from_secs_f64(grown).map_or(self.max, |grown| grown.min(self.max));
        if self.jitter { random.duration(full / 2..=full) } else { full }
    }
}

impl Inner {
    pub(super) fn now(&self) -> Nanos {
        self.time.now()
    }

    /// A change of state is made. Those who wait are woken first: an observer that panics must not leave them asleep.
    #[cold]
    fn changed(&self, Transition { from, to, generation, cause }: Transition) {
        self.waiters.wake_all();
        self.tell.event(|| EventKind::StateChanged { from, to, generation, cause });
    }

    pub(super) fn set(&self, to: CircuitState, open_for: Duration) {
        match self.circuit.set(to, self.now(), open_for) {
            Some(transition) => self.changed(transition),
            None => self.waiters.wake_all(),
        }
    }

    #[inline(always)]
    fn admit(&self) -> Result<Ticket, Refused> {
        match self.circuit.admit_plainly() {
            Some(ticket) => Ok(ticket),
            None => self.admit_otherwise(),
        }
    }

    #[inline(never)]
    fn admit_otherwise(&self) -> Result<Ticket, Refused> {
        match self.circuit.admit(|| self.now()) {
            Admission::Admitted(ticket) => Ok(ticket),
            Admission::Probe(ticket, transition) => {
                if let Some(transition) = transition {
                    self.guarding(ticket, || self.changed(transition));
                }
                Ok(ticket)
            }
            Admission::Rejected { retry_after } => Err(Refused(retry_after)),
        }
    }

    /// Tells an observer of what was just admitted: if it panics, the place is given back.
    fn guarding(&self, ticket: Ticket, tell: impl FnOnce()) {
        let slot = Slot(Some(self), ticket);
        tell();
        std::mem::forget(slot);
    }

    /// A call begins that is observed, or measured.
    #[inline(never)]
    fn begin(&self, ticket: Ticket) -> Nanos {
        let started = if self.slow_after.is_some() { self.now() } else { UNTIMED };
        self.guarding(ticket, || self.tell.event(|| EventKind::Admitted));
        started
    }

    /// Nobody makes use of an admission.
    fn give_back(&self, ticket: Ticket) {
        if ticket.is_probe() {
            self.finish(ticket, Outcome::Ignored, false, None);
        }
    }

    fn finish(&self, ticket: Ticket, outcome: Outcome, slow: bool, ended: Option<Nanos>) {
        let now = || ended.unwrap_or_else(|| self.now());
        let open_for = |flaps| self.open_times.draw(flaps, &self.random);
        match self.circuit.finish(ticket, outcome, slow, stripe, now, open_for) {
            Some(transition) => self.changed(transition),
            // Its place is free.
            None if ticket.is_probe() => self.waiters.wake_all(),
            None => {}
        }
    }

    /// A call ended so.
    #[inline(never)]
    fn end(&self, ticket: Ticket, started: Nanos, verdict: Verdict) {
        let outcome = match verdict {
            Verdict::Success => Outcome::Success,
            Verdict::Failure => Outcome::Failure,
            Verdict::Throttled => Outcome::Throttled,
            Verdict::Ignored => Outcome::Ignored,
        };
        let (ended, elapsed, slow) = self.clock(started);
        self.finish(ticket, outcome, slow, ended);
        self.tell.event(|| EventKind::Completed { verdict, elapsed });
    }

    /// A call was dropped before it ended.
    #[cold]
    fn cancel(&self, ticket: Ticket, started: Nanos) {
        if std::thread::panicking() {
            return self.end(ticket, started, Verdict::Failure);
        }
        let (ended, elapsed, slow) = self.clock(started);
        // A cancelled call says nothing, unless it had been slow already: or else a timeout outside of the breaker
        // could never trip it.
        let outcome = if slow { Outcome::GivenUp } else { Outcome::Ignored };
        if slow || ticket.is_probe() {
            self.finish(ticket, outcome, slow, ended);
        }
        self.tell.event(|| EventKind::Cancelled { admitted: true, elapsed });
    }

    /// The end of a call, its length, and whether that was slow, when slow calls are counted.
    fn clock(&self, started: Nanos) -> (Option<Nanos>, Option<Duration>, bool) {
        let Some(limit) = self.slow_after.filter(|_| started != UNTIMED) else { return (None, None, false) };
        let now = self.now();
        let elapsed = now.saturating_since(started);
        (Some(now), Some(elapsed), elapsed > limit)
    }

    pub(super) fn refuses(&self) -> bool {
        matches!(self.circuit.outlook(|| self.now()), Outlook::Wait { .. })
    }

    /// The refusal of a call that was not let as far as the circuit.
    pub(super) fn refuse(&self) -> Rejection {
        self.rejected(self.circuit.time_left(|| self.now()))
    }

    #[inline(never)]
    fn rejected(&self, retry_after: Option<Duration>) -> Rejection {
        self.tell.reject(Rejection::circuit_open(self.tell.name().clone(), retry_after))
    }
}

/// An admission that no call uses yet. Dropping it gives a probe's place back.
#[derive(Debug)]
pub(super) struct Slot<H: Deref<Target = Inner>>(Option<H>, Ticket);

impl<H: Deref<Target = Inner>> Slot<H> {
    /// Asks the circuit.
    pub(super) fn try_take(holder: H) -> Option<Self> {
        let ticket = holder.admit().ok()?;
        Some(Self(Some(holder), ticket))
    }

    pub(super) fn is_probe(&self) -> bool {
        self.1.is_probe()
    }

    /// Whether it still admits. It does not when the state has changed since, or when it lay idle for so long that its
    /// place was given to another.
    pub(super) fn is_current(&self) -> bool {
        self.0.as_ref().is_some_and(|holder| holder.circuit.is_current(self.1))
    }

    /// The call begins.
    pub(super) fn begin<C>(mut self, classify: C) -> Call<H, C> {
        Call::begin(self.0.take().expect("a slot begins one call"), self.1, classify)
    }
}

impl<H: Deref<Target = Inner>> Drop for Slot<H> {
    fn drop(&mut self) {
        if let Some(holder) = self.0.take() {
            holder.give_back(self.1);
        }
    }
}

/// Asks for admission and begins the call, or says no.
#[inline(always)]
pub(super) fn admit<H: Deref<Target = Inner>, C>(holder: H, classify: C) -> Result<Call<H, C>, Rejection> {
    match holder.admit() {
        Ok(ticket) => Ok(Call::begin(holder, ticket, classify)),
        Err(refused) => Err(holder.rejected(refused.0)),
    }
}

/// Not admitted; with the time after which to ask again, if that is known.
struct Refused(Option<Duration>);

/// A call that was let in. Dropping it before it ended is its cancellation, or a failure if it is a panic that drops it.
#[derive(Debug)]
pub(crate) struct Call<H: Deref<Target = Inner>, C> {
    holder: Option<H>,
    ticket: Ticket,
    /// When it began, or [`UNTIMED`].
    started: Nanos,
    classify: C,
}

impl<H: Deref<Target = Inner>, C> Call<H, C> {
    #[inline(always)]
    fn begin(holder: H, ticket: Ticket, classify: C) -> Self {
        let started = if holder.watched { holder.begin(ticket) } else { UNTIMED };
        Self { holder: Some(holder), ticket, started, classify }
    }

    #[inline(always)]
    pub(super) fn finish(&mut self, verdict: Verdict) {
        let Some(holder) = self.holder.take() else { return };
        // What nearly all calls come to.
        let changes_nothing =
            holder.quiet && verdict == Verdict::Success && holder.circuit.success_changes_nothing(self.ticket);
        if !changes_nothing {
            holder.end(self.ticket, self.started, verdict);
        }
    }
}

impl<H: Deref<Target = Inner>, C, T, E> Guard<T, E> for Call<H, C>
where
    C: Classify<T, E>,
{
    #[inline(always)]
    fn end(&mut self, result: Result<&T, &E>) {
        self.finish(self.classify.classify(result));
    }
}

impl<H: Deref<Target = Inner>, C> Drop for Call<H, C> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(holder) = self.holder.take() {
            holder.cancel(self.ticket, self.started);
        }
    }
}
