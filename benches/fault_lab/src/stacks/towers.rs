//! `tower`'s own layers, with the policy that its retry leaves to its user, and its defaults where it has any.

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

use super::{Place, Stack};
use crate::sim::{Balance, Client, Fault, Request, Response, boxed};

/// Retry with its budget and its backoff, load shedding on a limit of concurrency, and a timeout.
pub struct Tower;

/// A generator with a seed of ours in place of its own, which the system seeds.
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
        return Fault::Other { timed_out: true };
    }
    if error.is::<Overloaded>() {
        return Fault::Other { timed_out: false };
    }
    *error.downcast().expect("there are no other errors")
}

/// What is around an attempt.
fn attempt<S>(service: S) -> Unified
where
    S: Service<Request, Response = Response, Error = Fault, Future: Send> + Clone + Send + Sync + 'static,
{
    Unified::new(
        ServiceBuilder::new()
            .layer(LoadShedLayer::new())
            .layer(GlobalConcurrencyLimitLayer::new(64))
            .layer(TimeoutLayer::new(Duration::from_secs(2)))
            .service(service),
    )
}

/// What is around all attempts.
fn retried<S>(place: &Place, attempts: S) -> Client
where
    S: Service<Request, Response = Response, Error = BoxError, Future: Send> + Clone + Send + Sync + 'static,
{
    let (rng, longest) = (Seeded(SmallRng::seed_from_u64(place.seed)), Duration::from_millis(u64::MAX));
    let delays = ExponentialBackoffMaker::new(Duration::from_millis(50), longest, 0.99, rng);
    let delays = delays.expect("these are its own defaults").make_backoff();
    let retries = Retries { left: 2, budget: Arc::new(TpsBudget::default()), delays };
    boxed(ServiceBuilder::new().map_err(fault).layer(RetryLayer::new(retries)).service(attempts))
}

type Unified = BoxCloneSyncService<Request, Response, BoxError>;

impl Stack for Tower {
    fn name(&self) -> &str {
        "tower"
    }

    fn client(&self, place: &Place, link: Client) -> Client {
        retried(place, attempt(link))
    }

    /// The limit is an instance's own, under the balancer.
    fn balanced(&self, place: &Place, links: Vec<Client>) -> Client {
        let ends = links.into_iter().map(|link| boxed(ServiceBuilder::new().map_err(fault).service(attempt(link))));
        let balance = Balance::new(ends.collect(), place.seed);
        retried(place, ServiceBuilder::new().map_err(BoxError::from).service(balance))
    }

    fn server(&self, _: &Place, node: Client) -> Client {
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
