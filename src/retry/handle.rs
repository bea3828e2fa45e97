use std::{fmt, future::Future, sync::atomic::Ordering, time::Duration};

use super::{
    Backoff, RetryBudget, RetryBuilder, RetryLayer,
    builder::check_attempts,
    inner::{Attempt, ReplayHints, RetryInner},
};
use crate::{
    call::{CancelOnDrop, emit_admitted},
    classify::{Classify, DefaultClassifier, Verdict},
    deadline::DetectExhausted,
    error::{AsRejection, ConfigError},
    name::Name,
    shared::striped::StripedArc,
};

/// Repeats what failed. See the [module docs](super).
///
/// A handle: cheap to clone, and all clones share the number of attempts, the budget and the observer.
#[derive(Clone)]
pub struct Retry(pub(crate) StripedArc<RetryInner>);

impl Retry {
    /// A retry with the defaults of [`RetryBuilder`], to be changed.
    pub fn builder(name: impl Into<Name>) -> RetryBuilder {
        RetryBuilder::new(name.into())
    }

    /// All defaults but the number of attempts.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it is zero.
    pub fn attempts(name: impl Into<Name>, max_attempts: u32) -> Result<Self, ConfigError> {
        Self::builder(name).max_attempts(max_attempts).build()
    }

    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// The budget, if there is one.
    pub fn budget(&self) -> Option<&RetryBudget> {
        self.0.budget.as_ref()
    }

    /// The layer that repeats a service's failed calls.
    pub fn layer(&self) -> RetryLayer {
        RetryLayer::new(self)
    }

    /// Runs what `attempt` makes, until it succeeds or should not be repeated. `attempt` is given the attempt's number,
    /// beginning with 1.
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
    /// Cancel-safe: dropping it cancels the attempt, or sends no further one.
    ///
    /// # Errors
    ///
    /// The last attempt's own.
    ///
    /// # Panics
    ///
    /// When it has to wait outside of a tokio runtime with time enabled.
    pub async fn run<F, Fut, T, E>(&self, attempt: F) -> Result<T, E>
    where
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: AsRejection,
    {
        self.run_with(DefaultClassifier, attempt).await
    }

    /// As [`run`](Self::run), with a classifier of your own, which may also find an `Ok` to be a failure. A closure can be
    /// one, but does not know rejections by itself: wrap it in [`ClassifyFn`](crate::ClassifyFn) if there can be any.
    ///
    /// # Errors
    ///
    /// The last attempt's own.
    pub async fn run_with<C, F, Fut, T, E>(&self, classify: C, mut attempt: F) -> Result<T, E>
    where
        C: Classify<T, E>,
        F: FnMut(u32) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        let inner = &*self.0;
        let mut guard = CancelOnDrop::new(inner, emit_admitted(&inner.events, inner, inner.begin()));
        let mut number = 1;
        loop {
            let (result, exhausted) = DetectExhausted::new(attempt(number)).await;
            let verdict = classify.classify(result.as_ref());
            let delay = if verdict == Verdict::Success {
                inner.succeeded();
                None
            } else {
                let (result, hints) = (result.as_ref(), ReplayHints::default);
                let attempt = Attempt { verdict, classify: &classify, result, has_copy: true, hints, exhausted };
                inner.delay_after(guard.in_flight_mut(), attempt)
            };
            let Some(delay) = delay else {
                guard.consume(|inner, state| inner.finish(state, verdict));
                return result;
            };
            // A failed response may hold a connection, and is dropped before the delay.
            let error = result.err();
            tokio::time::sleep(delay).await;
            if let Some(error) = error
                && inner.is_late(guard.in_flight_mut())
            {
                guard.consume(|inner, state| inner.stop(state));
                return Err(error);
            }
            number = guard.in_flight_mut().next();
            guard.in_flight_mut().sent();
        }
    }

    /// Changes the number of attempts in all while calls are in flight: 1 switches retries off. A call that waits for
    /// its next attempt still makes it; one whose request was not copied, since it began as its last attempt, does not
    /// get more. The budget stays what it is: one that the retry made for itself holds what a call with the attempts it
    /// was built with may need.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when it is zero; the number then stays as it is.
    pub fn set_max_attempts(&self, attempts: u32) -> Result<(), ConfigError> {
        check_attempts(attempts)?;
        self.0.max_attempts.store(attempts, Ordering::Relaxed);
        Ok(())
    }

    /// How it is set, and how its budget stands.
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

/// How a [`Retry`] is set, and how its budget stands.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct RetrySnapshot {
    /// Attempts in all.
    pub max_attempts: u32,
    /// The delays between them.
    pub backoff: Backoff,
    /// Time for the whole call.
    pub deadline: Option<Duration>,
    /// The longest wait that a hint may ask for.
    pub max_retry_after: Duration,
    /// The budget, if there is one.
    pub budget: Option<super::RetryBudgetSnapshot>,
}
