use std::{
    fmt,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tower_layer::Layer;
use tower_service::Service;

use super::{
    Setting, describe,
    future::ServerFuture,
    layers::{Served, WithBreaker, WithBulkhead, WithRateLimit},
    make_timeout,
    parts::StackParts,
};
use crate::{
    bulkhead::Bulkhead,
    call::{CallService, Leaf, WithShared},
    circuit_breaker::CircuitBreaker,
    classify::{Classify, DefaultClassifier, Verdict},
    error::{ConfigError, FromRejection, Rejection, RespondLayer},
    event::Observer,
    name::Name,
    rate_limit::RateLimiter,
    shared::striped::StripedArc,
    timeout::{self, Standalone, TimedCall, Timeout},
};

/// A server's stack, to be set up. See the [module docs](super).
pub fn server(name: impl Into<Name>) -> ServerBuilder {
    ServerBuilder {
        name: name.into(),
        observer: None,
        total: Setting::Default,
        limiter: None,
        breaker: None,
        bulkhead: Setting::Default,
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
/// The figures behind these, from the fault lab: [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
///
/// The parts bear the stack's name. Handles that are given keep their own names and observers.
#[must_use]
pub struct ServerBuilder<C = DefaultClassifier> {
    name: Name,
    observer: Option<Arc<dyn Observer>>,
    total: Setting<Duration>,
    limiter: Option<RateLimiter>,
    breaker: Option<CircuitBreaker>,
    bulkhead: Setting<Bulkhead>,
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
        self.total = Setting::Custom(limit);
        self
    }

    /// Leaves the timeout out.
    pub fn without_total_timeout(mut self) -> Self {
        self.total = Setting::Disabled;
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
        self.bulkhead = Setting::Custom(bulkhead.clone());
        self
    }

    /// Leaves the bulkhead out.
    pub fn without_bulkhead(mut self) -> Self {
        self.bulkhead = Setting::Disabled;
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
            parts: StackParts {
                total: (self.total.resolve(|| Duration::from_secs(10)))
                    .map(|limit| make_timeout(name.clone(), limit, observer.as_ref())),
                limiter: self.limiter,
                breaker: self.breaker,
                bulkhead: self.bulkhead.resolve(|| bulkhead),
                attempt: None,
                classify: self.classify,
            },
            name,
        };
        let waits = [
            ("bulkhead", stack.bulkhead().map(|bulkhead| bulkhead.snapshot().max_wait)),
            ("rate_limiter", stack.rate_limiter().map(|limiter| limiter.snapshot().max_wait)),
        ];
        for (field, wait) in waits {
            if let (Some(wait), Some(total)) = (wait.filter(|wait| !wait.is_zero()), stack.total_timeout())
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
    parts: StackParts<C>,
}

impl<C> ServerStack<C> {
    /// The stack's name.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// The timeout.
    pub fn total_timeout(&self) -> Option<&Timeout> {
        self.parts.total.as_ref()
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
        parts.extend(self.parts.total.as_ref().map(|timeout| format!("timeout {:?}", timeout.limit())));
        parts.extend(self.parts.limiter.as_ref().map(describe::limiter));
        parts.extend(self.parts.breaker.as_ref().map(describe::breaker));
        parts.extend(self.parts.bulkhead.as_ref().map(describe::bulkhead));
        parts.push("service".to_owned());
        write!(f, "server stack `{}`: {}", self.name, parts.join(" -> "))
    }
}

impl<C> fmt::Debug for ServerStack<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<S, C> Layer<S> for ServerStack<C>
where
    C: Clone,
{
    type Service = ServerService<S, C>;

    fn layer(&self, service: S) -> Self::Service {
        let served = WithRateLimit(WithBreaker::new(WithBulkhead(Leaf::new(service))));
        ServerService { served, parts: StripedArc::new(self.parts.clone()) }
    }
}

/// The service of a [`ServerStack`].
///
/// The same as the layers one around the other, but a call holds all of their handles by one count.
pub struct ServerService<S, C = DefaultClassifier> {
    served: Served<Leaf<S>>,
    parts: StripedArc<StackParts<C>>,
}

impl<S: Clone, C> Clone for ServerService<S, C> {
    fn clone(&self) -> Self {
        Self { served: self.served.clone(), parts: self.parts.clone() }
    }
}

impl<S, C> fmt::Debug for ServerService<S, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerService").finish_non_exhaustive()
    }
}

impl<S, C, Req> Service<Req> for ServerService<S, C>
where
    S: Service<Req> + Clone,
    S::Error: FromRejection,
    C: Classify<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ServerFuture<S, Req, C>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.served.poll_ready(&*self.parts, cx)
    }

    // Healthy, with the parts by default: 4 RMWs (2 on this thread's count of the parts, 2 on the bulkhead's permits); no
    // clock, but one read and one timer when the service is not ready at once. No allocation.
    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        let parts = self.parts.acquire_ref();
        let mut marks = None;
        let call = match timeout::StartingTimedCall::new::<_, Standalone>(&*parts, parts.total_limit(), &mut marks) {
            Ok(timing) => timing.started(self.served.call(&*parts, request)),
            Err(rejection) => TimedCall::rejected(rejection),
        };
        ServerFuture::new(WithShared::new(parts, call))
    }
}
