//! This crate's default stacks, whole, in part, and with other numbers.

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

use super::{Place, Stack};
use crate::sim::{Balance, Client, Request, boxed};

type Tune<T> = Option<Arc<dyn Fn(T) -> T + Send + Sync>>;

/// A part that is left out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Without {
    /// The timeouts, total and of attempts.
    Timeouts,
    /// The retry.
    Retry,
    /// The retry's budget.
    Budget,
    /// The circuit breaker.
    Breaker,
    /// The client's bulkhead.
    Bulkhead,
    /// The server's stack.
    Server,
    /// Both clients' stacks; only the servers have one.
    Client,
}

/// The default stacks around clients and servers. What the lab adds is its clock and its seed.
#[derive(Clone, Default)]
pub struct Rampart {
    name: String,
    without: Vec<Without>,
    attempt: Option<Duration>,
    total: Option<Duration>,
    breaker: Tune<CircuitBreakerBuilder>,
    budget: Tune<RetryBudgetBuilder>,
    retry: Tune<RetryBuilder>,
    bulkhead: Tune<BulkheadBuilder>,
    server: Tune<BulkheadBuilder>,
    served: Option<Duration>,
    limit: Option<Rate>,
}

impl Rampart {
    /// As it comes.
    pub fn new() -> Self {
        Self { name: "rampart".to_owned(), ..Self::default() }
    }

    /// Without one of its parts.
    pub fn without(part: Without) -> Self {
        let name = match part {
            Without::Timeouts => "without timeouts",
            Without::Retry => "without retry",
            Without::Budget => "without budget",
            Without::Breaker => "without breaker",
            Without::Bulkhead => "without bulkhead",
            Without::Server => "client stack only",
            Without::Client => "server stack only",
        };
        Self { name: name.to_owned(), without: vec![part], ..Self::default() }
    }

    /// The same without a part.
    pub fn lacking(mut self, part: Without) -> Self {
        self.without.push(part);
        self
    }

    /// Under another name.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// With another attempt timeout.
    pub fn attempt_timeout(mut self, limit: Duration) -> Self {
        self.attempt = Some(limit);
        self
    }

    /// With another total timeout.
    pub fn total_timeout(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// With another breaker.
    pub fn breaker(
        mut self,
        tune: impl Fn(CircuitBreakerBuilder) -> CircuitBreakerBuilder + Send + Sync + 'static,
    ) -> Self {
        self.breaker = Some(Arc::new(tune));
        self
    }

    /// With another budget.
    pub fn budget(mut self, tune: impl Fn(RetryBudgetBuilder) -> RetryBudgetBuilder + Send + Sync + 'static) -> Self {
        self.budget = Some(Arc::new(tune));
        self
    }

    /// With another retry.
    pub fn retry(mut self, tune: impl Fn(RetryBuilder) -> RetryBuilder + Send + Sync + 'static) -> Self {
        self.retry = Some(Arc::new(tune));
        self
    }

    /// With another bulkhead of clients.
    pub fn bulkhead(mut self, tune: impl Fn(BulkheadBuilder) -> BulkheadBuilder + Send + Sync + 'static) -> Self {
        self.bulkhead = Some(Arc::new(tune));
        self
    }

    /// With another bulkhead of servers; it begins with the server stack's own numbers.
    pub fn server_bulkhead(
        mut self,
        tune: impl Fn(BulkheadBuilder) -> BulkheadBuilder + Send + Sync + 'static,
    ) -> Self {
        self.server = Some(Arc::new(tune));
        self
    }

    /// With another timeout of servers.
    pub fn server_timeout(mut self, limit: Duration) -> Self {
        self.served = Some(limit);
        self
    }

    /// With a limit for each client, in front of the server's stack.
    pub fn limit_per_client(mut self, rate: Rate) -> Self {
        self.limit = Some(rate);
        self
    }

    fn lacks(&self, part: Without) -> bool {
        self.without.contains(&part)
    }

    fn make_breaker(&self, place: &Place, what: u64) -> CircuitBreaker {
        let builder = CircuitBreaker::builder("lab").clock(place.clock).seed(place.seed.wrapping_add(what));
        tuned(&self.breaker, builder).build().expect("the lab's numbers are valid")
    }

    fn make_bulkhead(&self) -> Bulkhead {
        tuned(&self.bulkhead, Bulkhead::builder("lab")).build().expect("the lab's numbers are valid")
    }

    fn make_retry(&self, place: &Place) -> RetryBuilder {
        let retry = Retry::builder("lab").seed(place.seed.wrapping_add(1)).idempotent(true);
        let retry = if self.lacks(Without::Budget) {
            retry.no_budget()
        } else {
            let budget = tuned(&self.budget, RetryBudget::builder().clock(place.clock));
            retry.budget(&budget.build().expect("the lab's numbers are valid"))
        };
        tuned(&self.retry, retry)
    }
}

fn tuned<T>(tune: &Tune<T>, builder: T) -> T {
    match tune {
        Some(tune) => tune(builder),
        None => builder,
    }
}

impl Stack for Rampart {
    fn name(&self) -> &str {
        &self.name
    }

    fn client(&self, place: &Place, link: Client) -> Client {
        if self.lacks(Without::Client) {
            return link;
        }
        let mut builder = stack::client("lab");
        builder = match (self.lacks(Without::Timeouts), self.total) {
            (true, _) => builder.without_total_timeout().without_attempt_timeout(),
            (false, Some(total)) => builder.total_timeout(total),
            (false, None) => builder,
        };
        if let Some(attempt) = self.attempt {
            builder = builder.attempt_timeout(attempt);
        }
        builder = match self.lacks(Without::Retry) {
            true => builder.without_retry(),
            false => builder.retry(&self.make_retry(place).build().expect("the lab's numbers are valid")),
        };
        builder = match self.lacks(Without::Breaker) {
            true => builder.without_circuit_breaker(),
            false => builder.circuit_breaker(&self.make_breaker(place, 0)),
        };
        builder = match self.lacks(Without::Bulkhead) {
            true => builder.without_bulkhead(),
            false => builder.bulkhead(&self.make_bulkhead()),
        };
        boxed(builder.build().expect("the lab's numbers are valid").layer(link))
    }

    /// As the docs of the breaker say: breakers under the balancer, in backpressure mode, the retry around it.
    fn balanced(&self, place: &Place, links: Vec<Client>) -> Client {
        let limit = |default: u64, given: Option<Duration>| {
            let limit = if self.lacks(Without::Timeouts) { Duration::MAX } else { Duration::from_secs(default) };
            Timeout::new("lab", given.unwrap_or(limit)).layer()
        };
        let ends = links.into_iter().enumerate().map(|(index, link)| {
            let breaker = (!self.lacks(Without::Breaker))
                .then(|| self.make_breaker(place, 2 + index as u64).layer().backpressure());
            boxed(
                ServiceBuilder::new()
                    .option_layer(breaker)
                    .layer(limit(2, self.attempt))
                    .map_err(Into::into)
                    .service(link),
            )
        });
        let balance = Balance::new(ends.collect(), place.seed);
        let retry = self.make_retry(place).retry_on_other_instance(true).build().expect("the lab's numbers are valid");
        let retry = (!self.lacks(Without::Retry)).then(|| retry.layer());
        boxed(ServiceBuilder::new().layer(limit(5, self.total)).option_layer(retry).service(balance))
    }

    fn server(&self, place: &Place, node: Client) -> Client {
        if self.lacks(Without::Server) {
            return boxed(node);
        }
        let mut builder = stack::server("lab");
        if let Some(limit) = self.served {
            builder = builder.total_timeout(limit);
        }
        if let Some(tune) = &self.server {
            let bulkhead = Bulkhead::builder("lab").max_concurrent(256).max_wait(Duration::from_millis(100));
            builder = builder.bulkhead(&tune(bulkhead).build().expect("the lab's numbers are valid"));
        }
        let served = builder.build().expect("the lab's numbers are valid").layer(node);
        let Some(rate) = self.limit else { return boxed(served) };
        // Not the system's seed, which would be another in each run.
        let hasher = BuildHasherDefault::<DefaultHasher>::default();
        let limiter = KeyedRateLimiter::<u32>::builder("lab", rate).clock(place.clock).hasher(hasher);
        let limiter = limiter.build().expect("the lab's numbers are valid");
        boxed(limiter.layer(|request: &Request| Some(request.client)).layer(served))
    }
}
