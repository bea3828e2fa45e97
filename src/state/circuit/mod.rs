//! The circuit breaker: one word that holds the state, and the windows that trip it.

mod admit;
mod finish;
mod step;
#[cfg(all(test, not(rampart_loom)))]
mod tests;
mod word;

use std::{num::NonZeroU32, time::Duration};

use step::{CircuitEvent, LazyInputs, StepInputs};
use word::{CircuitWord, Phase, reached_at};
pub(crate) use word::{MAX_CONSECUTIVE_FAILURES, MAX_PROBES};

pub(crate) use super::transition::{CircuitState, Transition};
use super::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive_from},
    time::Nanos,
    window::{Counts, Rates, count::CountWindow, time::TimeWindow},
};

/// The configuration of a circuit. The builder has checked it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CircuitConfig {
    /// Trips after this many consecutive failures.
    pub(crate) consecutive: Option<NonZeroU32>,
    /// Trips by the rates of the last calls: their number, and the thresholds.
    pub(crate) count: Option<(u32, Rates)>,
    /// Trips by the rates of a period: its length, the number of buckets, and the thresholds.
    pub(crate) time: Option<(Duration, u32, Rates)>,
    /// Whether slow calls count.
    pub(crate) slow: bool,
    /// The most probes in flight while half-open.
    pub(crate) probes: u32,
    /// The successful probes that close the circuit.
    pub(crate) successes: u32,
    /// The time after which probes that have not completed lose their slots.
    pub(crate) probe_timeout: Duration,
    /// The time after closing during which the admitted share grows.
    pub(crate) recovery: Option<Duration>,
    /// The stripes of the time window.
    pub(crate) stripes: usize,
}

/// The state machine of a circuit breaker.
///
/// Invariants:
/// - circuit.I1 the word changes by compare-and-swap only, and every transition begins a
///   generation.
/// - circuit.I2 while half-open, `in flight` is the number of this generation's probes that have
///   not completed, and never above `probes`.
/// - circuit.I3 each transition is returned to one caller, the one whose swap made it.
/// - circuit.I4 completing a call of another generation has no effect.
/// - circuit.I5 in every state that was not set manually, a caller that keeps trying as time passes
///   is admitted in the end: a probe that never completes loses its slot when the lease expires.
/// - circuit.I6 no call is admitted between a trip and the end of the open time.
///
/// Cost: an admission while closed is 1 load; a rejection while open 1 load and the clock; a probe
/// 1 load and 1 RMW at each end. A success is 2 loads, no RMW and no clock if the count window is
/// clean or there is none, and no failures precede it. A failure costs the windows' records, and 1
/// RMW where consecutive failures trip; a trip is 1 RMW and the clock.
///
/// The generation has 18 bits: an outcome is taken for one of the current generation if exactly k *
/// 262,144 transitions happen during its call.
#[derive(Debug)]
pub(crate) struct Circuit {
    word: Padded<AtomicU64>,
    /// The tick at which probes in flight lose their slots: `[generation: 12 | probes admitted: 12 | tick: 40]`. Armed by
    /// the first caller that is rejected, and again once another probe has been admitted.
    lease: Padded<AtomicU64>,
    /// When the last recovery began: `[generation: 18, shifted by 40 | tick: 40]`.
    recovery: AtomicU64,
    /// Numbers the callers that arrive during a recovery.
    arrivals: AtomicU64,
    count: Option<CountWindow>,
    time: Option<TimeWindow>,
    config: CircuitConfig,
}

/// The effect of an event on the word.
struct Applied {
    before: CircuitWord,
    after: CircuitWord,
    transition: Option<Transition>,
}

/// An admitted call, which must be [finished](Circuit::finish): with [`Outcome::Ignored`] if it was
/// never made.
///
/// ```text
/// [probe: 1 | generation: 18]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Admitted(u32);

/// The result of asking for admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted(Admitted),
    /// Admitted as a probe, with the transition if this caller made the circuit half-open.
    Probe(Admitted, Option<Transition>),
    Rejected {
        retry_after: Option<Duration>,
    },
    /// Rejected although the circuit is closed: it is recovering, and admits this share of the
    /// calls.
    RejectedInRecovery {
        admitted_percent: u32,
    },
}

/// The admission that a caller would get now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeekedAdmission {
    /// Admitted, without a probe slot.
    Admit,
    /// Admitted as a probe.
    AdmitProbe,
    /// Rejected until this time, or until the state changes.
    Reject { until: Option<Nanos> },
}

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// Counts as a failure for the rates and for a probe, but leaves the consecutive failures as
    /// they are.
    Throttled,
    /// Cancelled after it had become slow: counts as slow only.
    CancelledSlow,
    /// Does not count; releases the slot of a probe.
    Ignored,
}

/// A snapshot of a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CircuitView {
    pub(crate) state: CircuitState,
    pub(crate) generation: u64,
    pub(crate) consecutive_failures: u32,
    pub(crate) reopen_count: u32,
    pub(crate) probes_in_flight: u32,
    pub(crate) probes_succeeded: u32,
    pub(crate) open_for: Option<Duration>,
    pub(crate) count: Option<Counts>,
    pub(crate) time: Option<Counts>,
}

impl Circuit {
    pub(crate) fn new(config: CircuitConfig) -> Self {
        Self {
            word: Padded(AtomicU64::new(0)),
            lease: Padded(AtomicU64::new(0)),
            recovery: AtomicU64::new(0),
            arrivals: AtomicU64::new(0),
            count: config.count.map(|(size, rates)| CountWindow::new(size, config.slow, rates)),
            time: config.time.map(|(length, buckets, rates)| TimeWindow::new(length, buckets, config.stripes, rates)),
            config,
        }
    }

    pub(crate) fn config(&self) -> &CircuitConfig {
        &self.config
    }

    #[inline]
    fn load(&self) -> CircuitWord {
        CircuitWord::unpack(self.word.load(Ordering::Acquire))
    }

    /// Applies an event, starting from the value `seen` of the word. The word is written nowhere
    /// else.
    #[inline]
    fn apply(&self, seen: u64, event: CircuitEvent, inputs: &mut impl StepInputs) -> Applied {
        let applied = drive_from(&self.word, seen, |seen| {
            let before = CircuitWord::unpack(seen);
            let (after, transition) = before.step(event, &self.config, inputs);
            let (next, applied) = (after.pack(), Applied { before, after, transition });
            if next == seen { Step::Keep(applied) } else { Step::Write(next, applied) }
        });
        if applied.before.generation != applied.after.generation {
            self.begin_count_window(applied.after);
        }
        applied
    }

    /// Empties the count window if calls are recorded in this generation.
    fn begin_count_window(&self, word: CircuitWord) {
        if let Some(window) = &self.count
            && matches!(word.phase, Phase::Closed { .. } | Phase::Disabled)
        {
            window.begin_generation(word.generation.into(), || self.is_current_generation(word.generation));
        }
    }

    /// Sets the state manually. Always begins a generation, which clears the windows; returns
    /// `None` if the state stays the same. `open_for` is the open time of [`CircuitState::Open`].
    pub(crate) fn set(&self, to: CircuitState, now: Nanos, open_for: Duration) -> Option<Transition> {
        self.apply_manual(CircuitEvent::Set(to), now, open_for)
    }

    /// Opens a circuit that is closed or half-open; any other stays as it is.
    pub(crate) fn honor_retry_after(&self, now: Nanos, open_for: Duration) -> Option<Transition> {
        self.apply_manual(CircuitEvent::RetryAfter, now, open_for)
    }

    fn apply_manual(&self, event: CircuitEvent, now: Nanos, open_for: Duration) -> Option<Transition> {
        let mut inputs = LazyInputs::new(|| now, |_| open_for);
        self.apply(self.word.load(Ordering::Acquire), event, &mut inputs).transition
    }

    pub(crate) fn state(&self) -> CircuitState {
        self.load().phase.state()
    }

    /// Whether the call is of the current generation, so that its outcome would count. One load.
    pub(crate) fn is_current(&self, admitted: Admitted) -> bool {
        self.is_current_generation(admitted.generation())
    }

    fn is_current_generation(&self, generation: u32) -> bool {
        self.load().generation == generation
    }

    /// The time after which a caller that is rejected now may retry, if that is known.
    pub(crate) fn retry_after(&self, now: impl FnOnce() -> Nanos) -> Option<Duration> {
        match self.load().phase {
            Phase::Open { deadline } => Some(reached_at(deadline).saturating_since(now())),
            Phase::HalfOpen { in_flight, .. } => (in_flight < self.config.probes).then_some(Duration::ZERO),
            Phase::ForcedOpen => None,
            Phase::Closed { .. } | Phase::Disabled => Some(Duration::ZERO),
        }
    }

    /// Whether the circuit behaves as a new one: closed and not recovering, without failures or
    /// slow calls that count. Clean calls in the windows are not considered.
    pub(crate) fn is_as_built(&self, now: Nanos) -> bool {
        let word = self.load();
        let Phase::Closed { consecutive_failures: 0, recovering } = word.phase else { return false };
        let generation = u64::from(word.generation);
        let by_count = self.count.as_ref().map(|window| window.snapshot(generation));
        let by_time = self.time.as_ref().map(|window| window.snapshot(generation, now));
        let is_recovering = || self.config.recovery_progress(self.begin_recovery(word.generation, now), now).is_some();
        !(recovering && is_recovering())
            && by_count.into_iter().chain(by_time).all(|counts| counts.failed == 0 && counts.slow == 0)
    }

    pub(crate) fn view(&self, now: impl Fn() -> Nanos) -> CircuitView {
        let word = self.load();
        let (consecutive_failures, probes_in_flight, probes_succeeded, open_for) = match word.phase {
            Phase::Closed { consecutive_failures, .. } => (consecutive_failures, 0, 0, None),
            Phase::Open { deadline } => (0, 0, 0, Some(reached_at(deadline).saturating_since(now()))),
            Phase::HalfOpen { in_flight, succeeded, .. } => (0, in_flight, succeeded, None),
            Phase::ForcedOpen | Phase::Disabled => (0, 0, 0, None),
        };
        let generation = u64::from(word.generation);
        CircuitView {
            state: word.phase.state(),
            generation,
            consecutive_failures,
            reopen_count: word.reopen_count,
            probes_in_flight,
            probes_succeeded,
            open_for,
            count: self.count.as_ref().map(|window| window.snapshot(generation)),
            time: self.time.as_ref().map(|window| window.snapshot(generation, now())),
        }
    }
}

impl Admitted {
    const PROBE: u32 = word::GENERATION_MASK + 1;

    #[inline]
    fn call(generation: u32) -> Self {
        Self(generation)
    }

    fn probe(generation: u32) -> Self {
        Self(generation | Self::PROBE)
    }

    #[inline]
    fn generation(self) -> u32 {
        self.0 & word::GENERATION_MASK
    }

    #[inline]
    pub(crate) fn is_probe(self) -> bool {
        self.0 & Self::PROBE != 0
    }
}
