use std::{fmt, time::Duration};

use tower_layer::Identity;

use super::ClientStack;
use crate::{
    call::Part,
    classify::{ClassifyFn, DefaultClassifier, Verdict},
    error::{AsRejection, ConfigError},
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
/// | total timeout | 5 s | longer than that, people have left |
/// | retry | [`Retry::builder`]'s: 3 attempts, a budget of a tenth | |
/// | rate limiter | none | only you know the rate |
/// | circuit breaker | [`CircuitBreaker::new`]'s: four of five calls of 10 s | |
/// | bulkhead | 64 calls, nobody waits | what one dependency may hold of this process |
/// | attempt timeout | 2 s | two whole attempts within the total |
///
/// The figures behind these, from the fault lab: [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
///
/// The parts bear the stack's name; the attempt timeout's is `<name>.attempt`. Handles that are given keep their own names
/// and observers.
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

    /// Leaves the circuit breaker out.
    pub fn without_circuit_breaker(mut self) -> Self {
        self.parts.breaker = Setting::Disabled;
        self
    }

    /// Time for each attempt. Must be shorter than the total.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.parts.attempt = Setting::Custom(limit);
        self
    }

    /// Leaves the attempt timeout out.
    pub fn without_attempt_timeout(mut self) -> Self {
        self.parts.attempt = Setting::Disabled;
        self
    }

    /// Another retry.
    pub fn retry(mut self, retry: &Retry) -> Self {
        self.retry = Setting::Custom(retry.clone());
        self
    }

    /// Leaves the retry out.
    pub fn without_retry(mut self) -> Self {
        self.retry = Setting::Disabled;
        self
    }

    /// The budget of the default retry, to be shared with others who call the same dependency.
    pub fn retry_budget(mut self, budget: &RetryBudget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Judges results, for breaker and retry, by `classify`.
    pub fn classify<D>(self, classify: D) -> ClientBuilder<D, Q, F> {
        self.change(|_, repeat, fallback| (classify, repeat, fallback))
    }

    /// Judges results, for breaker and retry, by a closure. The retry still treats rejections as what they are: a call
    /// that timed out is repeated only if it is idempotent.
    pub fn classify_with<G, T, E>(self, verdict: G) -> ClientBuilder<ClassifyFn<G>, Q, F>
    where
        G: Fn(Result<&T, &E>) -> Verdict,
        E: AsRejection,
    {
        self.classify(ClassifyFn::new(verdict))
    }

    /// Repeats requests, for the retry, by `repeat`.
    pub fn repeat<R>(self, repeat: R) -> ClientBuilder<C, R, F> {
        self.change(|classify, _, fallback| (classify, repeat, fallback))
    }

    /// Copies requests for the retry by a closure, for those whose clone may fail.
    pub fn clone_with<G, Req>(self, clone: G) -> ClientBuilder<C, CloneWith<G>, F>
    where
        G: Fn(&Req) -> Option<Req>,
    {
        self.change(|classify, _, fallback| (classify, CloneWith::new(clone), fallback))
    }

    /// Asks requests whether the retry may repeat them after a timeout.
    pub fn idempotent_if<G, Req>(self, idempotent: G) -> ClientBuilder<C, IdempotentIf<Q, G>, F>
    where
        G: Fn(&Req) -> bool,
    {
        self.change(|classify, repeat, fallback| (classify, IdempotentIf::new(repeat, idempotent), fallback))
    }

    /// A fallback around everything: a [`FallbackLayer`](crate::fallback::FallbackLayer), or any layer.
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
    /// [`ConfigError`] for parts that contradict each other: an attempt timeout, a wait for a permit or a token, or a
    /// retry's deadline that is not below the total timeout; calls that are slow only after the attempt timeout; a budget
    /// without a retry, or together with a custom retry, which has its own.
    pub fn build(self) -> Result<ClientStack<C, Q, F>, ConfigError> {
        let Self { parts, retry, budget, classify, repeat, fallback } = self;
        if budget.is_some() && !matches!(retry, Setting::Default) {
            let reason = match retry {
                Setting::Custom(_) => "a custom retry has a budget of its own",
                _ => "a budget has no effect without a retry",
            };
            return Err(ConfigError::new("retry_budget", reason));
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
        let parts = parts.build(&DEFAULTS, classify)?;
        validate(&parts, retry.as_ref())?;
        Ok(ClientStack { name, parts, retry: Part::new(retry), repeat, fallback })
    }
}

impl<C, Q, F> fmt::Debug for ClientBuilder<C, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("name", &self.parts.name).finish_non_exhaustive()
    }
}
