//! The state that all handles and calls of one retry share, and the progress of one call.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use super::{
    Backoff, RetryBudget, WhenNotReady,
    backoff::Progress,
    scope::{self, AttemptScope, InnerRetries},
};
use crate::{
    classify::{Classify, Verdict},
    clock,
    deadline::{self, NEVER},
    error::{AsRejection, Rejection, RetryWhen},
    event::{EventEmitter, EventKind},
    request::{Repeat, ReplaySafety},
    shared::{random::Random, unwind::finally},
    state::{budget::Withdrawal, time::nanos_of},
};

#[derive(Debug)]
pub(crate) struct RetryInner {
    /// Read once or twice per call, rarely written.
    pub(crate) max_attempts: AtomicU32,
    /// The number that it was built with.
    pub(crate) built_max_attempts: u32,
    pub(crate) backoff: Backoff,
    pub(crate) deadline: Option<Duration>,
    pub(crate) max_retry_after: Duration,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) idempotent: bool,
    pub(crate) retry_on_other_instance: bool,
    pub(crate) when_not_ready: WhenNotReady,
    pub(crate) random: Random,
    pub(crate) events: EventEmitter,
}

/// A request's own hints on sending it again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReplayHints {
    pub(super) idempotent: Option<bool>,
    pub(super) safety: ReplaySafety,
}

impl ReplayHints {
    pub(super) fn of<Req, Q: Repeat<Req>>(repeat: &Q, saved: &Q::Saved) -> Self {
        Self { idempotent: repeat.is_idempotent(saved), safety: repeat.replay_safety(saved) }
    }
}

/// The progress of one call: the attempts made, and the limits of further ones.
#[derive(Debug)]
pub(crate) struct RetryState {
    made: u32,
    progress: Progress,
    /// The earliest known deadline: the retry's own or, once an attempt has failed, one around the
    /// call. In nanoseconds on the handles' timeline, or [`NEVER`].
    deadline: u64,
    /// The verdict on the last result.
    verdict: Verdict,
    /// A budget token was withdrawn for a retry that has not been sent.
    owes_token: bool,
    /// Retries that calls inside of the attempts have made in vain.
    in_vain: u32,
    /// A retry inside of this attempt has paid a success into the budget.
    paid: bool,
}

/// What follows an attempt that did not succeed.
pub(super) enum Next {
    /// Another attempt, after this delay.
    Retry(Duration),
    /// The result is the response: it could be retried, but attempts, time or budget are used up.
    Exhausted,
    /// The result is the response.
    Final,
}

/// An attempt that completed and did not succeed.
pub(super) struct Attempt<'a, T, E, C, H> {
    pub(super) verdict: Verdict,
    pub(super) classify: &'a C,
    pub(super) result: Result<&'a T, &'a E>,
    /// Whether the request is saved for another attempt.
    pub(super) has_copy: bool,
    /// Returns the request's hints.
    pub(super) hints: H,
}

impl RetryInner {
    /// Starts a call. Reads the clock only if the retry has a deadline of its own.
    #[inline]
    pub(super) fn begin(&self) -> RetryState {
        let deadline = self.deadline.map_or(NEVER, |limit| clock::nanos().saturating_add(nanos_of(limit)));
        let (progress, verdict) = (Progress::default(), Verdict::Ignored);
        RetryState { made: 1, progress, deadline, verdict, owes_token: false, in_vain: 0, paid: false }
    }

    /// Enters the scope of an attempt, for one poll. Without a copy of its request, a first attempt
    /// cannot be retried.
    #[inline(always)]
    pub(super) fn enter_attempt(&self, state: &RetryState, has_copy: bool) -> AttemptScope {
        let max_attempts = self.max_attempts();
        let limit = (max_attempts > 1 && (has_copy || state.made > 1)).then(|| max_attempts - 1);
        AttemptScope::enter(limit, state.retries_in_scope(), self.budget.as_ref().map(RetryBudget::address))
    }

    /// Records that an attempt succeeded, which pays into the budget once, however many retries
    /// share it.
    #[inline]
    pub(super) fn succeeded(&self, state: Option<&RetryState>) {
        if let Some(budget) = &self.budget {
            if !state.is_some_and(|state| state.paid) && budget.deposit_reported() {
                self.budget_recovered();
            }
            scope::paid_into(budget.address());
        }
    }

    #[cold]
    fn budget_recovered(&self) {
        self.events.emit(|| EventKind::BudgetRecovered);
    }

    /// Returns what follows an attempt that did not succeed.
    #[inline(never)]
    pub(super) fn next_after<T, E, C, H>(&self, state: &mut RetryState, attempt: Attempt<'_, T, E, C, H>) -> Next
    where
        C: Classify<T, E>,
        E: AsRejection,
        H: FnOnce() -> ReplayHints,
    {
        let Attempt { verdict, classify, result, has_copy, hints } = attempt;
        state.verdict = verdict;
        let rejection = result.err().and_then(AsRejection::as_rejection);
        // No copy is made for the last attempt. A retry with a single attempt cannot be exhausted.
        let may_retry = self.may_retry(state);
        let retryable = if may_retry { has_copy } else { state.made > 1 };
        if !retryable || !self.deserves_retry(verdict, rejection, hints, || classify.was_attempted(result)) {
            return Next::Final;
        }
        let hint = match rejection {
            Some(rejection) if rejection.semantics().retry == RetryWhen::RetryAfter => rejection.retry_after(),
            // An open circuit has a `retry_after`, too, but the next attempt goes to another
            // instance.
            Some(_) => None,
            None => classify.retry_after(result),
        };
        // An outer retry must not multiply the attempts of an inner one. A response that can be
        // marked tells exactly whether an inner retry has stopped; otherwise all attempts count.
        let marked = result.ok().and_then(|response| classify.is_exhausted(response));
        let retries = if marked == Some(false) { state.retries() } else { state.retries_in_scope() };
        let exhausted = marked == Some(true) || scope::is_exhausted(self.max_attempts(), retries);
        match self.schedule(state, hint, exhausted || !may_retry) {
            Some(delay) => Next::Retry(delay),
            None => Next::Exhausted,
        }
    }

    fn deserves_retry(
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
            Some(RetryWhen::OtherInstance) => self.retry_on_other_instance,
            Some(RetryWhen::Never) => false,
        };
        if !deserves {
            return false;
        }
        let ReplayHints { idempotent, safety } = hints();
        match safety {
            // The request itself says that it must not be made twice.
            ReplaySafety::AfterFailure if idempotent == Some(false) => {
                !rejection.map_or_else(attempted, Rejection::was_attempted)
            }
            ReplaySafety::AfterFailure => when != Some(RetryWhen::Idempotent) || idempotent.unwrap_or(self.idempotent),
            ReplaySafety::IfUnprocessed => !rejection.map_or_else(attempted, Rejection::was_attempted),
            ReplaySafety::Never => false,
        }
    }

    /// Returns the delay before the next attempt, if attempts, time and budget allow one.
    fn schedule(&self, state: &mut RetryState, hint: Option<Duration>, exhausted: bool) -> Option<Duration> {
        let attempts = state.made;
        let stop_retrying = || {
            self.events.emit(|| EventKind::RetriesExhausted { attempts });
            None
        };
        if exhausted || hint.is_some_and(|hint| hint > self.max_retry_after) {
            return stop_retrying();
        }
        let backoff = state.progress.next(&self.backoff, &self.random);
        let cap = self.max_retry_after;
        let delay = hint.map_or(backoff, |hint| self.backoff.after_hint(hint, backoff, cap, &self.random));
        state.deadline = state.deadline.min(deadline::current_nanos());
        // An attempt that starts at the deadline would time out immediately.
        if state.deadline != NEVER && clock::nanos().saturating_add(nanos_of(delay)) >= state.deadline {
            return stop_retrying();
        }
        if let Some(budget) = &self.budget {
            let withdrawal = budget.withdraw_reported();
            state.owes_token = withdrawal.is_granted();
            if !state.owes_token {
                let first = withdrawal == Withdrawal::Exhausted;
                self.events.emit(|| EventKind::BudgetExhausted { attempts, first });
                return None;
            }
            if withdrawal == Withdrawal::GrantedAfterRecovery {
                self.budget_recovered();
            }
        }
        let attempt = attempts + 1;
        self.events.emit(|| EventKind::RetryScheduled { attempt, delay });
        Some(delay)
    }

    /// Whether the scheduled attempt would start too late, because the timer was late or the
    /// service was not ready in time.
    pub(crate) fn is_late(&self, state: &RetryState) -> bool {
        state.deadline != NEVER && clock::nanos() >= state.deadline
    }

    /// Whether another attempt may follow the last one.
    #[inline]
    pub(crate) fn may_retry(&self, state: &RetryState) -> bool {
        state.made < self.max_attempts()
    }

    #[inline]
    pub(crate) fn max_attempts(&self) -> u32 {
        self.max_attempts.load(Ordering::Relaxed)
    }

    /// Puts back the token of a retry that was not sent.
    #[inline]
    fn settle(&self, state: &RetryState) {
        if state.owes_token
            && let Some(budget) = &self.budget
        {
            budget.give_back();
        }
    }

    /// Completes a call whose scheduled attempt is not sent: the last result is the response.
    pub(super) fn stop(&self, state: RetryState) {
        self.settle(&state);
        scope::retried_in_vain(state.retries_in_scope());
        let _event = finally(|| self.completed(state.verdict));
        self.events.emit(|| EventKind::RetriesExhausted { attempts: state.made });
    }

    /// Completes a call. Puts back the token of a retry that was not sent.
    #[inline]
    pub(super) fn finish(&self, state: RetryState, verdict: Verdict) {
        self.settle(&state);
        if verdict != Verdict::Success {
            scope::retried_in_vain(state.retries_in_scope());
        }
        self.completed(verdict);
    }

    #[inline]
    fn completed(&self, verdict: Verdict) {
        self.events.emit(|| EventKind::Completed { verdict, elapsed: None });
    }

    /// Cancels a call that was dropped.
    pub(super) fn cancel(&self, state: RetryState) {
        self.settle(&state);
        scope::retried_in_vain(state.retries_in_scope());
        self.events.emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
    }
}

impl RetryState {
    /// The retries that were sent.
    fn retries(&self) -> u32 {
        self.made - 1
    }

    /// The retries that were sent, and those that were made in vain inside of the attempts.
    #[inline]
    fn retries_in_scope(&self) -> u32 {
        self.retries().saturating_add(self.in_vain)
    }

    /// Records what the retries inside of the attempt did in a poll.
    #[inline]
    pub(super) fn polled(&mut self, inner: &InnerRetries) {
        self.in_vain = self.in_vain.saturating_add(inner.in_vain);
        self.paid |= inner.paid;
    }

    /// Returns the number of the next attempt.
    pub(crate) fn next(&self) -> u32 {
        self.made + 1
    }

    /// Records that the next attempt is being sent.
    pub(crate) fn sent(&mut self) {
        self.owes_token = false;
        self.paid = false;
        self.made += 1;
    }

    /// Returns the earliest known deadline, or [`NEVER`]. No attempt may start after it.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline
    }
}
