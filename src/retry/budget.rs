use std::{fmt, sync::Arc};

use crate::{
    clock::TimeSource,
    error::ConfigError,
    state::budget::{Budget, TOKEN},
};

/// Bounds the load that retries add.
///
/// A bucket of tokens: each retry takes one, each success puts a share of one back. While the service is well the
/// bucket is full and every failure may be retried; when most calls fail, retries are limited to that share of the
/// successes. So an outage is met with little more than the ordinary load, not with a multiple of it.
///
/// A handle: clones share one bucket. Several [`Retry`](super::Retry)s that call the same dependency should share one.
///
/// The bucket is that of gRPC's retry throttling and of the AWS SDKs. Finagle's and Tower's budgets let deposits expire
/// after ten seconds, which takes a clock read on every success; here the capacity bounds what old successes can buy.
#[derive(Clone)]
pub struct RetryBudget(Arc<BudgetInner>);

struct BudgetInner {
    budget: Budget,
    time: TimeSource,
}

impl Default for RetryBudget {
    /// The defaults of [`RetryBudgetBuilder`].
    fn default() -> Self {
        Self::builder().make()
    }
}

impl RetryBudget {
    /// A budget with the defaults of [`RetryBudgetBuilder`], to be changed.
    pub fn builder() -> RetryBudgetBuilder {
        RetryBudgetBuilder { ratio: 0.1, capacity: 2, min_per_second: 0, time: TimeSource::default() }
    }

    /// The default, which holds at least what one call may need.
    pub(super) fn for_attempts(attempts: u32) -> Self {
        let mut builder = Self::builder();
        builder.capacity = builder.capacity.max(attempts - 1).min(MAX_TOKENS);
        builder.make()
    }

    /// Pays in for a success. One load when the bucket is full.
    #[inline]
    pub fn deposit(&self) {
        self.0.budget.deposit();
    }

    /// Takes a token for a retry; `false` when there is none.
    pub fn try_withdraw(&self) -> bool {
        self.0.budget.withdraw(|| self.0.time.now())
    }

    /// Returns a token whose retry was not sent.
    pub fn give_back(&self) {
        self.0.budget.refund();
    }

    /// How it stands.
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

/// How a [`RetryBudget`] stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetryBudgetSnapshot {
    /// UnusedTokens in the bucket.
    pub balance: f64,
    /// UnusedTokens it can hold.
    pub capacity: f64,
    /// UnusedTokens a success pays.
    pub ratio: f64,
    /// UnusedTokens that time adds in a second.
    pub min_per_second: f64,
}

const MAX_TOKENS: u32 = 1_000_000;

/// Configures a [`RetryBudget`].
///
/// # Defaults
///
/// | field | default | reason |
/// |---|---|---|
/// | `ratio` | 0.1 | a lasting outage adds 10% of load; Finagle and Tower say 20%, gRPC's example 10% |
/// | `capacity` | 2 | what each of a thousand clients may add to an outage at once; the bucket begins full |
/// | `min_per_second` | 0 | ten successes pay for a retry, however long they take; what time pays, it pays to each of a thousand clients |
///
/// The figures behind these, from the fault lab: [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md). A client with
/// a lot of traffic may have a larger capacity: a tenth of the calls that a hiccup would fail.
#[must_use]
#[derive(Clone, Debug)]
pub struct RetryBudgetBuilder {
    ratio: f64,
    capacity: u32,
    min_per_second: u32,
    time: TimeSource,
}

impl RetryBudgetBuilder {
    /// Retries per success: 0, or from 0.001 to 1000. Counted in thousandths, exactly; a finer ratio is rounded to them.
    pub fn ratio(mut self, ratio: f64) -> Self {
        self.ratio = ratio;
        self
    }

    /// UnusedTokens the bucket holds, from 1 to 1,000,000.
    pub fn capacity(mut self, tokens: u32) -> Self {
        self.capacity = tokens;
        self
    }

    /// UnusedTokens that time adds per second, up to 1,000,000; 0 for none. Reads the clock when a token is taken, never on a
    /// success.
    pub fn min_per_second(mut self, tokens: u32) -> Self {
        self.min_per_second = tokens;
        self
    }

    clock_setter!();

    /// The budget.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a field is out of its range.
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
