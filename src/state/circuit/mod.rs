//! The circuit: one word that decides, and the windows that it decides by.

#[cfg(all(test, not(rampart_loom)))]
mod tests;
mod word;

use std::{num::NonZeroU32, time::Duration};

use word::{Phase, Word, deadline, ramp_progress, ramp_tick, reached_at, tick};

pub(crate) use super::transition::{Cause, State, Transition};
use super::{
    drive::{Step, drive},
    sync::{AtomicU64, Ordering, Padded},
    time::Nanos,
    window::{
        Counts, Rates, Sample,
        count::{CountWindow, Recorded},
        time::TimeWindow,
    },
};

/// The longest run of failures that can be asked for.
pub(crate) const RUN_MAX: u32 = word::RUN_MAX;
/// The most probes that can be asked for.
pub(crate) const PROBES_MAX: u32 = word::PROBES_MAX;

/// How a circuit is set. Whoever makes it has checked it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CircuitConfig {
    /// Trips at a run of so many failures.
    pub(crate) consecutive: Option<NonZeroU32>,
    /// Trips by the last so many calls.
    pub(crate) count: Option<(u32, Rates)>,
    /// Trips by the calls of the last so long, in so many buckets.
    pub(crate) time: Option<(Duration, u32, Rates)>,
    /// Whether slow calls are counted.
    pub(crate) slow: bool,
    /// Probes at once while half-open.
    pub(crate) probes: u32,
    /// Probes that must succeed to close.
    pub(crate) successes: u32,
    /// Probes that are silent for so long are given up.
    pub(crate) probe_timeout: Duration,
    /// After closing, the admitted share grows for so long.
    pub(crate) recovery: Option<Duration>,
    /// Stripes of the time window.
    pub(crate) stripes: usize,
}

/// The state machine of a circuit breaker.
///
/// Invariants:
/// - I1 the word changes by swaps only, and every transition begins a generation.
/// - I2 half-open, `in flight` is the number of this generation's probes that have not finished, and never above
///   `probes`.
/// - I3 each transition is returned to one caller, the one whose swap made it.
/// - I4 finishing a ticket of another generation has no effect.
/// - I5 from every state, but for those set by hand, a caller that tries again as time passes is admitted at last: a
///   probe that never finishes loses its place to the lease.
/// - I6 between a trip and the end of the open time nobody is admitted.
///
/// Cost: admitted while closed 1 load; refused while open 1 load and the clock; a probe 1 load and 1 RMW at each end.
/// A success in a clean count window, or without a run: 2 loads, no RMW, no clock. A failure: what the windows cost,
/// and 1 RMW for the run where consecutive failures are a rule; 1 RMW and the clock for a trip.
///
/// The generation has 18 bits: an outcome is mistaken for one of the present if exactly k * 262,144 transitions happen
/// during its call.
#[derive(Debug)]
pub(crate) struct Circuit {
    word: Padded<AtomicU64>,
    /// When silent probes are given up: `[generation: 18 | succeeded: 6 | tick: 40]`. Armed by the first caller who is
    /// turned away, and again when a probe has succeeded since.
    lease: Padded<AtomicU64>,
    /// Numbers the callers during a recovery.
    arrivals: AtomicU64,
    count: Option<CountWindow>,
    time: Option<TimeWindow>,
    config: CircuitConfig,
}

/// An admitted call. Finish it, or give it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    generation: u32,
    probe: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Admitted(Ticket),
    /// Admitted as a probe; with the transition, if this caller made the circuit half-open.
    Probe(Ticket, Option<Transition>),
    Rejected {
        retry_after: Option<Duration>,
    },
}

/// Whether a call would be admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// It would, with no need for a permit.
    Open,
    /// It would, as a probe.
    Probe,
    /// Not before this time, or a change of state.
    Wait { until: Option<Nanos> },
}

/// How a call went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    Failure,
    /// Degrades the rates and fails a probe, but leaves the run of failures as it is.
    Throttled,
    /// Cancelled, after it had been slow already: counts as slow and as nothing else.
    GivenUp,
    /// Counts as nothing; a probe's place is free again.
    Ignored,
}

/// What the circuit shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CircuitView {
    pub(crate) state: State,
    pub(crate) generation: u64,
    pub(crate) run: u32,
    pub(crate) flaps: u32,
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
            arrivals: AtomicU64::new(0),
            count: config.count.map(|(size, rates)| CountWindow::new(size, config.slow, rates)),
            time: config.time.map(|(length, buckets, rates)| TimeWindow::new(length, buckets, config.stripes, rates)),
            config,
        }
    }

    pub(crate) fn config(&self) -> &CircuitConfig {
        &self.config
    }

    fn load(&self) -> Word {
        Word::unpack(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, from: Word, to: Word) -> bool {
        self.word.compare_exchange(from.pack(), to.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Asks for admission.
    pub(crate) fn admit(&self, now: impl FnOnce() -> Nanos) -> Admission {
        let word = self.load();
        match word.phase {
            Phase::Closed { recovering: None, .. } | Phase::Disabled => {
                Admission::Admitted(Ticket { generation: word.generation, probe: false })
            }
            Phase::ForcedOpen => Admission::Rejected { retry_after: None },
            _ => self.admit_in_time(word, now()),
        }
    }

    /// The states in which time decides.
    fn admit_in_time(&self, mut word: Word, now: Nanos) -> Admission {
        loop {
            let admitted = Ticket { generation: word.generation, probe: false };
            let (next, transition) = match word.phase {
                Phase::Closed { recovering: None, .. } | Phase::Disabled => return Admission::Admitted(admitted),
                Phase::ForcedOpen => return Admission::Rejected { retry_after: None },
                Phase::Closed { run, recovering: Some(start) } => match self.recovery_left(start, now) {
                    Some(left) => return self.admit_a_share(admitted, left),
                    None => {
                        let recovered = Word { phase: Phase::Closed { run, recovering: None }, ..word };
                        self.swap(word, recovered);
                        word = self.load();
                        continue;
                    }
                },
                Phase::Open { deadline } if tick(now) < deadline => {
                    let left = reached_at(deadline).saturating_since(now);
                    return Admission::Rejected { retry_after: Some(left) };
                }
                Phase::Open { .. } => {
                    let next = word.next(word.flaps, Phase::HalfOpen { in_flight: 1, succeeded: 0 });
                    (next, Some(transition(word, next, Cause::OpenElapsed)))
                }
                Phase::HalfOpen { in_flight, succeeded } if in_flight < self.config.probes => {
                    (Word { phase: Phase::HalfOpen { in_flight: in_flight + 1, succeeded }, ..word }, None)
                }
                Phase::HalfOpen { succeeded, .. } => {
                    if !self.lease_expired(word.generation, succeeded, now) {
                        return Admission::Rejected { retry_after: None };
                    }
                    // A new generation takes back the places of all probes that are silent.
                    (word.next(word.flaps, Phase::HalfOpen { in_flight: 1, succeeded: 0 }), None)
                }
            };
            if self.swap(word, next) {
                return Admission::Probe(Ticket { generation: next.generation, probe: true }, transition);
            }
            word = self.load();
        }
    }

    /// Turned away while half-open: arms the lease, or finds that it has expired.
    fn lease_expired(&self, generation: u32, succeeded: u32, now: Nanos) -> bool {
        const TAG_SHIFT: u32 = 40;
        let tag = u64::from(generation) << 6 | u64::from(succeeded & 63);
        drive(&self.lease, |lease| {
            if lease >> TAG_SHIFT == tag && lease != 0 {
                Step::Keep(tick(now) >= lease & ((1 << TAG_SHIFT) - 1))
            } else {
                Step::Write(tag << TAG_SHIFT | deadline(now, self.config.probe_timeout), false)
            }
        })
    }

    fn recovery_left(&self, start: u32, now: Nanos) -> Option<(f64, Duration)> {
        let recovery = self.config.recovery?;
        let progress = ramp_progress(start, now, recovery);
        (progress < 1.0).then(|| (progress, recovery.mul_f64(1.0 - progress)))
    }

    /// A share of the callers that grows from a tenth to all. Spread evenly: the multiples of the golden ratio fill the
    /// circle without gaps (a Weyl sequence), so no random numbers are needed.
    fn admit_a_share(&self, ticket: Ticket, (progress, left): (f64, Duration)) -> Admission {
        const FIRST_SHARE: f64 = 0.1;
        let share = FIRST_SHARE + (1.0 - FIRST_SHARE) * progress;
        let arrival = self.arrivals.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        if (arrival >> 11) as f64 / (1_u64 << 53) as f64 <= share {
            Admission::Admitted(ticket)
        } else {
            Admission::Rejected { retry_after: Some(left) }
        }
    }

    /// Whether a call would be admitted; takes no place. Arms the lease where a caller would be turned away.
    pub(crate) fn outlook(&self, now: impl Fn() -> Nanos) -> Outlook {
        let word = self.load();
        match word.phase {
            Phase::Closed { .. } | Phase::Disabled => Outlook::Open,
            Phase::ForcedOpen => Outlook::Wait { until: None },
            Phase::Open { deadline } if tick(now()) < deadline => Outlook::Wait { until: Some(reached_at(deadline)) },
            Phase::Open { .. } => Outlook::Probe,
            Phase::HalfOpen { in_flight, .. } if in_flight < self.config.probes => Outlook::Probe,
            Phase::HalfOpen { succeeded, .. } => {
                let now = now();
                if self.lease_expired(word.generation, succeeded, now) {
                    Outlook::Probe
                } else {
                    Outlook::Wait { until: Some(now.saturating_add(self.config.probe_timeout)) }
                }
            }
        }
    }

    /// Finishes a ticket. `open_for` is asked for the open time, given how often the circuit has opened again since it
    /// was closed; `now` and it are called only when they are needed, `open_for` at most once.
    pub(crate) fn finish(
        &self,
        ticket: Ticket,
        outcome: Outcome,
        slow: bool,
        stripe: usize,
        now: impl Fn() -> Nanos,
        open_for: impl FnOnce(u32) -> Duration,
    ) -> Option<Transition> {
        let word = self.load();
        if word.generation != ticket.generation {
            return None;
        }
        let (outcome, slow) = match outcome {
            Outcome::GivenUp if self.config.slow => (Outcome::GivenUp, true),
            Outcome::GivenUp => (Outcome::Ignored, false),
            outcome => (outcome, slow && self.config.slow),
        };
        if ticket.probe {
            return self.finish_probe(word, outcome, slow, now, open_for);
        }
        let sample =
            Sample { failed: matches!(outcome, Outcome::Failure | Outcome::Throttled), slow: slow && self.config.slow };
        match outcome {
            Outcome::Ignored => return None,
            Outcome::Throttled | Outcome::GivenUp => {}
            Outcome::Success | Outcome::Failure => {
                if self.extend_run(word, sample.failed)? {
                    return self.trip(ticket.generation, Cause::ConsecutiveFailures, now, open_for);
                }
            }
        }
        let is_current = || self.load().generation == ticket.generation;
        let by_count =
            self.count.as_ref().and_then(|window| match window.record(ticket.generation.into(), sample, is_current) {
                Recorded::Evaluated(counts) => window.rates().due(counts),
                Recorded::Quietly | Recorded::Stale => None,
            });
        let by_time = self.time.as_ref().and_then(|window| {
            window.rates().due(window.record(ticket.generation.into(), sample, now(), stripe, is_current)?)
        });
        // A share of failures before a share of slow calls.
        let cause = [by_count, by_time].into_iter().flatten().min_by_key(|cause| *cause == Cause::SlowRate)?;
        self.trip(ticket.generation, cause, now, open_for)
    }

    /// Extends or ends the run of failures. `None` when the generation is over; otherwise whether the run is long enough
    /// for a trip, which is then due and not yet made.
    fn extend_run(&self, mut word: Word, failed: bool) -> Option<bool> {
        let Some(limit) = self.config.consecutive else { return Some(false) };
        let generation = word.generation;
        loop {
            if word.generation != generation {
                return None;
            }
            let Phase::Closed { run, recovering } = word.phase else { return Some(false) };
            let next = if failed { run + 1 } else { 0 };
            if next >= limit.get() {
                return Some(true);
            }
            if next == run || self.swap(word, Word { phase: Phase::Closed { run: next, recovering }, ..word }) {
                return Some(false);
            }
            word = self.load();
        }
    }

    fn trip(
        &self,
        generation: u32,
        cause: Cause,
        now: impl Fn() -> Nanos,
        open_for: impl FnOnce(u32) -> Duration,
    ) -> Option<Transition> {
        let mut phase = None;
        let mut open_for = Some(open_for);
        drive(&self.word, |word| {
            let word = Word::unpack(word);
            // Somebody else has tripped it, or it is disabled.
            if word.generation != generation || !matches!(word.phase, Phase::Closed { .. }) {
                return Step::Keep(None);
            }
            let phase = *phase.get_or_insert_with(|| {
                let wait = open_for.take().map_or(Duration::ZERO, |open_for| open_for(word.flaps));
                Phase::Open { deadline: deadline(now(), wait) }
            });
            let next = word.next(word.flaps, phase);
            Step::Write(next.pack(), Some(transition(word, next, cause)))
        })
    }

    fn finish_probe(
        &self,
        mut word: Word,
        outcome: Outcome,
        slow: bool,
        now: impl Fn() -> Nanos,
        open_for: impl FnOnce(u32) -> Duration,
    ) -> Option<Transition> {
        let generation = word.generation;
        let mut open_for = Some(open_for);
        let mut opened = None;
        let succeeded_now = outcome == Outcome::Success && !slow;
        loop {
            let Phase::HalfOpen { in_flight, succeeded } = word.phase else { return None };
            if word.generation != generation {
                return None;
            }
            let in_flight = in_flight.saturating_sub(1);
            let (next, cause) = if outcome == Outcome::Ignored {
                (Word { phase: Phase::HalfOpen { in_flight, succeeded }, ..word }, None)
            } else if !succeeded_now {
                let flaps = word.flaps + 1;
                let phase = *opened.get_or_insert_with(|| {
                    let wait = open_for.take().map_or(Duration::ZERO, |open_for| open_for(flaps));
                    Phase::Open { deadline: deadline(now(), wait) }
                });
                (word.next(flaps, phase), Some(Cause::ProbeFailed))
            } else if succeeded + 1 >= self.config.successes {
                let recovering = self.config.recovery.map(|_| ramp_tick(now()));
                (word.next(0, Phase::Closed { run: 0, recovering }), Some(Cause::ProbeSucceeded))
            } else {
                (Word { phase: Phase::HalfOpen { in_flight, succeeded: succeeded + 1 }, ..word }, None)
            };
            if self.swap(word, next) {
                return cause.map(|cause| transition(word, next, cause));
            }
            word = self.load();
        }
    }

    /// Sets the state by hand. Every call of it begins a generation, and so clears the windows; `None` when the state is
    /// the same as before. `open_for` is the open time for [`State::Open`].
    pub(crate) fn set(&self, to: State, now: Nanos, open_for: Duration) -> Option<Transition> {
        let phase = match to {
            State::Closed => Phase::Closed { run: 0, recovering: None },
            State::Open => Phase::Open { deadline: deadline(now, open_for) },
            State::HalfOpen => Phase::HalfOpen { in_flight: 0, succeeded: 0 },
            State::ForcedOpen => Phase::ForcedOpen,
            State::Disabled => Phase::Disabled,
        };
        drive(&self.word, |word| {
            let word = Word::unpack(word);
            let next = word.next(0, phase);
            let changed = (word.phase.state() != to).then(|| transition(word, next, Cause::ByHand));
            Step::Write(next.pack(), changed)
        })
    }

    pub(crate) fn state(&self) -> State {
        self.load().phase.state()
    }

    pub(crate) fn view(&self, now: impl Fn() -> Nanos) -> CircuitView {
        let word = self.load();
        let (run, probes_in_flight, probes_succeeded, open_for) = match word.phase {
            Phase::Closed { run, .. } => (run, 0, 0, None),
            Phase::Open { deadline } => (0, 0, 0, Some(reached_at(deadline).saturating_since(now()))),
            Phase::HalfOpen { in_flight, succeeded } => (0, in_flight, succeeded, None),
            Phase::ForcedOpen | Phase::Disabled => (0, 0, 0, None),
        };
        let generation = u64::from(word.generation);
        CircuitView {
            state: word.phase.state(),
            generation,
            run,
            flaps: word.flaps,
            probes_in_flight,
            probes_succeeded,
            open_for,
            count: self.count.as_ref().map(|window| window.snapshot(generation)),
            time: self.time.as_ref().map(|window| window.snapshot(generation, now())),
        }
    }
}

impl Ticket {
    pub(crate) fn is_probe(self) -> bool {
        self.probe
    }
}

fn transition(from: Word, to: Word, cause: Cause) -> Transition {
    Transition { from: from.phase.state(), to: to.phase.state(), generation: to.generation.into(), cause }
}
