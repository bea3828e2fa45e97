//! The way out: what an outcome does to the circuit.

use std::time::Duration;

use super::{
    Admitted, Circuit, Outcome, transition,
    word::{CircuitWord, Phase, deadline, is_closed_without_failures, ramp_tick},
};
use crate::state::{
    atomics::Ordering,
    drive::{Step, drive},
    time::Nanos,
    transition::{Cause, Transition},
    window::Sample,
};

const GOOD: Sample = Sample { failed: false, slow: false };

/// What a call did to the run of failures.
enum Run {
    Counted,
    /// Its generation is over.
    Stale,
    Tripped(Transition),
}

/// The open phase that a call may bring about. Drawn when the first swap is tried, once: the next try is for the same.
struct Opening<N, F> {
    now: N,
    open_for: Option<F>,
    phase: Option<Phase>,
}

impl<N: Fn() -> Nanos, F: FnOnce(u32) -> Duration> Opening<N, F> {
    fn phase(&mut self, reopen_count: u32) -> Phase {
        *self.phase.get_or_insert_with(|| {
            let wait = self.open_for.take().map_or(Duration::ZERO, |open_for| open_for(reopen_count));
            Phase::Open { deadline: deadline((self.now)(), wait) }
        })
    }
}

impl Circuit {
    /// Whether a success of this admitted, which was not slow, changes nothing: the circuit is closed, in the admitted's
    /// generation, without a run of failures, and the count window, if there is one, has only good calls in it. At most
    /// two loads. Not to be asked when there is a time window.
    #[inline(always)]
    pub(crate) fn success_changes_nothing(&self, admitted: Admitted) -> bool {
        debug_assert!(self.time.is_none());
        self.count.as_ref().is_none_or(|window| window.is_clean_in(admitted.generation().into()))
            && is_closed_without_failures(self.word.load(Ordering::Acquire), admitted.0)
    }

    /// Finishes a admitted. `open_for` is asked for the open time, given how often the circuit has opened again since it
    /// was closed; `now` and it are called only when they are needed, `open_for` at most once.
    pub(crate) fn finish(
        &self,
        admitted: Admitted,
        outcome: Outcome,
        slow: bool,
        thread: impl FnOnce() -> usize,
        now: impl Fn() -> Nanos,
        open_for: impl FnOnce(u32) -> Duration,
    ) -> Option<Transition> {
        let word = self.word.load(Ordering::Acquire);
        let generation = admitted.generation();
        // What nearly all calls come to, before anything is unpacked: a success that ends no run.
        if outcome == Outcome::Success && !slow && is_closed_without_failures(word, admitted.0) {
            let is_current = || self.load().generation == generation;
            let due =
                self.count.as_ref().and_then(|window| window.record_and_evaluate(generation.into(), GOOD, is_current));
            if let Some(time) = &self.time {
                time.record_clean(generation.into(), now(), thread(), is_current);
            }
            let cause = due?;
            let mut opening = Opening { now: &now, open_for: Some(open_for), phase: None };
            return self.trip(generation, cause, &mut opening);
        }
        let word = CircuitWord::unpack(word);
        if word.generation != generation {
            return None;
        }
        let (outcome, slow) = match outcome {
            Outcome::CancelledSlow if self.config.slow => (Outcome::CancelledSlow, true),
            Outcome::CancelledSlow => (Outcome::Ignored, false),
            outcome => (outcome, slow && self.config.slow),
        };
        let mut opening = Opening { now: &now, open_for: Some(open_for), phase: None };
        if admitted.is_probe() {
            return self.finish_probe(word, outcome, slow, &mut opening);
        }
        let sample = Sample { failed: matches!(outcome, Outcome::Failure | Outcome::Throttled), slow };
        match outcome {
            Outcome::Ignored => return None,
            Outcome::Throttled | Outcome::CancelledSlow => {}
            Outcome::Success | Outcome::Failure => match self.extend_run(word, sample.failed, &mut opening) {
                Run::Counted => {}
                Run::Stale => return None,
                Run::Tripped(transition) => return Some(transition),
            },
        }
        let generation = admitted.generation().into();
        let is_current = || self.load().generation == admitted.generation();
        let by_count =
            self.count.as_ref().and_then(|window| window.record_and_evaluate(generation, sample, is_current));
        let by_time = self.time.as_ref().and_then(|window| {
            window.rates().trip_cause(window.record(generation, sample, now(), thread(), is_current)?)
        });
        // A share of failures before a share of slow calls.
        let cause = [by_count, by_time].into_iter().flatten().min_by_key(|cause| *cause == Cause::SlowRate)?;
        self.trip(admitted.generation(), cause, &mut opening)
    }

    /// Extends or ends the run of failures, or trips by it, in one swap.
    fn extend_run(
        &self,
        mut word: CircuitWord,
        failed: bool,
        opening: &mut Opening<impl Fn() -> Nanos, impl FnOnce(u32) -> Duration>,
    ) -> Run {
        let Some(limit) = self.config.consecutive else { return Run::Counted };
        let generation = word.generation;
        loop {
            if word.generation != generation {
                return Run::Stale;
            }
            let Phase::Closed { consecutive_failures, recovery_start } = word.phase else { return Run::Counted };
            let extended = if failed { consecutive_failures + 1 } else { 0 };
            if extended == consecutive_failures {
                return Run::Counted;
            }
            let (next, done) = if extended >= limit.get() {
                let next = word.next(word.reopen_count, opening.phase(word.reopen_count));
                (next, Run::Tripped(transition(word, next, Cause::ConsecutiveFailures)))
            } else {
                (
                    CircuitWord { phase: Phase::Closed { consecutive_failures: extended, recovery_start }, ..word },
                    Run::Counted,
                )
            };
            if self.swap(word, next) {
                return done;
            }
            word = self.load();
        }
    }

    fn trip(
        &self,
        generation: u32,
        cause: Cause,
        opening: &mut Opening<impl Fn() -> Nanos, impl FnOnce(u32) -> Duration>,
    ) -> Option<Transition> {
        drive(&self.word, |word| {
            let word = CircuitWord::unpack(word);
            // Somebody else has tripped it, or it is disabled.
            if word.generation != generation || !matches!(word.phase, Phase::Closed { .. }) {
                return Step::Keep(None);
            }
            let next = word.next(word.reopen_count, opening.phase(word.reopen_count));
            Step::Write(next.pack(), Some(transition(word, next, cause)))
        })
    }

    fn finish_probe(
        &self,
        mut word: CircuitWord,
        outcome: Outcome,
        slow: bool,
        opening: &mut Opening<impl Fn() -> Nanos, impl FnOnce(u32) -> Duration>,
    ) -> Option<Transition> {
        let generation = word.generation;
        let succeeded_now = outcome == Outcome::Success && !slow;
        loop {
            let Phase::HalfOpen { in_flight, succeeded, probes_admitted } = word.phase else { return None };
            if word.generation != generation {
                return None;
            }
            let in_flight = in_flight.saturating_sub(1);
            let (next, cause) = if outcome == Outcome::Ignored {
                (CircuitWord { phase: Phase::HalfOpen { in_flight, succeeded, probes_admitted }, ..word }, None)
            } else if !succeeded_now {
                let reopen_count = word.reopen_count + 1;
                (word.next(reopen_count, opening.phase(reopen_count)), Some(Cause::ProbeFailed))
            } else if succeeded + 1 >= self.config.successes {
                let recovery_start = self.config.recovery.map(|_| ramp_tick((opening.now)()));
                (word.next(0, Phase::Closed { consecutive_failures: 0, recovery_start }), Some(Cause::ProbeSucceeded))
            } else {
                (
                    CircuitWord {
                        phase: Phase::HalfOpen { in_flight, succeeded: succeeded + 1, probes_admitted },
                        ..word
                    },
                    None,
                )
            };
            if self.swap(word, next) {
                self.begin_count_window(next);
                return cause.map(|cause| transition(word, next, cause));
            }
            word = self.load();
        }
    }
}
