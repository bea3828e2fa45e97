use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use tower_layer::{Identity, Layer};
use tower_service::Service;

use super::{
    Setting, describe,
    future::ClientFuture,
    layers::{Attempts, WithBreaker, WithBulkhead, WithRateLimit, WithTimeout},
    make_timeout,
    parts::{StackParts, Total},
};
use crate::{
    bulkhead::Bulkhead,
    call::{CallService, Leaf, WithShared},
    circuit_breaker::CircuitBreaker,
    classify::{Classify, ClassifyFn, DefaultClassifier, Verdict},
    error::{AsRejection, ConfigError, FromRejection, Rejection},
    event::{EventEmitter, Observer},
    name::Name,
    rate_limit::RateLimiter,
    request::{CloneWith, Cloned, IdempotentIf, Repeat},
    retry::{self, AttemptSource, HasRetry, Retry, RetryBudget},
    shared::striped::StripedArc,
    timeout::{self, HasTimeout, TimedCall, Timeout},
};

/// A client's stack, to be set up. See the [module docs](super).
pub fn client(name: impl Into<Name>) -> ClientBuilder {
    ClientBuilder {
        name: name.into(),
        observer: None,
        total: Setting::Default,
        attempt: Setting::Default,
        retry: Setting::Default,
        budget: None,
        limiter: None,
        breaker: Setting::Default,
        bulkhead: Setting::Default,
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
    name: Name,
    observer: Option<Arc<dyn Observer>>,
    total: Setting<Duration>,
    attempt: Setting<Duration>,
    retry: Setting<Retry>,
    budget: Option<RetryBudget>,
    limiter: Option<RateLimiter>,
    breaker: Setting<CircuitBreaker>,
    bulkhead: Setting<Bulkhead>,
    classify: C,
    repeat: Q,
    fallback: F,
}

impl<C, Q, F> ClientBuilder<C, Q, F> {
    /// Who is told what happens in the parts that have their defaults, or are set by a duration.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Time for the whole call.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total = Setting::Custom(limit);
        self
    }

    /// Leaves the total timeout out.
    pub fn without_total_timeout(mut self) -> Self {
        self.total = Setting::Disabled;
        self
    }

    /// Time for each attempt. Must be shorter than the total.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt = Setting::Custom(limit);
        self
    }

    /// Leaves the attempt timeout out.
    pub fn without_attempt_timeout(mut self) -> Self {
        self.attempt = Setting::Disabled;
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

    /// A rate limiter.
    pub fn rate_limiter(mut self, limiter: &RateLimiter) -> Self {
        self.limiter = Some(limiter.clone());
        self
    }

    /// Another circuit breaker.
    pub fn circuit_breaker(mut self, breaker: &CircuitBreaker) -> Self {
        self.breaker = Setting::Custom(breaker.clone());
        self
    }

    /// Leaves the circuit breaker out.
    pub fn without_circuit_breaker(mut self) -> Self {
        self.breaker = Setting::Disabled;
        self
    }

    /// Another bulkhead.
    pub fn bulkhead(mut self, bulkhead: &Bulkhead) -> Self {
        self.bulkhead = Setting::Custom(bulkhead.clone());
        self
    }

    /// Leaves the bulkhead out.
    pub fn without_bulkhead(mut self) -> Self {
        self.bulkhead = Setting::Disabled;
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
        ClientBuilder {
            name: self.name,
            observer: self.observer,
            total: self.total,
            attempt: self.attempt,
            retry: self.retry,
            budget: self.budget,
            limiter: self.limiter,
            breaker: self.breaker,
            bulkhead: self.bulkhead,
            classify,
            repeat,
            fallback,
        }
    }

    /// The stack.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for parts that contradict each other: an attempt timeout, a wait for a permit or a token, or a
    /// retry's deadline that is not below the total timeout; calls that are slow only after the attempt timeout; a budget
    /// without a retry, or beside a retry that is given and brings its own.
    pub fn build(self) -> Result<ClientStack<C, Q, F>, ConfigError> {
        let (name, observer) = (self.name, self.observer);
        if self.budget.is_some() && !matches!(self.retry, Setting::Default) {
            let reason = match self.retry {
                Setting::Custom(_) => "a retry that is given brings its own budget",
                _ => "a budget without a retry has nothing to pay for",
            };
            return Err(ConfigError::new("retry_budget", reason));
        }
        let timeout = |name: Name, limit| make_timeout(name, limit, observer.as_ref());
        let attempt = Name::from(format!("{name}.attempt"));
        let mut retry = Retry::builder(name.clone());
        let mut breaker = CircuitBreaker::builder(name.clone());
        let mut bulkhead = Bulkhead::builder(name.clone());
        if let Some(budget) = &self.budget {
            retry = retry.budget(budget);
        }
        if let Some(observer) = &observer {
            retry = retry.observer(observer.clone());
            breaker = breaker.observer(observer.clone());
            bulkhead = bulkhead.observer(observer.clone());
        }
        let (retry, breaker, bulkhead) = (retry.build()?, breaker.build()?, bulkhead.build()?);
        let stack = ClientStack {
            parts: StackParts {
                total: self.total.resolve(|| Duration::from_secs(5)).map(|limit| timeout(name.clone(), limit)),
                limiter: self.limiter,
                breaker: self.breaker.resolve(|| breaker),
                bulkhead: self.bulkhead.resolve(|| bulkhead),
                attempt: self.attempt.resolve(|| Duration::from_secs(2)).map(|limit| timeout(attempt, limit)),
                classify: self.classify,
            },
            retry: self.retry.resolve(|| retry),
            name,
            repeat: self.repeat,
            fallback: self.fallback,
        };
        stack.check()?;
        Ok(stack)
    }
}

impl<C, Q, F> fmt::Debug for ClientBuilder<C, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A client's stack: a layer, and the handles of its parts.
///
/// Clones, and all services made from them, share the handles. `Display` describes it in a line.
#[derive(Clone)]
pub struct ClientStack<C = DefaultClassifier, Q = Cloned, F = Identity> {
    name: Name,
    parts: StackParts<C>,
    retry: Option<Retry>,
    repeat: Q,
    fallback: F,
}

impl<C, Q, F> ClientStack<C, Q, F> {
    /// The stack's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The total timeout.
    pub fn total_timeout(&self) -> Option<&Timeout> {
        self.parts.total.as_ref()
    }

    /// The retry.
    pub fn retry(&self) -> Option<&Retry> {
        self.retry.as_ref()
    }

    /// The rate limiter.
    pub fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.parts.limiter.as_ref()
    }

    /// The circuit breaker.
    pub fn circuit_breaker(&self) -> Option<&CircuitBreaker> {
        self.parts.breaker.as_ref()
    }

    /// The bulkhead.
    pub fn bulkhead(&self) -> Option<&Bulkhead> {
        self.parts.bulkhead.as_ref()
    }

    /// The attempt timeout.
    pub fn attempt_timeout(&self) -> Option<&Timeout> {
        self.parts.attempt.as_ref()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let total = self.parts.total.as_ref().map(Timeout::limit);
        let attempt = self.parts.attempt.as_ref().map(Timeout::limit);
        let below = |field, limit: Option<Duration>, outer: Option<Duration>, outer_name: &str| match (limit, outer) {
            (Some(limit), Some(outer)) if limit >= outer && outer != Duration::MAX => {
                Err(ConfigError::new(field, format!("{limit:?} is not below {outer_name} of {outer:?}")))
            }
            _ => Ok(()),
        };
        let waits = |wait: Duration| (!wait.is_zero()).then_some(wait);
        below("attempt_timeout", attempt, total, "the total timeout")?;
        let retry = self.retry.as_ref().and_then(|retry| retry.snapshot().deadline);
        below("retry", retry, total.map(|total| total.saturating_add(Duration::from_nanos(1))), "the total timeout")?;
        let queue = self.parts.bulkhead.as_ref().and_then(|bulkhead| waits(bulkhead.snapshot().max_wait));
        below("bulkhead", queue, total, "the total timeout")?;
        let pace = self.parts.limiter.as_ref().and_then(|limiter| waits(limiter.snapshot().max_wait));
        below("rate_limiter", pace, total, "the total timeout")?;
        let slow = self.parts.breaker.as_ref().and_then(CircuitBreaker::slow_after);
        below("circuit_breaker", slow, attempt, "the attempt timeout: no call could be slow and not be timed out")
    }
}

impl<C, Q, F> fmt::Display for ClientStack<C, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.parts.total.as_ref().map(|timeout| format!("total timeout {:?}", timeout.limit())));
        parts.extend(self.retry.as_ref().map(describe::retry));
        parts.extend(self.parts.limiter.as_ref().map(describe::limiter));
        parts.extend(self.parts.breaker.as_ref().map(describe::breaker));
        parts.extend(self.parts.bulkhead.as_ref().map(describe::bulkhead));
        parts.extend(self.parts.attempt.as_ref().map(|timeout| format!("attempt timeout {:?}", timeout.limit())));
        parts.push("service".to_owned());
        write!(f, "client stack `{}`: {}", self.name, parts.join(" -> "))
    }
}

impl<C, Q, F> fmt::Debug for ClientStack<C, Q, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<S, C, Q, F> Layer<S> for ClientStack<C, Q, F>
where
    S: Clone,
    C: Clone,
    Q: Clone,
    F: Layer<ClientService<S, C, Q>>,
{
    type Service = F::Service;

    fn layer(&self, service: S) -> F::Service {
        let attempts = WithRateLimit(WithBreaker::new(WithBulkhead(WithTimeout(Leaf::new(service)))));
        let template = Mutex::new(attempts.clone());
        let (retry, repeat) = (self.retry.clone(), self.repeat.clone());
        let call_site = StripedArc::new(CallSite { parts: self.parts.clone(), retry, repeat, template });
        self.fallback.layer(ClientService { attempts, call_site })
    }
}

/// The service of a [`ClientStack`], inside of its fallback.
///
/// The same as the layers one around the other, but a call holds all of their handles by one count, and the total
/// timeout needs no timer while that of an attempt runs.
pub struct ClientService<S, C = DefaultClassifier, Q = Cloned> {
    attempts: Attempts<Leaf<S>>,
    call_site: StripedArc<CallSite<S, C, Q>>,
}

/// What the calls of one service share.
pub(crate) struct CallSite<S, C, Q> {
    parts: StackParts<C>,
    retry: Option<Retry>,
    repeat: Q,
    /// What further attempts are made on. Locked to clone it, by a retry that is about to wait anyway.
    template: Mutex<Attempts<Leaf<S>>>,
}

impl<S, C, Q> HasRetry for CallSite<S, C, Q> {
    type AttemptShared = StackParts<C>;
    type Classifier = C;
    type Repeat = Q;

    #[inline(always)]
    fn retry(&self) -> Option<&retry::RetryInner> {
        self.retry.as_ref().map(|retry| &*retry.0)
    }

    #[inline(always)]
    fn attempts(&self) -> &StackParts<C> {
        &self.parts
    }

    #[inline(always)]
    fn classifier(&self) -> &C {
        &self.parts.classify
    }

    #[inline(always)]
    fn repeat(&self) -> &Q {
        &self.repeat
    }
}

impl<S: Clone, C, Q> AttemptSource<Attempts<Leaf<S>>> for CallSite<S, C, Q> {
    fn service(&self) -> Attempts<Leaf<S>> {
        self.template.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S, C, Q> HasTimeout<Total> for CallSite<S, C, Q> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        HasTimeout::<Total>::events(&self.parts)
    }

    fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        HasTimeout::<Total>::time_out(&self.parts, after, attempted)
    }
}

impl<S: Clone, C, Q> Clone for ClientService<S, C, Q> {
    fn clone(&self) -> Self {
        Self { attempts: self.attempts.clone(), call_site: self.call_site.clone() }
    }
}

impl<S, C, Q> fmt::Debug for ClientService<S, C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientService").finish_non_exhaustive()
    }
}

impl<S, C, Q, Req> Service<Req> for ClientService<S, C, Q>
where
    S: Service<Req> + Clone,
    S::Error: FromRejection,
    C: Classify<S::Response, S::Error>,
    Q: Repeat<Req>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ClientFuture<S, Req, C, Q>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.attempts.poll_ready(&self.call_site.parts, cx)
    }

    // Healthy, with the parts by default: 4 RMWs (2 on this thread's count of the call_site, 2 on the bulkhead's permits) and
    // one clock read, for the breaker's time window; one more read and one timer when the service is not ready at once.
    // No allocation but what copying the request takes.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let call_site = self.call_site.acquire_ref();
        let mut marks = None;
        let call =
            match timeout::StartingTimedCall::new::<_, Total>(&*call_site, call_site.parts.total_limit(), &mut marks) {
                Ok(timing) => {
                    let repeating = retry::StartingRetryCall::new(&*call_site, &request);
                    timing.started(repeating.started(self.attempts.call(&call_site.parts, request)))
                }
                Err(rejection) => TimedCall::rejected(rejection),
            };
        ClientFuture::new(WithShared::new(call_site, call))
    }
}
