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
/// | `max_attempts` | 3 | what the AWS SDKs do; a third try rarely succeeds where two failed, a fourth hardly ever |
/// | `backoff` | 50 ms doubling to 20 s, full jitter | full jitter spreads best; 50 ms is longer than a connection's hiccup |
/// | `deadline` | none | a total timeout outside is seen and respected anyway |
/// | `budget` | [`RetryBudget::default`], but with a capacity of `max_attempts` less one, if that is more: a tenth of the successes, and what one call may need | without one, retries multiply an outage |
/// | `max_retry_after` | 5 s | longer is for the caller to decide |
/// | `idempotent` | `false` | a call that timed out may have been done |
/// | `retry_on_other_instance` | `false` | a refusal by a layer below means: not now, not here |
/// | `when_not_ready` | [`WhenNotReady::Wait`] | |
///
/// The figures behind attempts, backoff, jitter and budget, from the fault lab: [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
#[must_use]
pub struct RetryBuilder {
    name: Name,
    max_attempts: u32,
    backoff: Backoff,
    deadline: Option<Duration>,
    /// What was chosen: a budget or none. Otherwise it depends on the attempts.
    budget: Option<Option<RetryBudget>>,
    max_retry_after: Duration,
    idempotent: bool,
    elsewhere: bool,
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
            elsewhere: false,
            when_not_ready: WhenNotReady::default(),
            random: Random::from_entropy(),
            observer: None,
        }
    }

    /// For calls that somebody waits for: 3 attempts, 25 ms doubling to 250 ms, hints of up to 500 ms. The delays add
    /// at most 75 ms to a call, unless a hint asks for more: later, an error is the better answer. Sets these three.
    pub fn interactive(mut self) -> Self {
        self.max_attempts = 3;
        self.backoff = Backoff::exponential(Duration::from_millis(25), Duration::from_millis(250));
        self.max_retry_after = Duration::from_millis(500);
        self
    }

    /// For work that nobody waits for: 6 attempts, 500 ms doubling to 30 s with equal jitter, hints of up to a minute.
    /// Its delays add up to 8 to 16 seconds, which survives the restart of a dependency, and none of them is next to
    /// nothing, since there is no hurry. Sets these three.
    pub fn background(mut self) -> Self {
        self.max_attempts = 6;
        self.backoff = Backoff::exponential(Duration::from_millis(500), Duration::from_secs(30)).jitter(Jitter::Equal);
        self.max_retry_after = Duration::from_secs(60);
        self
    }

    /// Attempts in all, the first one included; at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// The delays between attempts.
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Time for the whole call, from `call` on: no attempt starts after it, and no delay is started that would end after
    /// it. (With one exception: where a response was judged a failure, and the service is then not ready in time for
    /// the next attempt, there is nothing left to answer with, and the attempt is made late.) The call itself is not cut short: that is a [`timeout`](crate::timeout)'s work, whose deadline is respected in
    /// the same way without this.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// The budget, to be shared with others who call the same dependency.
    pub fn budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(Some(budget.clone()));
        self
    }

    /// No budget. In an outage, calls are multiplied by `max_attempts`.
    pub fn no_budget(mut self) -> Self {
        self.budget = Some(None);
        self
    }

    /// The longest wait that a rejection or a response may ask for; beyond it there is no retry. A shorter one is
    /// waited for, if it is longer than the backoff.
    pub fn max_retry_after(mut self, limit: Duration) -> Self {
        self.max_retry_after = limit;
        self
    }

    /// Whether calls may be repeated that timed out and so may have been done. A request can decide for itself:
    /// [`RetryLayer::idempotent_if`](super::RetryLayer::idempotent_if).
    pub fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = idempotent;
        self
    }

    /// Whether to retry what an open circuit or a full bulkhead below refused. Right where the next attempt may go to
    /// another instance (a balancer below), wrong anywhere else.
    pub fn retry_on_other_instance(mut self, elsewhere: bool) -> Self {
        self.elsewhere = elsewhere;
        self
    }

    /// What to do when the service is not ready for the next attempt.
    pub fn when_not_ready(mut self, then: WhenNotReady) -> Self {
        self.when_not_ready = then;
        self
    }

    /// Makes the jitter repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = Random::seeded(seed);
        self
    }

    observer_setter!();

    /// The retry.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `max_attempts` or `deadline` is zero, or the backoff's factor is below 1 or not a finite
    /// number, its base above its maximum, or its base zero and its maximum not.
    pub fn build(self) -> Result<Retry, ConfigError> {
        check_attempts(self.max_attempts)?;
        if self.deadline.is_some_and(|limit| limit.is_zero()) {
            return Err(ConfigError::new("deadline", "is zero: no retry could ever start"));
        }
        self.backoff.check()?;
        let budget = self.budget.unwrap_or_else(|| Some(RetryBudget::for_attempts(self.max_attempts)));
        Ok(Retry(StripedArc::new(RetryInner {
            max_attempts: AtomicU32::new(self.max_attempts),
            backoff: self.backoff,
            deadline: self.deadline,
            max_retry_after: self.max_retry_after,
            budget,
            idempotent: self.idempotent,
            elsewhere: self.elsewhere,
            when_not_ready: self.when_not_ready,
            random: self.random,
            events: EventEmitter::new(Pattern::Retry, self.name, self.observer),
        })))
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
