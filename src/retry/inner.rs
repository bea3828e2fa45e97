//! What all handles and futures of one retry share, and the state of one call.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::{Backoff, RetryBudget, WhenNotReady, backoff::Progress};
use crate::{
    classify::{Classify, Verdict},
    clock, deadline,
    error::{Rejection, RetryWhen},
    event::{EventEmitter, EventKind},
    request::{Repeat, ReplaySafety},
    shared::random::Random,
};

#[derive(Debug)]
pub(crate) struct RetryInner {
    /// Read once or twice per call, written by hand only.
    pub(crate) max_attempts: AtomicU32,
    pub(crate) backoff: Backoff,
    pub(crate) deadline: Option<Duration>,
    pub(crate) max_retry_after: Duration,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) idempotent: bool,
    pub(crate) elsewhere: bool,
    pub(crate) when_not_ready: WhenNotReady,
    pub(crate) random: Random,
    pub(crate) events: EventEmitter,
}

/// What the request says of itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayHints {
    pub(super) idempotent: Option<bool>,
    pub(super) again: ReplaySafety,
}

impl ReplayHints {
    pub(super) fn of<Req>(repeat: &impl Repeat<Req>, copy: &Req) -> Self {
        Self { idempotent: repeat.is_idempotent(copy), again: repeat.replay_safety(copy) }
    }
}

/// The state of one call: attempts made, and what they may still cost.
#[derive(Debug)]
pub(crate) struct RetryState {
    made: u32,
    progress: Progress,
    /// The earliest deadline known: its own, or once there was a failure, one around the call.
    deadline: Option<Instant>,
    /// How the last result counts.
    verdict: Verdict,
    /// A token was taken for a retry that has not been sent.
    owed: bool,
}

impl RetryInner {
    /// The call begins. Reads the clock only when there is a deadline of its own.
    #[inline]
    pub(super) fn begin(&self) -> RetryState {
        let deadline = self.deadline.and_then(|limit| clock::instant().checked_add(limit));
        RetryState { made: 1, progress: Progress::default(), deadline, verdict: Verdict::Ignored, owed: false }
    }

    /// An attempt succeeded.
    #[inline]
    pub(super) fn succeeded(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// The delay after which another attempt is to be made, if the result of this one, which is not a success, is not
    /// the answer.
    ///
    /// `copied` is whether the request is there for another attempt, `hints` what it says of itself, and `exhausted`
    /// whether the result comes from a retry within that has given up.
    #[allow(clippy::too_many_arguments)] // what is known of the attempt
    #[inline(never)]
    pub(super) fn judge<T, E, C: Classify<T, E>>(
        &self,
        state: &mut RetryState,
        verdict: Verdict,
        classify: &C,
        result: Result<&T, &E>,
        copied: bool,
        hints: impl FnOnce() -> ReplayHints,
        exhausted: bool,
    ) -> Option<Duration> {
        state.verdict = verdict;
        let rejection = result.err().and_then(|error| classify.rejection(error));
        // No copy is made for the last attempt. A retry of a single attempt has nothing that could be exhausted.
        let may_repeat = self.may_repeat(state);
        let repeatable = if may_repeat { copied } else { state.made > 1 };
        if !repeatable || !self.deserves(verdict, rejection, hints, || classify.was_attempted(result)) {
            if exhausted {
                deadline::mark_exhausted();
            }
            return None;
        }
        let hint = match rejection {
            Some(rejection) if rejection.semantics().retry == RetryWhen::RetryAfter => rejection.retry_after(),
            // An open circuit has a `retry_after`, too, but the next attempt goes to another instance.
            Some(_) => None,
            None => classify.retry_after(result),
        };
        let delay = self.schedule(state, hint, exhausted || !may_repeat);
        if delay.is_none() {
            // A retry outside should not multiply what was given up here.
            deadline::mark_exhausted();
        }
        delay
    }

    fn deserves(
        &self,
        verdict: Verdict,
        rejection: Option<&Rejection>,
        hints: impl FnOnce() -> ReplayHints,
        attempted: impl FnOnce() -> bool,
    ) -> bool {
        let failed = matches!(verdict, Verdict::Failure | Verdict::Throttled);
        let when = rejection.map(|rejection| rejection.semantics().retry);
        let deserves = match when {
            None | Some(RetryWhen::Idempotent) => failed,
            Some(RetryWhen::RetryAfter) => true,
            Some(RetryWhen::OtherInstance) => self.elsewhere,
            Some(RetryWhen::Never) => false,
        };
        if !deserves {
            return false;
        }
        let ReplayHints { idempotent, again } = hints();
        match again {
            ReplaySafety::AfterFailure => when != Some(RetryWhen::Idempotent) || idempotent.unwrap_or(self.idempotent),
            ReplaySafety::IfUnprocessed => !rejection.map_or_else(attempted, Rejection::was_attempted),
            ReplaySafety::Never => false,
        }
    }

    /// The delay before the next attempt, if there may be one: attempts, time and budget permitting.
    fn schedule(&self, state: &mut RetryState, hint: Option<Duration>, exhausted: bool) -> Option<Duration> {
        let attempts = state.made;
        let give_up = || {
            self.events.emit(|| EventKind::RetriesExhausted { attempts });
            None
        };
        if exhausted || hint.is_some_and(|hint| hint > self.max_retry_after) {
            return give_up();
        }
        let backoff = state.progress.next(&self.backoff, &self.random);
        let delay = hint.map_or(backoff, |hint| hint.max(backoff));
        state.deadline = state.deadline.into_iter().chain(deadline::current()).min();
        if let Some(deadline) = state.deadline {
            // An attempt that begins at the deadline would be killed as it begins.
            if clock::instant().checked_add(delay).is_none_or(|at| at >= deadline) {
                return give_up();
            }
        }
        if self.budget.as_ref().is_some_and(|budget| !budget.try_withdraw()) {
            self.events.emit(|| EventKind::BudgetExhausted { attempts });
            return None;
        }
        state.owed = self.budget.is_some();
        let attempt = attempts + 1;
        self.events.emit(|| EventKind::RetryScheduled { attempt, delay });
        Some(delay)
    }

    /// Whether the attempt that was scheduled would begin too late, because the service was not ready before or the
    /// timer was late.
    pub(crate) fn is_late(&self, state: &RetryState) -> bool {
        state.deadline.is_some_and(|deadline| clock::instant() >= deadline)
    }

    /// Whether more attempts may follow the one that was made last.
    #[inline]
    pub(crate) fn may_repeat(&self, state: &RetryState) -> bool {
        state.made < self.max_attempts()
    }

    #[inline]
    pub(crate) fn max_attempts(&self) -> u32 {
        self.max_attempts.load(Ordering::Relaxed)
    }

    #[inline]
    fn settle(&self, state: &RetryState) {
        if state.owed
            && let Some(budget) = &self.budget
        {
            budget.give_back();
        }
    }

    /// The attempt that was scheduled is not sent after all: the last result is the answer.
    pub(super) fn give_up(&self, state: RetryState) {
        deadline::mark_exhausted();
        self.events.emit(|| EventKind::RetriesExhausted { attempts: state.made });
        let verdict = state.verdict;
        self.finish(state, verdict);
    }

    /// The call ended. A token for a retry that was not sent goes back.
    #[inline]
    pub(super) fn finish(&self, state: RetryState, verdict: Verdict) {
        self.settle(&state);
        self.events.emit(|| EventKind::Completed { verdict, elapsed: None });
    }

    /// The call was dropped.
    pub(super) fn cancel(&self, state: RetryState) {
        self.settle(&state);
        self.events.emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
    }
}

impl RetryState {
    /// The number of the next attempt.
    pub(crate) fn next(&self) -> u32 {
        self.made + 1
    }

    /// The next attempt is sent.
    pub(crate) fn sent(&mut self) {
        self.owed = false;
        self.made += 1;
    }

    /// The earliest deadline that an attempt must not begin after.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
