use std::{fmt, sync::Arc};

use crate::{
    clock::TimeSource,
    error::ConfigError,
    state::budget::{Budget, TOKEN, Withdrawal},
};

/// A handle to a retry budget, which bounds the load that retries add.
///
/// The budget is a token bucket: each retry withdraws a token, each success deposits a share of
/// one. While the service is healthy the bucket is full and every failure may be retried; when most
/// calls fail, retries are limited to that share of the successes. In an outage, the dependency
/// gets little more than its usual load, not a multiple of it.
///
/// Cheap to clone. All clones share one bucket, and all [`Retry`](super::Retry)s that call the same
/// dependency should.
///
/// The algorithm is that of gRPC's retry throttling and of the AWS SDKs. Finagle's and Tower's
/// budgets let deposits expire after ten seconds, which takes a clock read on every success; here
/// the capacity bounds the retries that old successes pay for.
#[derive(Clone)]
pub struct RetryBudget(Arc<BudgetInner>);

struct BudgetInner {
    budget: Budget,
    time: TimeSource,
}

impl Default for RetryBudget {
    /// Creates a budget with the defaults of [`RetryBudgetBuilder`].
    fn default() -> Self {
        Self::builder().make()
    }
}

impl RetryBudget {
    /// Returns a builder with the defaults of [`RetryBudgetBuilder`].
    pub fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder { ratio: 0.1, capacity: 2, min_per_second: 0, time: TimeSource::default() }
    }

    /// Creates the default budget, with at least enough tokens for the retries of one call.
    pub(super) fn for_attempts(attempts: u32) -> Self {
        let mut builder = Self::builder();
        builder.capacity = builder.capacity.max(attempts - 1).min(MAX_TOKENS);
        builder.make()
    }

    /// Identifies the bucket while it exists.
    #[inline]
    pub(super) fn address(&self) -> usize {
        Arc::as_ptr(&self.0).addr()
    }

    /// Deposits the share of a token that a success pays. One load if the bucket is full.
    #[inline]
    pub fn deposit(&self) {
        self.0.budget.deposit();
    }

    /// Withdraws a token for a retry. Returns `false` if there is none.
    pub fn try_withdraw(&self) -> bool {
        self.0.budget.withdraw(|| self.0.time.now())
    }

    /// Puts back a token whose retry was not sent.
    pub fn give_back(&self) {
        self.0.budget.refund();
    }

    /// As [`deposit`](Self::deposit). Returns whether the budget has recovered.
    #[inline]
    pub(super) fn deposit_reported(&self) -> bool {
        self.0.budget.deposit_reported()
    }

    /// As [`try_withdraw`](Self::try_withdraw). Returns whether the budget has just been exhausted,
    /// or has recovered.
    pub(super) fn withdraw_reported(&self) -> Withdrawal {
        self.0.budget.withdraw_reported(|| self.0.time.now())
    }

    /// Whether the two share one bucket.
    pub(crate) fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether all tokens are in the bucket.
    pub(crate) fn is_full(&self) -> bool {
        let budget = &self.0.budget;
        budget.balance(|| self.0.time.now()) == budget.capacity()
    }

    /// Returns the current state.
    pub fn snapshot(&self) -> RetryBudgetSnapshot {
        let tokens = |thousandths: u32| f64::from(thousandths) / f64::from(TOKEN);
        let budget = &self.0.budget;
        RetryBudgetSnapshot {
            balance: tokens(budget.balance(|| self.0.time.now())),
            capacity: tokens(budget.capacity()),
            ratio: tokens(budget.deposit_per_success()),
            min_per_second: tokens(budget.refill_per_second()),
        }
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RetryBudget").field(&self.snapshot()).finish()
    }
}

/// The state of a [`RetryBudget`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryBudgetSnapshot {
    /// Tokens in the bucket.
    pub balance: f64,
    /// The maximum number of tokens in the bucket.
    pub capacity: f64,
    /// Tokens deposited per success.
    pub ratio: f64,
    /// Tokens that time adds per second.
    pub min_per_second: f64,
}

const MAX_TOKENS: u32 = 1_000_000;

/// Configures a [`RetryBudget`].
///
/// # Defaults
///
/// | field | default | reason |
/// |---|---|---|
/// | `ratio` | 0.1 | a lasting outage adds 10% of load; Finagle and Tower default to 20%, gRPC's example has 10% |
/// | `capacity` | 2 | the burst of retries that each of a thousand clients may add to an outage; the bucket starts full |
/// | `min_per_second` | 0 | ten successes pay for a retry, however long they take; a refill by time would go to each of a thousand clients |
///
/// The fault lab's figures for these:
/// [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md). A client
/// with a lot of traffic may have a larger capacity: a tenth of the calls that a brief disruption
/// would fail.
#[must_use]
#[derive(Clone, Debug)]
pub struct RetryBudgetBuilder {
    ratio: f64,
    capacity: u32,
    min_per_second: u32,
    time: TimeSource,
}

impl RetryBudgetBuilder {
    /// Sets the number of retries per success: 0, or from 0.001 to 1000. Counted exactly, in
    /// thousandths; a finer ratio is rounded.
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// Sets the maximum number of tokens in the bucket, from 1 to 1,000,000.
    pub fn capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// Sets the number of tokens that time adds per second, up to 1,000,000; 0 for none. The clock
    /// is read when a token is withdrawn, never on a success.
    ///
    /// Time is counted in ticks of about `capacity * 17 ns` (32 ns for a capacity of 2, 17 ms for a
    /// million). A token never comes early. It comes up to two ticks late, and one more for each
    /// withdrawal since the bucket was last full.
    pub fn min_per_second(mut self, tokens: u32) -> Self {
        self.min_per_second = tokens;
        self
    }

    clock_setter!();

    /// Builds the budget.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a field is out of its range.
    pub fn build(self) -> Result<RetryBudget, ConfigError> {
        if self.ratio != 0.0 && !(0.001..=1000.0).contains(&self.ratio) {
            return Err(ConfigError::new("ratio", "must be 0 or a number from 0.001 to 1000"));
        }
        if !(1..=MAX_TOKENS).contains(&self.capacity) {
            return Err(ConfigError::new("capacity", "must be from 1 to 1,000,000 tokens"));
        }
        if self.min_per_second > MAX_TOKENS {
            return Err(ConfigError::new("min_per_second", "must be at most 1,000,000 tokens"));
        }
        Ok(self.make())
    }

    fn make(self) -> RetryBudget {
        let deposit = (self.ratio * f64::from(TOKEN)).round() as u32;
        let budget = Budget::new(self.capacity * TOKEN, deposit, self.min_per_second * TOKEN, self.time.now());
        RetryBudget(Arc::new(BudgetInner { budget, time: self.time }))
    }
}
