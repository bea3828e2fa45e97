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

#[derive(Debug)]
pub(crate) struct Inner {
    pub(super) circuit: Circuit,
    pub(super) open_times: OpenTimes,
    /// Calls that take longer are slow.
    pub(super) slow_after: Option<Duration>,
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

    pub(super) fn refuses(&self) -> bool {
        matches!(self.circuit.outlook(|| self.now()), Outlook::Wait { .. })
    }

    /// The refusal of a call that was not let as far as the circuit.
    pub(super) fn refuse(&self) -> Rejection {
        self.rejected(self.circuit.time_left(|| self.now()))
    }

    fn rejected(&self, retry_after: Option<Duration>) -> Rejection {
        self.tell.reject(Rejection::circuit_open(self.tell.name().clone(), retry_after))
    }
}

/// An admission that no call uses yet. Dropping it gives a probe's place back.
#[derive(Debug)]
pub(super) struct Slot<H: Deref<Target = Inner>>(Option<(H, Ticket)>);

impl<H: Deref<Target = Inner>> Slot<H> {
    /// Asks the circuit.
    pub(super) fn try_take(holder: H) -> Result<Self, (H, Option<Duration>)> {
        let (ticket, transition) = match holder.circuit.admit(|| holder.now()) {
            Admission::Admitted(ticket) => (ticket, None),
            Admission::Probe(ticket, transition) => (ticket, transition),
            Admission::Rejected { retry_after } => return Err((holder, retry_after)),
        };
        // Guarded before the observer is told.
        let slot = Self(Some((holder, ticket)));
        if let (Some((holder, _)), Some(transition)) = (&slot.0, transition) {
            holder.changed(transition);
        }
        Ok(slot)
    }

    pub(super) fn is_probe(&self) -> bool {
        self.0.as_ref().is_some_and(|(_, ticket)| ticket.is_probe())
    }

    /// Whether it still admits. It does not when the state has changed since, or when it lay idle for so long that its
    /// place was given to another.
    pub(super) fn is_current(&self) -> bool {
        self.0.as_ref().is_some_and(|(holder, ticket)| holder.circuit.is_current(*ticket))
    }

    /// The call begins.
    pub(super) fn begin<C>(mut self, classify: C) -> Call<H, C> {
        let (holder, ticket) = self.0.take().expect("a slot begins one call");
        let started = holder.slow_after.map(|_| holder.now());
        let call = Call { holder: Some(holder), ticket, started, classify };
        if let Some(holder) = &call.holder {
            holder.tell.event(|| EventKind::Admitted);
        }
        call
    }
}

impl<H: Deref<Target = Inner>> Drop for Slot<H> {
    fn drop(&mut self) {
        if let Some((holder, ticket)) = self.0.take()
            && ticket.is_probe()
        {
            holder.finish(ticket, Outcome::Ignored, false, None);
        }
    }
}

/// Asks for admission and begins the call, or says no.
pub(super) fn admit<H: Deref<Target = Inner>, C>(holder: H, classify: C) -> Result<Call<H, C>, Rejection> {
    match Slot::try_take(holder) {
        Ok(slot) => Ok(slot.begin(classify)),
        Err((holder, retry_after)) => Err(holder.rejected(retry_after)),
    }
}

/// A call that was let in. Dropping it before it ended is its cancellation, or a failure if it is a panic that drops it.
#[derive(Debug)]
pub(crate) struct Call<H: Deref<Target = Inner>, C> {
    holder: Option<H>,
    ticket: Ticket,
    /// When it began, if slow calls are counted.
    started: Option<Nanos>,
    classify: C,
}

impl<H: Deref<Target = Inner>, C> Call<H, C> {
    pub(super) fn finish(&mut self, verdict: Verdict) {
        let Some(holder) = self.holder.take() else { return };
        let outcome = match verdict {
            Verdict::Success => Outcome::Success,
            Verdict::Failure => Outcome::Failure,
            Verdict::Throttled => Outcome::Throttled,
            Verdict::Ignored => Outcome::Ignored,
        };
        let (ended, elapsed, slow) = self.clock(&holder);
        holder.finish(self.ticket, outcome, slow, ended);
        holder.tell.event(|| EventKind::Completed { verdict, elapsed });
    }

    /// The end of the call, its length, and whether that was slow, when slow calls are counted.
    fn clock(&self, holder: &Inner) -> (Option<Nanos>, Option<Duration>, bool) {
        let Some((started, limit)) = self.started.zip(holder.slow_after) else { return (None, None, false) };
        let now = holder.now();
        let elapsed = now.saturating_since(started);
        (Some(now), Some(elapsed), elapsed > limit)
    }
}

impl<H: Deref<Target = Inner>, C, T, E> Guard<T, E> for Call<H, C>
where
    C: Classify<T, E>,
{
    fn end(&mut self, result: Result<&T, &E>) {
        self.finish(self.classify.classify(result));
    }
}

impl<H: Deref<Target = Inner>, C> Drop for Call<H, C> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return self.finish(Verdict::Failure);
        }
        let Some(holder) = self.holder.take() else { return };
        let (ended, elapsed, slow) = self.clock(&holder);
        // A cancelled call says nothing, unless it had been slow already: or else a timeout outside of the breaker
        // could never trip it.
        let outcome = if slow { Outcome::GivenUp } else { Outcome::Ignored };
        if slow || self.ticket.is_probe() {
            holder.finish(self.ticket, outcome, slow, ended);
        }
        holder.tell.event(|| EventKind::Cancelled { admitted: true, elapsed });
    }
}
