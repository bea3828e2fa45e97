use std::{fmt, sync::Arc, time::Duration};

use tower_layer::Layer;

use super::{Choice, Part, PartService, describe, timeout};
use crate::{
    bulkhead::{Bulkhead, BulkheadLayer, BulkheadService},
    circuit_breaker::{CircuitBreaker, CircuitBreakerLayer, CircuitBreakerService},
    classify::{Classify, DefaultClassifier, Verdict},
    error::{ConfigError, Rejection, RespondLayer},
    event::Observer,
    name::Name,
    rate_limit::{One, RateLimitLayer, RateLimitService, RateLimiter},
    readiness::Wait,
    timeout::{Timeout, TimeoutLayer, TimeoutService},
};

/// A server's stack, to be set up. See the [module docs](super).
pub fn server(name: impl Into<Name>) -> ServerBuilder {
    ServerBuilder {
        name: name.into(),
        observer: None,
        total: Choice::Default,
        limiter: None,
        breaker: None,
        bulkhead: Choice::Default,
        classify: DefaultClassifier,
    }
}

/// Configures a [`ServerStack`].
///
/// # Defaults
///
/// | part | default | reason |
/// |---|---|---|
/// | total timeout | 10 s | no request holds its place for ever |
/// | rate limiter | none | only you know the rate |
/// | circuit breaker | none | a server that refuses because it fails is rarely what is wanted |
/// | bulkhead | 256 requests, of which 256 wait for up to 100 ms | a bounded queue takes the edge off a burst; beyond it a quick no is better than a late yes |
///
/// The parts bear the stack's name. Handles that are given keep their own names and observers.
#[must_use]
pub struct ServerBuilder<C = DefaultClassifier> {
    name: Name,
    observer: Option<Arc<dyn Observer>>,
    total: Choice<Duration>,
    limiter: Option<RateLimiter>,
    breaker: Option<CircuitBreaker>,
    bulkhead: Choice<Bulkhead>,
    classify: C,
}

impl<C> ServerBuilder<C> {
    /// Who is told what happens in the parts that have their defaults, or are set by a duration.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Time for a request, its wait for a permit included.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total = Choice::Given(limit);
        self
    }

    /// Leaves the timeout out.
    pub fn without_total_timeout(mut self) -> Self {
        self.total = Choice::Without;
        self
    }

    /// A rate limiter.
    pub fn rate_limiter(mut self, limiter: &RateLimiter) -> Self {
        self.limiter = Some(limiter.clone());
        self
    }

    /// A circuit breaker.
    pub fn circuit_breaker(mut self, breaker: &CircuitBreaker) -> Self {
        self.breaker = Some(breaker.clone());
        self
    }

    /// Another bulkhead.
    pub fn bulkhead(mut self, bulkhead: &Bulkhead) -> Self {
        self.bulkhead = Choice::Given(bulkhead.clone());
        self
    }

    /// Leaves the bulkhead out.
    pub fn without_bulkhead(mut self) -> Self {
        self.bulkhead = Choice::Without;
        self
    }

    /// Judges results, for the breaker, by `classify`.
    pub fn classify<D>(self, classify: D) -> ServerBuilder<D> {
        let Self { name, observer, total, limiter, breaker, bulkhead, .. } = self;
        ServerBuilder { name, observer, total, limiter, breaker, bulkhead, classify }
    }

    /// Judges results, for the breaker, by a closure.
    pub fn classify_with<G, T, E>(self, classify: G) -> ServerBuilder<G>
    where
        G: Fn(Result<&T, &E>) -> Verdict,
        G: Classify<T, E>,
    {
        self.classify(classify)
    }

    /// The stack.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when a wait for a permit or a token is not below the timeout.
    pub fn build(self) -> Result<ServerStack<C>, ConfigError> {
        let Self { name, observer, .. } = self;
        let mut bulkhead = Bulkhead::builder(name.clone()).max_concurrent(256).max_wait(Duration::from_millis(100));
        if let Some(observer) = &observer {
            bulkhead = bulkhead.observer(observer.clone());
        }
        let bulkhead = bulkhead.build()?;
        let stack = ServerStack {
            total: (self.total.resolve(|| Duration::from_secs(10)))
                .map(|limit| timeout(name.clone(), limit, observer.as_ref())),
            limiter: self.limiter,
            breaker: self.breaker,
            bulkhead: self.bulkhead.resolve(|| bulkhead),
            name,
            classify: self.classify,
        };
        let waits = [
            ("bulkhead", stack.bulkhead.as_ref().map(|bulkhead| bulkhead.snapshot().max_wait)),
            ("rate_limiter", stack.limiter.as_ref().map(|limiter| limiter.snapshot().max_wait)),
        ];
        for (field, wait) in waits {
            if let (Some(wait), Some(total)) = (wait.filter(|wait| !wait.is_zero()), &stack.total)
                && wait >= total.limit()
                && total.limit() != Duration::MAX
            {
                let reason = format!("a wait of {wait:?} is not below the timeout of {:?}", total.limit());
                return Err(ConfigError::new(field, reason));
            }
        }
        Ok(stack)
    }
}

impl<C> fmt::Debug for ServerBuilder<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A server's stack: a layer, and the handles of its parts.
///
/// Clones, and all services made from them, share the handles. `Display` describes it in a line.
#[derive(Clone)]
pub struct ServerStack<C = DefaultClassifier> {
    name: Name,
    total: Option<Timeout>,
    limiter: Option<RateLimiter>,
    breaker: Option<CircuitBreaker>,
    bulkhead: Option<Bulkhead>,
    classify: C,
}

impl<C> ServerStack<C> {
    /// The stack's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The timeout.
    pub fn total_timeout(&self) -> Option<&Timeout> {
        self.total.as_ref()
    }

    /// The rate limiter.
    pub fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.limiter.as_ref()
    }

    /// The circuit breaker.
    pub fn circuit_breaker(&self) -> Option<&CircuitBreaker> {
        self.breaker.as_ref()
    }

    /// The bulkhead.
    pub fn bulkhead(&self) -> Option<&Bulkhead> {
        self.bulkhead.as_ref()
    }

    /// Makes responses of rejections, for a server that must not fail.
    pub fn respond<T, F>(self, respond: F) -> RespondLayer<Self, F>
    where
        F: Fn(Rejection) -> T,
    {
        RespondLayer::new(self, respond)
    }
}

impl<C> fmt::Display for ServerStack<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.total.as_ref().map(|timeout| format!("timeout {:?}", timeout.limit())));
        parts.extend(self.limiter.as_ref().map(describe::limiter));
        parts.extend(self.breaker.as_ref().map(describe::breaker));
        parts.extend(self.bulkhead.as_ref().map(describe::bulkhead));
        parts.push("service".to_owned());
        write!(f, "server stack `{}`: {}", self.name, parts.join(" -> "))
    }
}

impl<C> fmt::Debug for ServerStack<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

type Bounded<S> = PartService<BulkheadService<S, Wait>, S>;
type Broken<S, C> = PartService<CircuitBreakerService<Bounded<S>, C>, Bounded<S>>;
type Limited<S, C> = PartService<RateLimitService<Broken<S, C>, One, Wait>, Broken<S, C>>;

/// The service of a [`ServerStack`].
pub type ServerService<S, C = DefaultClassifier> = PartService<TimeoutService<Limited<S, C>>, Limited<S, C>>;

impl<S, C> Layer<S> for ServerStack<C>
where
    C: Clone,
{
    type Service = ServerService<S, C>;

    fn layer(&self, service: S) -> Self::Service {
        let breaker = |breaker| CircuitBreakerLayer::new(breaker).classify(self.classify.clone());
        let service = Part(self.bulkhead.as_ref().map(|bulkhead| BulkheadLayer::new(bulkhead).wait())).layer(service);
        let service = Part(self.breaker.as_ref().map(breaker)).layer(service);
        let service = Part(self.limiter.as_ref().map(|limiter| RateLimitLayer::new(limiter).wait())).layer(service);
        Part(self.total.as_ref().map(TimeoutLayer::new)).layer(service)
    }
}
