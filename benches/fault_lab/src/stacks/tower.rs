//! `tower`'s own layers, with its defaults where it has any, and with the retry policy that it
//! leaves to the user.

use std::{sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng, rngs::SmallRng};
use tower::{
    BoxError, Service, ServiceBuilder,
    limit::GlobalConcurrencyLimitLayer,
    load_shed::{LoadShedLayer, error::Overloaded},
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    timeout::{TimeoutLayer, error::Elapsed},
    util::{BoxCloneSyncService, rng::Rng},
};

use crate::sim::{Balance, Client, Fault, Request, Response, Stack, StackContext, boxed};

/// Retry with its budget and its backoff, load shedding on a concurrency limit, and a timeout.
pub struct Tower;

/// A generator seeded by the run. Tower's own is seeded by the system.
#[derive(Clone, Debug)]
struct Seeded(SmallRng);

impl Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

#[derive(Clone)]
struct Retries {
    left: u32,
    budget: Arc<TpsBudget>,
    delays: ExponentialBackoff<Seeded>,
}

impl Policy<Request, Response, BoxError> for Retries {
    type Future = tokio::time::Sleep;

    fn retry(&mut self, _: &mut Request, result: &mut Result<Response, BoxError>) -> Option<tokio::time::Sleep> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(self.delays.next_backoff())
    }

    fn clone_request(&mut self, request: &Request) -> Option<Request> {
        Some(*request)
    }
}

fn fault(error: BoxError) -> Fault {
    if error.is::<Elapsed>() {
        return Fault::OtherLibrary { timed_out: true };
    }
    if error.is::<Overloaded>() {
        return Fault::OtherLibrary { timed_out: false };
    }
    *error.downcast().expect("every other error is a fault")
}

/// Wraps one attempt.
fn attempt<S>(service: S) -> BoxErrorClient
where
    S: Service<Request, Response = Response, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    BoxErrorClient::new(
        ServiceBuilder::new()
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(64))
            .layer(TimeoutLayer::new(Duration::from_secs(2)))
            .service(service),
    )
}

/// Wraps all attempts.
fn with_retries<S>(context: &StackContext, attempts: S) -> Client
where
    S: Service<Request, Response = Response, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
{
    let (rng, longest) = (Seeded(SmallRng::seed_from_u64(context.seed)), Duration::from_millis(u64::MAX));
    let delays = ExponentialBackoffMaker::new(Duration::from_millis(50), longest, 0.99, rng);
    let delays = delays.expect("tower's own defaults are valid").make_backoff();
    let retries = Retries { left: 2, budget: Arc::new(TpsBudget::default()), delays };
    boxed(ServiceBuilder::new().map_err(fault).layer(RetryLayer::new(retries)).service(attempts))
}

type BoxErrorClient = BoxCloneSyncService<Request, Response, BoxError>;

impl Stack for Tower {
    fn name(&self) -> &str {
        "tower"
    }

    fn client(&self, context: &StackContext, link: Client) -> Client {
        with_retries(context, attempt(link))
    }

    /// Each instance has its own limit, under the balancer.
    fn balanced(&self, context: &StackContext, links: Vec<Client>) -> Client {
        let endpoints =
            links.into_iter().map(|link| boxed(ServiceBuilder::new().map_err(fault).service(attempt(link))));
        let balance = Balance::new(endpoints.collect(), context.seed);
        with_retries(context, ServiceBuilder::new().map_err(BoxError::from).service(balance))
    }

    fn server(&self, _: &StackContext, node: Client) -> Client {
        boxed(
            ServiceBuilder::new()
                .map_err(fault)
                .layer(LoadShedLayer::new())
                .layer(GlobalConcurrencyLimitLayer::new(512))
                .layer(TimeoutLayer::new(Duration::from_secs(10)))
                .service(node),
        )
    }
}
