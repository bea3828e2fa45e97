//! Every change of a circuit's word, as one pure function.

use std::time::Duration;

use super::{
    CircuitConfig,
    word::{CircuitWord, Phase, deadline, reached_at, tick},
};
use crate::state::{
    time::Nanos,
    transition::{Cause, CircuitState, Transition},
};

/// An event that may change a circuit's word.
#[derive(Clone, Copy, Debug)]
pub(super) enum CircuitEvent {
    /// The state is set manually.
    Set(CircuitState),
    /// The service asks not to be called for a while.
    RetryAfter,
    /// A caller asks for admission. `expired` is the word whose probes have outlived their lease,
    /// if there is one.
    Admit { expired: Option<CircuitWord> },
    /// A call of this generation succeeded or failed.
    Complete { generation: u32, failed: bool },
    /// The recovery of this generation is over.
    Recovered { generation: u32 },
    /// A window of this generation has reached a threshold.
    Trip { generation: u32, cause: Cause },
    /// A probe of this generation completed.
    CompleteProbe { generation: u32, outcome: ProbeOutcome },
}

/// The outcome of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProbeOutcome {
    Succeeded,
    Failed,
    /// Only releases the probe's slot.
    Ignored,
}

/// The inputs of a step that are not free to read: the time, and the open time, which may be
/// random.
pub(super) trait StepInputs {
    fn now(&mut self) -> Nanos;

    /// The deadline of an open phase that begins now.
    fn deadline(&mut self, reopen_count: u32) -> u64;
}

/// Reads each input at most once, when a step first needs it: a step that is retried sees the same
/// values.
pub(super) struct LazyInputs<N, O> {
    clock: N,
    open_for: O,
    now: Option<Nanos>,
    deadline: Option<u64>,
}

impl<N, O> LazyInputs<N, O> {
    #[inline]
    pub(super) fn new(clock: N, open_for: O) -> Self {
        Self { clock, open_for, now: None, deadline: None }
    }
}

impl<N: Fn() -> Nanos, O: Fn(u32) -> Duration> StepInputs for LazyInputs<N, O> {
    #[inline]
    fn now(&mut self) -> Nanos {
        *self.now.get_or_insert_with(&self.clock)
    }

    fn deadline(&mut self, reopen_count: u32) -> u64 {
        if let Some(deadline) = self.deadline {
            return deadline;
        }
        let open_for = (self.open_for)(reopen_count);
        let deadline = deadline(self.now(), open_for);
        *self.deadline.insert(deadline)
    }
}

impl CircuitWord {
    /// Returns the word after `event`, and the transition if the state changes. An event that has
    /// no effect, such as one of an earlier generation, returns the word as it is.
    #[inline]
    pub(super) fn step(
        self,
        event: CircuitEvent,
        config: &CircuitConfig,
        inputs: &mut impl StepInputs,
    ) -> (Self, Option<Transition>) {
        match event {
            CircuitEvent::Set(to) => self.set(to, inputs),
            CircuitEvent::RetryAfter => self.honor_retry_after(inputs),
            CircuitEvent::Admit { expired } => self.admit(expired, config, inputs),
            CircuitEvent::Complete { generation, failed } if generation == self.generation => {
                self.count_consecutive(failed, config, inputs)
            }
            CircuitEvent::Recovered { generation } if generation == self.generation => self.end_recovery(),
            CircuitEvent::Trip { generation, cause } if generation == self.generation => self.trip(cause, inputs),
            CircuitEvent::CompleteProbe { generation, outcome } if generation == self.generation => {
                self.complete_probe(outcome, config, inputs)
            }
            CircuitEvent::Complete { .. }
            | CircuitEvent::Recovered { .. }
            | CircuitEvent::Trip { .. }
            | CircuitEvent::CompleteProbe { .. } => (self, None),
        }
    }

    /// Always begins a generation, which clears the windows. A transition only if the state
    /// changes.
    fn set(self, to: CircuitState, inputs: &mut impl StepInputs) -> (Self, Option<Transition>) {
        let phase = match to {
            CircuitState::Closed => Phase::Closed { consecutive_failures: 0, recovering: false },
            CircuitState::Open => Phase::Open { deadline: inputs.deadline(0) },
            CircuitState::HalfOpen => Phase::HalfOpen { in_flight: 0, succeeded: 0, probes_admitted: 0 },
            CircuitState::ForcedOpen => Phase::ForcedOpen,
            CircuitState::Disabled => Phase::Disabled,
        };
        let (next, transition) = self.enter(0, phase, Cause::Manual);
        (next, transition.filter(|transition| transition.from != transition.to))
    }

    /// Opens a circuit that is closed or half-open.
    fn honor_retry_after(self, inputs: &mut impl StepInputs) -> (Self, Option<Transition>) {
        match self.phase {
            Phase::Closed { .. } | Phase::HalfOpen { .. } => self.open(self.reopen_count, Cause::RetryAfter, inputs),
            Phase::Open { .. } | Phase::ForcedOpen | Phase::Disabled => (self, None),
        }
    }

    /// Ends an open phase whose time has passed, and takes a probe slot.
    #[inline]
    fn admit(
        self,
        expired: Option<Self>,
        config: &CircuitConfig,
        inputs: &mut impl StepInputs,
    ) -> (Self, Option<Transition>) {
        let first_probe = |succeeded| Phase::HalfOpen { in_flight: 1, succeeded, probes_admitted: 1 };
        match self.phase {
            Phase::Open { deadline } if tick(inputs.now()) >= deadline => {
                self.enter(self.reopen_count, first_probe(0), Cause::OpenTimeout)
            }
            Phase::HalfOpen { in_flight, succeeded, probes_admitted } if in_flight < config.probes => {
                let (in_flight, probes_admitted) = (in_flight + 1, probes_admitted + 1);
                self.keep(Phase::HalfOpen { in_flight, succeeded, probes_admitted })
            }
            // A new generation reclaims the slots of all probes in flight. The successes so far
            // stay: otherwise one probe in a few that hangs would keep the circuit from ever
            // closing.
            Phase::HalfOpen { succeeded, .. } if expired == Some(self) => {
                (self.next_generation(self.reopen_count, first_probe(succeeded)), None)
            }
            _ => (self, None),
        }
    }

    /// Counts a failure, or ends the consecutive failures; trips when they reach the limit.
    fn count_consecutive(
        self,
        failed: bool,
        config: &CircuitConfig,
        inputs: &mut impl StepInputs,
    ) -> (Self, Option<Transition>) {
        let (Some(limit), Phase::Closed { consecutive_failures, recovering }) = (config.consecutive, self.phase) else {
            return (self, None);
        };
        let consecutive_failures = if failed { consecutive_failures + 1 } else { 0 };
        if consecutive_failures >= limit.get() {
            return self.trip(Cause::ConsecutiveFailures, inputs);
        }
        self.keep(Phase::Closed { consecutive_failures, recovering })
    }

    fn end_recovery(self) -> (Self, Option<Transition>) {
        match self.phase {
            Phase::Closed { consecutive_failures, .. } => {
                self.keep(Phase::Closed { consecutive_failures, recovering: false })
            }
            _ => (self, None),
        }
    }

    /// Opens a circuit that is closed.
    fn trip(self, cause: Cause, inputs: &mut impl StepInputs) -> (Self, Option<Transition>) {
        match self.phase {
            Phase::Closed { .. } => self.open(self.reopen_count, cause, inputs),
            _ => (self, None),
        }
    }

    /// Releases the probe's slot; a failure opens the circuit, the last success needed closes it.
    fn complete_probe(
        self,
        outcome: ProbeOutcome,
        config: &CircuitConfig,
        inputs: &mut impl StepInputs,
    ) -> (Self, Option<Transition>) {
        let Phase::HalfOpen { in_flight, succeeded, probes_admitted } = self.phase else { return (self, None) };
        let in_flight = in_flight.saturating_sub(1);
        match outcome {
            ProbeOutcome::Failed => self.open(self.reopen_count + 1, Cause::ProbeFailed, inputs),
            ProbeOutcome::Succeeded if succeeded + 1 >= config.successes => {
                let recovering = config.recovery.is_some();
                self.enter(0, Phase::Closed { consecutive_failures: 0, recovering }, Cause::ProbeSucceeded)
            }
            ProbeOutcome::Succeeded => {
                self.keep(Phase::HalfOpen { in_flight, succeeded: succeeded + 1, probes_admitted })
            }
            ProbeOutcome::Ignored => self.keep(Phase::HalfOpen { in_flight, succeeded, probes_admitted }),
        }
    }

    fn open(self, reopen_count: u32, cause: Cause, inputs: &mut impl StepInputs) -> (Self, Option<Transition>) {
        self.enter(reopen_count, Phase::Open { deadline: inputs.deadline(reopen_count) }, cause)
    }

    /// Begins a generation in another state.
    #[inline]
    fn enter(self, reopen_count: u32, phase: Phase, cause: Cause) -> (Self, Option<Transition>) {
        let next = self.next_generation(reopen_count, phase);
        let (from, to) = (self.phase.state(), phase.state());
        (next, Some(Transition { from, to, generation: next.generation.into(), cause }))
    }

    /// Stays in the generation.
    #[inline]
    fn keep(self, phase: Phase) -> (Self, Option<Transition>) {
        (Self { phase, ..self }, None)
    }
}

impl CircuitConfig {
    /// The progress of a recovery that began at this tick, from 0 to below 1; `None` when it is
    /// over.
    pub(super) fn recovery_progress(&self, start: u64, now: Nanos) -> Option<f64> {
        let recovery = self.recovery?;
        // None has passed if the clock went backwards.
        let elapsed = now.saturating_since(reached_at(start));
        (elapsed < recovery).then(|| elapsed.as_secs_f64() / recovery.as_secs_f64())
    }
}
