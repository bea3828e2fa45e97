use std::{
    sync::{Arc, atomic::AtomicU32},
    time::Duration,
};

use super::{Backoff, Jitter, Retry, RetryBudget, WhenNotReady, inner::RetryInner};
use crate::{
    error::ConfigError,
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::random::Random,
    shared::striped::StripedArc,
};

/// Configures a [`Retry`].
///
/// # Defaults
///
/// | field | default | reason |
/// |---|---|---|
/// | `max_attempts` | 3 | as in the AWS SDKs; a third attempt rarely succeeds where two failed, a fourth hardly ever |
/// | `backoff` | 50 ms doubling to 20 s, full jitter | full jitter spreads best; 50 ms outlasts a brief connection failure |
/// | `deadline` | none | a total timeout around the retry is respected anyway |
/// | `budget` | [`RetryBudget::default`], but with a capacity of `max_attempts` less one if that is more: a tenth of the successes, and enough for one call | without one, retries multiply the load of an outage |
/// | `max_retry_after` | 5 s | a longer wait is the caller's decision |
/// | `idempotent` | `false` | a call that timed out may have been processed |
/// | `retry_on_other_instance` | `false` | a rejection by an inner layer means: not now, not here |
/// | `when_not_ready` | [`WhenNotReady::Wait`] | |
///
/// The fault lab's figures for attempts, backoff, jitter and budget:
/// [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
#[must_use]
pub struct RetryBuilder {
    name: Name,
    max_attempts: u32,
    backoff: Backoff,
    deadline: Option<Duration>,
    /// `None` for the default, which depends on the attempts; `Some(None)` for no budget.
    budget: Option<Option<RetryBudget>>,
    max_retry_after: Duration,
    idempotent: bool,
    retry_on_other_instance: bool,
    when_not_ready: WhenNotReady,
    random: Random,
    observer: Option<Arc<dyn Observer>>,
}

impl RetryBuilder {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            max_attempts: 3,
            backoff: Backoff::default(),
            deadline: None,
            budget: None,
            max_retry_after: Duration::from_secs(5),
            idempotent: false,
            retry_on_other_instance: false,
            when_not_ready: WhenNotReady::default(),
            random: Random::from_entropy(),
            observer: None,
        }
    }

    /// Sets attempts, backoff and `max_retry_after` for calls that a user waits for: 3 attempts, 25
    /// ms doubling to 250 ms, hints of up to 500 ms. The delays add at most 75 ms to a call, unless
    /// a hint asks for more: beyond that, an error is the better response.
    pub fn interactive(mut self) -> Self {
        self.max_attempts = 3;
        self.backoff = Backoff::exponential(Duration::from_millis(25), Duration::from_millis(250));
        self.max_retry_after = Duration::from_millis(500);
        self
    }

    /// Sets attempts, backoff and `max_retry_after` for background work: 6 attempts, 500 ms
    /// doubling to 30 s with equal jitter, hints of up to a minute. The delays add up to 8 to 16
    /// seconds, which outlasts the restart of a dependency, and since there is no hurry, none of
    /// them is close to zero.
    pub fn background(mut self) -> Self {
        self.max_attempts = 6;
        self.backoff = Backoff::exponential(Duration::from_millis(500), Duration::from_secs(30)).jitter(Jitter::Equal);
        self.max_retry_after = Duration::from_secs(60);
        self
    }

    /// Sets the maximum number of attempts, including the first; at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the delays between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the time limit of the whole call, counted from `call`: no attempt starts after it, and
    /// no delay starts that would end after it. (One exception: if a response was classified as a
    /// failure and the service is then not ready in time for the next attempt, there is no result
    /// left to return, and the attempt is made late.) A running attempt is not interrupted: for
    /// that, use a [`timeout`](crate::timeout), whose deadline the retry respects in the same way,
    /// without this setting.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// Sets the budget. All retries that call the same dependency should share one.
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(Some(budget.clone()));
        self
    }

    /// Disables the budget. In an outage, calls are multiplied by `max_attempts`.
    pub fn no_budget(mut self) -> Self {
        self.budget = Some(None);
        self
    }

    /// Sets the longest wait that a rejection or a response may ask for. A call that is asked to
    /// wait longer is not retried. A shorter wait replaces the backoff's delay if it is longer than
    /// that; the backoff's [jitter](crate::retry::Jitter) is added to it, up to this limit.
    pub fn max_retry_after(mut self, limit: Duration) -> Self {
        self.max_retry_after = limit;
        self
    }

    /// Sets whether to retry calls that timed out and so may have been processed. To decide per
    /// request, use [`RetryLayer::idempotent_if`](super::RetryLayer::idempotent_if).
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Sets whether to retry calls that were rejected by an open circuit or a full bulkhead inside.
    /// Right if the next attempt may go to another instance (with a balancer inside), wrong
    /// otherwise.
    pub fn retry_on_other_instance(mut self, retry: bool) -> Self {
        self.retry_on_other_instance = retry;
        self
    }

    /// Sets the behaviour if the service is not ready for the next attempt.
    pub fn when_not_ready(mut self, then: WhenNotReady) -> Self {
        self.when_not_ready = then;
        self
    }

    /// Seeds the jitter, which makes it reproducible.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = Random::seeded(seed);
        self
    }

    observer_setter!();

    /// Builds the retry.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max_attempts` or `deadline` is zero, or the backoff's factor is below 1
    /// or not a finite number, its base above its maximum, or its base zero and its maximum not.
    pub fn build(self) -> Result<Retry, ConfigError> {
        self.check().map_err(|error| error.of(&self.name))?;
        let budget = self.budget.unwrap_or_else(|| Some(RetryBudget::for_attempts(self.max_attempts)));
        Ok(Retry(StripedArc::new(RetryInner {
            max_attempts: AtomicU32::new(self.max_attempts),
            built_max_attempts: self.max_attempts,
            backoff: self.backoff,
            deadline: self.deadline,
            max_retry_after: self.max_retry_after,
            budget,
            idempotent: self.idempotent,
            retry_on_other_instance: self.retry_on_other_instance,
            when_not_ready: self.when_not_ready,
            random: self.random,
            events: EventEmitter::new(Pattern::Retry, self.name, self.observer),
        })))
    }

    fn check(&self) -> Result<(), ConfigError> {
        check_attempts(self.max_attempts)?;
        if self.deadline.is_some_and(|limit| limit.is_zero()) {
            return Err(ConfigError::new("deadline", "is zero: no retry could ever start"));
        }
        self.backoff.check()
    }
}

pub(super) fn check_attempts(attempts: u32) -> Result<(), ConfigError> {
    match attempts {
        0 => Err(ConfigError::new("max_attempts", "is zero: not even the first attempt could be made")),
        _ => Ok(()),
    }
}

impl std::fmt::Debug for RetryBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RetryBuilder")
            .field("name", &self.name)
            .field("max_attempts", &self.max_attempts)
            .field("backoff", &self.backoff)
            .field("deadline", &self.deadline)
            .field("budget", &self.budget)
            .finish_non_exhaustive()
    }
}
