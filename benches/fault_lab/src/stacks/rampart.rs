//! This crate's default stacks: complete, without some parts, and with other settings.

use std::{
    hash::{BuildHasherDefault, DefaultHasher},
    sync::Arc,
    time::Duration,
};

use tower::{Layer, ServiceBuilder};
use tower_rampart::{
    bulkhead::{Bulkhead, BulkheadBuilder},
    circuit_breaker::{CircuitBreaker, CircuitBreakerBuilder},
    rate_limit::{KeyedRateLimiter, Rate},
    retry::{Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder},
    stack,
    timeout::Timeout,
};

use crate::sim::{Balance, Client, Request, Stack, StackContext, boxed};

type Tune<T> = Option<Arc<dyn Fn(T) -> T + Send + Sync>>;

/// A part of the stacks that can be left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Part {
    /// The client's total and attempt timeouts.
    Timeouts,
    /// The retry.
    Retry,
    /// The retry's budget.
    Budget,
    /// The circuit breaker.
    Breaker,
    /// The client's bulkhead.
    Bulkhead,
    /// The server stack.
    Server,
    /// The client stack.
    Client,
}

/// The default client and server stacks, with the lab's clock and seed.
#[derive(Clone, Default)]
pub struct Rampart {
    name: String,
    without: Vec<Part>,
    attempt_timeout: Option<Duration>,
    total_timeout: Option<Duration>,
    breaker: Tune<CircuitBreakerBuilder>,
    budget: Tune<RetryBudgetBuilder>,
    retry: Tune<RetryBuilder>,
    bulkhead: Tune<BulkheadBuilder>,
    server_bulkhead: Tune<BulkheadBuilder>,
    server_timeout: Option<Duration>,
    limit_per_client: Option<Rate>,
}

impl Rampart {
    /// The default stacks.
    pub fn new() -> Self {
        Self { name: "rampart".to_owned(), ..Self::default() }
    }

    /// The default stacks without one part.
    pub fn without(part: Part) -> Self {
        let name = match part {
            Part::Timeouts => "without timeouts",
            Part::Retry => "without retry",
            Part::Budget => "without budget",
            Part::Breaker => "without breaker",
            Part::Bulkhead => "without bulkhead",
            Part::Server => "client stack only",
            Part::Client => "server stack only",
        };
        Self { name: name.to_owned(), without: vec![part], ..Self::default() }
    }

    /// Leaves out another part.
    pub fn also_without(mut self, part: Part) -> Self {
        self.without.push(part);
        self
    }

    /// Sets the name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the client's attempt timeout.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt_timeout = Some(limit);
        self
    }

    /// Sets the client's total timeout.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total_timeout = Some(limit);
        self
    }

    /// Changes the circuit breaker's settings.
    pub fn breaker(
        mut self,
        tune: impl Fn(CircuitBreakerBuilder) -> CircuitBreakerBuilder + Send + Sync + 'static,
    ) -> Self {
        self.breaker = Some(Arc::new(tune));
        self
    }

    /// Changes the retry budget's settings.
    pub fn budget(mut self, tune: impl Fn(RetryBudgetBuilder) -> RetryBudgetBuilder + Send + Sync + 'static) -> Self {
        self.budget = Some(Arc::new(tune));
        self
    }

    /// Changes the retry's settings.
    pub fn retry(mut self, tune: impl Fn(RetryBuilder) -> RetryBuilder + Send + Sync + 'static) -> Self {
        self.retry = Some(Arc::new(tune));
        self
    }

    /// Changes the client's bulkhead.
    pub fn bulkhead(mut self, tune: impl Fn(BulkheadBuilder) -> BulkheadBuilder + Send + Sync + 'static) -> Self {
        self.bulkhead = Some(Arc::new(tune));
        self
    }

    /// Changes the server's bulkhead, starting from the server stack's own settings.
    pub fn server_bulkhead(
        mut self,
        tune: impl Fn(BulkheadBuilder) -> BulkheadBuilder + Send + Sync + 'static,
    ) -> Self {
        self.server_bulkhead = Some(Arc::new(tune));
        self
    }

    /// Sets the server's total timeout.
    pub fn server_timeout(mut self, limit: Duration) -> Self {
        self.server_timeout = Some(limit);
        self
    }

    /// Adds a rate limit per client, in front of the server stack.
    pub fn limit_per_client(mut self, rate: Rate) -> Self {
        self.limit_per_client = Some(rate);
        self
    }

    fn omits(&self, part: Part) -> bool {
        self.without.contains(&part)
    }

    fn make_breaker(&self, context: &StackContext, stream: u64) -> CircuitBreaker {
        let builder = CircuitBreaker::builder("lab").clock(context.clock).seed(context.seed.wrapping_add(stream));
        apply(&self.breaker, builder).build().expect("the lab's settings are valid")
    }

    fn make_bulkhead(&self) -> Bulkhead {
        apply(&self.bulkhead, Bulkhead::builder("lab")).build().expect("the lab's settings are valid")
    }

    fn make_retry(&self, context: &StackContext) -> RetryBuilder {
        let retry = Retry::builder("lab").seed(context.seed.wrapping_add(1)).idempotent(true);
        let retry = if self.omits(Part::Budget) {
            retry.no_budget()
        } else {
            let budget = apply(&self.budget, RetryBudget::builder().clock(context.clock));
            retry.budget(&budget.build().expect("the lab's settings are valid"))
        };
        apply(&self.retry, retry)
    }
}

fn apply<T>(tune: &Tune<T>, builder: T) -> T {
    match tune {
        Some(tune) => tune(builder),
        None => builder,
    }
}

impl Stack for Rampart {
    fn name(&self) -> &str {
        &self.name
    }

    fn client(&self, context: &StackContext, link: Client) -> Client {
        if self.omits(Part::Client) {
            return link;
        }
        let mut builder = stack::client("lab");
        builder = match (self.omits(Part::Timeouts), self.total_timeout) {
            (true, _) => builder.without_total_timeout().without_attempt_timeout(),
            (false, Some(total)) => builder.total_timeout(total),
            (false, None) => builder,
        };
        if let Some(attempt) = self.attempt_timeout {
            builder = builder.attempt_timeout(attempt);
        }
        builder = match self.omits(Part::Retry) {
            true => builder.without_retry(),
            false => builder.retry(&self.make_retry(context).build().expect("the lab's settings are valid")),
        };
        builder = match self.omits(Part::Breaker) {
            true => builder.without_circuit_breaker(),
            false => builder.circuit_breaker(&self.make_breaker(context, 0)),
        };
        builder = match self.omits(Part::Bulkhead) {
            true => builder.without_bulkhead(),
            false => builder.bulkhead(&self.make_bulkhead()),
        };
        boxed(builder.build().expect("the lab's settings are valid").layer(link))
    }

    /// As the circuit breaker's docs recommend: breakers in backpressure mode under the balancer,
    /// the retry around it.
    fn balanced(&self, context: &StackContext, links: Vec<Client>) -> Client {
        let limit = |default: u64, given: Option<Duration>| {
            let limit = if self.omits(Part::Timeouts) { Duration::MAX } else { Duration::from_secs(default) };
            Timeout::new("lab", given.unwrap_or(limit)).layer()
        };
        let endpoints = links.into_iter().enumerate().map(|(index, link)| {
            let breaker = (!self.omits(Part::Breaker))
                .then(|| self.make_breaker(context, 2 + index as u64).layer().backpressure());
            boxed(
                ServiceBuilder::new()
                    .option_layer(breaker)
                    .layer(limit(2, self.attempt_timeout))
                    .map_err(Into::into)
                    .service(link),
            )
        });
        let balance = Balance::new(endpoints.collect(), context.seed);
        let retry =
            self.make_retry(context).retry_on_other_instance(true).build().expect("the lab's settings are valid");
        let retry = (!self.omits(Part::Retry)).then(|| retry.layer());
        boxed(ServiceBuilder::new().layer(limit(5, self.total_timeout)).option_layer(retry).service(balance))
    }

    fn server(&self, context: &StackContext, node: Client) -> Client {
        if self.omits(Part::Server) {
            return boxed(node);
        }
        let mut builder = stack::server("lab");
        if let Some(limit) = self.server_timeout {
            builder = builder.total_timeout(limit);
        }
        if let Some(tune) = &self.server_bulkhead {
            let bulkhead = Bulkhead::builder("lab").max_concurrent(256).max_wait(Duration::from_millis(100));
            builder = builder.bulkhead(&tune(bulkhead).build().expect("the lab's settings are valid"));
        }
        let served = builder.build().expect("the lab's settings are valid").layer(node);
        let Some(rate) = self.limit_per_client else { return boxed(served) };
        // The default hasher's random keys would differ in each run.
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let limiter = KeyedRateLimiter::<u32>::builder("lab", rate).clock(context.clock).hasher(hasher);
        let limiter = limiter.build().expect("the lab's settings are valid");
        boxed(limiter.layer(|request: &Request| Some(request.client)).layer(served))
    }
}
