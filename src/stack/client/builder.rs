use std::{fmt, time::Duration};

use tower_layer::Identity;

use super::ClientStack;
use crate::{
    call::Part,
    classify::{Classify, DefaultClassifier, Verdict},
    error::ConfigError,
    name::Name,
    request::{CloneWith, Cloned, IdempotentIf},
    retry::{Retry, RetryBudget},
    stack::{
        parts_builder::{Defaults, PartsBuilder, part_setters},
        setting::Setting,
        validate::validate,
    },
};

const DEFAULTS: Defaults = Defaults {
    total: Duration::from_secs(5),
    attempt: Duration::from_secs(2),
    max_concurrent: 64,
    max_wait: Duration::ZERO,
};

/// Returns the builder of a client stack. See the [module docs](crate::stack).
pub fn client(name: impl Into<Name>) -> ClientBuilder {
    ClientBuilder {
        parts: PartsBuilder::new(name.into()),
        retry: Setting::Default,
        budget: None,
        classify: DefaultClassifier,
        repeat: Cloned,
        fallback: Identity::new(),
    }
}

/// Configures a [`ClientStack`].
///
/// # Defaults
///
/// | part | default | reason |
/// |---|---|---|
/// | fallback | none | |
/// | total timeout | 5 s | by then, users have left |
/// | retry | [`Retry::builder`]'s: 3 attempts, a budget of a tenth | |
/// | rate limiter | none | only you know the rate |
/// | circuit breaker | [`CircuitBreaker::new`](crate::circuit_breaker::CircuitBreaker::new)'s: trips if four of five calls within 10 s fail | |
/// | bulkhead | 64 calls, without a queue | the share of this process that one dependency may hold |
/// | attempt timeout | 2 s | two full attempts fit into the default total |
///
/// The fault lab's figures for these:
/// [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
///
/// Defaults follow the limits that you set. The default attempt timeout is at most four fifths of
/// the total timeout, and longer than the limit of a custom breaker's slow calls by a quarter. The
/// default total timeout is at least five quarters of the attempt timeout and the waits inside, and
/// at least the deadline of a custom retry. Only limits that you set can contradict each other.
///
/// The parts have the stack's name; the attempt timeout's is `<name>.attempt`. Custom handles keep
/// their own names and observers.
#[must_use]
pub struct ClientBuilder<C = DefaultClassifier, Q = Cloned, F = Identity> {
    parts: PartsBuilder,
    retry: Setting<Retry>,
    budget: Option<RetryBudget>,
    classify: C,
    repeat: Q,
    fallback: F,
}

impl<C, Q, F> ClientBuilder<C, Q, F> {
    part_setters!();

    /// Removes the circuit breaker.
    pub fn without_circuit_breaker(mut self) -> Self {
        self.parts.breaker = Setting::Disabled;
        self
    }

    /// Sets the time limit of each attempt. Must be shorter than the total.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.parts.attempt = Setting::Custom(limit);
        self
    }

    /// Removes the attempt timeout.
    pub fn without_attempt_timeout(mut self) -> Self {
        self.parts.attempt = Setting::Disabled;
        self
    }

    /// Sets the retry.
    pub fn retry(mut self, retry: &Retry) -> Self {
        self.retry = Setting::Custom(retry.clone());
        self
    }

    /// Removes the retry.
    pub fn without_retry(mut self) -> Self {
        self.retry = Setting::Disabled;
        self
    }

    /// Sets the budget of the default retry. All retries that call the same dependency should share
    /// one.
    pub fn retry_budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Sets the classifier of the breaker and the retry: a [`Classify`] implementation, or a
    /// closure that names the types of its argument. Rejections by the stack's own parts keep their
    /// meaning: a call that timed out is retried only if it is idempotent.
    pub fn classify<D>(self, classify: D) -> ClientBuilder<D, Q, F> {
        self.change(|_, repeat, fallback| (classify, repeat, fallback))
    }

    /// Sets a closure as the classifier of the breaker and the retry. As
    /// [`classify`](Self::classify), but the compiler knows what kind of closure it is.
    pub fn classify_with<G, T, E>(self, classify: G) -> ClientBuilder<G, Q, F>
    where
        G: Fn(Result<&T, &E>) -> Verdict,
        G: Classify<T, E>,
    {
        self.classify(classify)
    }

    /// Sets how the retry copies requests, and when it may send them again.
    pub fn repeat<R>(self, repeat: R) -> ClientBuilder<C, R, F> {
        self.change(|classify, _, fallback| (classify, repeat, fallback))
    }

    /// Copies requests for the retry with a closure, for requests whose clone may fail.
    pub fn clone_with<G, Req>(self, clone: G) -> ClientBuilder<C, CloneWith<G>, F>
    where
        G: Fn(&Req) -> Option<Req>,
    {
        self.change(|classify, _, fallback| (classify, CloneWith::new(clone), fallback))
    }

    /// Decides with a closure whether a request is idempotent: whether it may be retried after a
    /// failure or a timeout, when it may have been processed already. A request that is not is
    /// retried only if it certainly was not processed.
    pub fn idempotent_if<G, Req>(self, idempotent: G) -> ClientBuilder<C, IdempotentIf<Q, G>, F>
    where
        G: Fn(&Req) -> bool,
    {
        self.change(|classify, repeat, fallback| (classify, IdempotentIf::new(repeat, idempotent), fallback))
    }

    /// Sets the fallback, which is outermost: a [`FallbackLayer`](crate::fallback::FallbackLayer),
    /// or any layer.
    pub fn fallback<G>(self, fallback: G) -> ClientBuilder<C, Q, G> {
        self.change(|classify, repeat, _| (classify, repeat, fallback))
    }

    fn change<D, R, G>(self, change: impl FnOnce(C, Q, F) -> (D, R, G)) -> ClientBuilder<D, R, G> {
        let (classify, repeat, fallback) = change(self.classify, self.repeat, self.fallback);
        ClientBuilder { parts: self.parts, retry: self.retry, budget: self.budget, classify, repeat, fallback }
    }

    /// Builds the stack.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a total timeout of zero and for parts that contradict each other: an
    /// attempt timeout, a wait for a permit or a token, or a retry's deadline that is not below the
    /// total timeout; calls that are slow only after the attempt timeout; a budget without a retry,
    /// or together with a custom retry, which has its own.
    pub fn build(self) -> Result<ClientStack<C, Q, F>, ConfigError> {
        let Self { parts, retry, budget, classify, repeat, fallback } = self;
        if budget.is_some() && !matches!(retry, Setting::Default) {
            let reason = match retry {
                Setting::Custom(_) => "a custom retry has a budget of its own",
                _ => "a budget has no effect without a retry",
            };
            return Err(ConfigError::new("retry_budget", reason).of(&parts.name));
        }
        let name = parts.name.clone();
        let default_retry = || {
            let mut builder = Retry::builder(name.clone());
            if let Some(budget) = &budget {
                builder = builder.budget(budget);
            }
            match &parts.observer {
                Some(observer) => builder.observer(observer.clone()).build(),
                None => builder.build(),
            }
        };
        let retry = retry.resolve(default_retry)?;
        let deadline = retry.as_ref().and_then(|retry| retry.snapshot().deadline);
        let parts = parts.build(&DEFAULTS, deadline, classify)?;
        validate(&parts, deadline).map_err(|error| error.of(&name))?;
        Ok(ClientStack { name, parts, retry: Part::new(retry), repeat, fallback })
    }
}

impl<C, Q, F> fmt::Debug for ClientBuilder<C, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("name", &self.parts.name).finish_non_exhaustive()
    }
}
