use std::{fmt, future::Future, sync::atomic::Ordering, time::Duration};

use super::{Backoff, RetryBudget, RetryBuilder, RetryLayer, builder::check_attempts, inner::RetryInner, run};
use crate::{
    classify::{Classify, DefaultClassifier},
    error::{AsRejection, ConfigError},
    name::Name,
    shared::striped::StripedArc,
};

/// A handle to a retry policy. See the [module docs](super).
///
/// Cheap to clone. All clones share the number of attempts, the budget and the observer.
#[derive(Clone)]
pub struct Retry(pub(crate) StripedArc<RetryInner>);

impl Retry {
    /// Returns a builder with the defaults of [`RetryBuilder`].
    pub fn builder(name: impl Into<Name>) -> RetryBuilder {
        RetryBuilder::new(name.into())
    }

    /// Creates a retry with up to `max_attempts` attempts, including the first, and the other
    /// defaults.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `max_attempts` is zero.
    pub fn attempts(name: impl Into<Name>, max_attempts: u32) -> Result<Self, ConfigError> {
        Self::builder(name).max_attempts(max_attempts).build()
    }

    /// Returns the name of this instance.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// Returns the budget, if there is one.
    pub fn budget(&self) -> Option<&RetryBudget> {
        self.0.budget.as_ref()
    }

    /// Returns a layer that retries the failed calls of a service.
    pub fn layer(&self) -> RetryLayer {
        RetryLayer::new(self)
    }

    /// Runs the futures that `attempt` makes, until one succeeds or should not be retried.
    /// `attempt` is called with the number of the attempt, starting at 1.
    ///
    /// ```
    /// use tower_rampart::retry::Retry;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let retry = Retry::attempts("config", 3)?;
    /// let text = retry.run(|_attempt| async { std::fs::read_to_string("Cargo.toml") }).await?;
    /// # assert!(!text.is_empty());
    /// # Ok(()) }
    /// ```
    ///
    /// Cancel-safe: dropping the future cancels the running attempt, or the wait for the next one.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    ///
    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime with time enabled.
    pub async fn run<F, Fut, T, E>(&self, attempt: F) -> Result<T, E>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: AsRejection,
    {
        self.run_with(DefaultClassifier, attempt).await
    }

    /// As [`run`](Self::run), with a classifier, which may also classify an `Ok` as a failure.
    ///
    /// # Errors
    ///
    /// The error of the last attempt.
    pub async fn run_with<C, F, Fut, T, E>(&self, classify: C, attempt: F) -> Result<T, E>
    where
        C: Classify<T, E>,
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: AsRejection,
    {
        run::run(&self.0, classify, attempt).await
    }

    /// Changes the maximum number of attempts while calls are in flight: 1 disables retries. A call
    /// that waits for its next attempt still makes it. An attempt that started as the last one has
    /// no copy of its request, and is not retried even if the number is raised. The budget does not
    /// change: the default budget keeps the capacity for the number of attempts that the retry was
    /// built with.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `attempts` is zero; the number does not change then.
    pub fn set_max_attempts(&self, attempts: u32) -> Result<(), ConfigError> {
        check_attempts(attempts).map_err(|error| error.of(self.name()))?;
        self.0.max_attempts.store(attempts, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the current settings and the state of the budget.
    pub fn snapshot(&self) -> RetrySnapshot {
        RetrySnapshot {
            max_attempts: self.0.max_attempts(),
            backoff: self.0.backoff,
            deadline: self.0.deadline,
            max_retry_after: self.0.max_retry_after,
            budget: self.0.budget.as_ref().map(RetryBudget::snapshot),
        }
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("name", self.name()).field("snapshot", &self.snapshot()).finish()
    }
}

/// The settings of a [`Retry`] and the state of its budget, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetrySnapshot {
    /// The maximum number of attempts, including the first.
    pub max_attempts: u32,
    /// The delays between attempts.
    pub backoff: Backoff,
    /// The time limit of the whole call.
    pub deadline: Option<Duration>,
    /// The longest wait that a hint may ask for.
    pub max_retry_after: Duration,
    /// The budget, if there is one.
    pub budget: Option<super::RetryBudgetSnapshot>,
}
