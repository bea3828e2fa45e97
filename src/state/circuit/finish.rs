//! Completion: the effect of an outcome on the windows and the circuit.

use std::time::Duration;

use super::{
    Admitted, Circuit, Outcome,
    step::{CircuitEvent, LazyInputs, ProbeOutcome, StepInputs},
    word::{CircuitWord, Phase, is_closed_without_failures},
};
use crate::state::{
    atomics::Ordering,
    time::Nanos,
    transition::{Cause, Transition},
    window::Sample,
};

const CLEAN: Sample = Sample { failed: false, slow: false };

impl Circuit {
    /// Whether a success of this call, which was not slow, changes nothing: the circuit is closed,
    /// in the call's generation, without consecutive failures, and the count window, if there is
    /// one, holds only clean calls. At most two loads. Only for circuits without a time window.
    #[inline(always)]
    pub(crate) fn success_changes_nothing(&self, admitted: Admitted) -> bool {
        debug_assert!(self.time.is_none());
        self.count.as_ref().is_none_or(|window| window.is_clean_in(admitted.generation().into()))
            && is_closed_without_failures(self.word.load(Ordering::Acquire), admitted.0)
    }

    /// Records a success that was not slow, if it cannot change the circuit: if that is closed,
    /// without consecutive failures, and has a time window only.
    #[inline]
    pub(crate) fn try_record_success(
        &self,
        admitted: Admitted,
        thread: impl FnOnce() -> usize,
        now: impl FnOnce() -> Nanos,
    ) -> bool {
        let (None, Some(window)) = (&self.count, &self.time) else { return false };
        if !is_closed_without_failures(self.word.load(Ordering::Acquire), admitted.0) {
            return false;
        }
        let generation = admitted.generation();
        window.record_clean(generation.into(), now(), thread(), || self.is_current_generation(generation));
        true
    }

    /// Completes a call.
    ///
    /// `open_for` returns the open time, given the number of times that the circuit has opened
    /// again since it was last closed. `now` and `open_for` are called only when they are needed,
    /// and at most once.
    #[inline(always)]
    pub(crate) fn finish(
        &self,
        admitted: Admitted,
        outcome: Outcome,
        slow: bool,
        thread: impl FnOnce() -> usize,
        now: impl Fn() -> Nanos,
        open_for: impl Fn(u32) -> Duration,
    ) -> Option<Transition> {
        let seen = self.word.load(Ordering::Acquire);
        // Nearly every call is a success without failures before it: no need to unpack the word,
        // nor to pass the closures on in memory.
        if outcome == Outcome::Success && !slow && is_closed_without_failures(seen, admitted.0) {
            let mut at = None;
            let cause = self.record_clean(admitted.generation(), thread, || *at.insert(now()))?;
            let mut inputs = LazyInputs::new(|| at.unwrap_or_else(&now), open_for);
            return self.trip(admitted.generation(), cause, &mut inputs);
        }
        self.finish_changing(seen, admitted, outcome, slow, thread, LazyInputs::new(now, open_for))
    }

    /// Completes a call that may change the word.
    #[inline(never)]
    fn finish_changing(
        &self,
        seen: u64,
        admitted: Admitted,
        outcome: Outcome,
        slow: bool,
        thread: impl FnOnce() -> usize,
        mut inputs: impl StepInputs,
    ) -> Option<Transition> {
        if CircuitWord::unpack(seen).generation != admitted.generation() {
            return None;
        }
        let (outcome, slow) = match outcome {
            Outcome::CancelledSlow if self.config.slow => (Outcome::CancelledSlow, true),
            Outcome::CancelledSlow => (Outcome::Ignored, false),
            outcome => (outcome, slow && self.config.slow),
        };
        if admitted.is_probe() {
            self.finish_probe(seen, admitted, outcome, slow, &mut inputs)
        } else {
            self.finish_call(seen, admitted, outcome, slow, thread, &mut inputs)
        }
    }

    fn finish_call(
        &self,
        seen: u64,
        admitted: Admitted,
        outcome: Outcome,
        slow: bool,
        thread: impl FnOnce() -> usize,
        inputs: &mut impl StepInputs,
    ) -> Option<Transition> {
        let generation = admitted.generation();
        let failed = match outcome {
            Outcome::Ignored => return None,
            Outcome::Success | Outcome::Failure => {
                let failed = outcome == Outcome::Failure;
                let applied = self.apply(seen, CircuitEvent::Complete { generation, failed }, inputs);
                if applied.after.generation != generation {
                    return applied.transition;
                }
                failed
            }
            Outcome::Throttled => true,
            Outcome::CancelledSlow => false,
        };
        let cause = self.record(generation, Sample { failed, slow }, thread, inputs)?;
        self.trip(generation, cause, inputs)
    }

    fn finish_probe(
        &self,
        seen: u64,
        admitted: Admitted,
        outcome: Outcome,
        slow: bool,
        inputs: &mut impl StepInputs,
    ) -> Option<Transition> {
        let outcome = match outcome {
            Outcome::Ignored => ProbeOutcome::Ignored,
            Outcome::Success if !slow => ProbeOutcome::Succeeded,
            Outcome::Success | Outcome::Failure | Outcome::Throttled | Outcome::CancelledSlow => ProbeOutcome::Failed,
        };
        let event = CircuitEvent::CompleteProbe { generation: admitted.generation(), outcome };
        let applied = self.apply(seen, event, inputs);
        if let (Some(_), Phase::Closed { recovering: true, .. }) = (applied.transition, applied.after.phase) {
            self.begin_recovery(applied.after.generation, inputs.now());
        }
        applied.transition
    }

    /// Records a success that was not slow. Only the count window can trip by it, if it completes
    /// the minimum of calls.
    #[inline]
    fn record_clean(
        &self,
        generation: u32,
        thread: impl FnOnce() -> usize,
        now: impl FnOnce() -> Nanos,
    ) -> Option<Cause> {
        let is_current = || self.is_current_generation(generation);
        let cause =
            self.count.as_ref().and_then(|window| window.record_and_evaluate(generation.into(), CLEAN, is_current));
        if let Some(window) = &self.time {
            window.record_clean(generation.into(), now(), thread(), is_current);
        }
        cause
    }

    /// Records a call in the windows. Returns the reason to trip, if there is one: failures come
    /// before slow calls.
    fn record(
        &self,
        generation: u32,
        sample: Sample,
        thread: impl FnOnce() -> usize,
        inputs: &mut impl StepInputs,
    ) -> Option<Cause> {
        let is_current = || self.is_current_generation(generation);
        let by_count =
            self.count.as_ref().and_then(|window| window.record_and_evaluate(generation.into(), sample, is_current));
        let by_time = self.time.as_ref().and_then(|window| {
            let counts = window.record(generation.into(), sample, inputs.now(), thread(), is_current)?;
            window.rates().trip_cause(counts)
        });
        [by_count, by_time].into_iter().flatten().min_by_key(|cause| *cause == Cause::SlowRate)
    }

    #[cold]
    fn trip(&self, generation: u32, cause: Cause, inputs: &mut impl StepInputs) -> Option<Transition> {
        let seen = self.word.load(Ordering::Acquire);
        self.apply(seen, CircuitEvent::Trip { generation, cause }, inputs).transition
    }
}
