//! `tower`'s own layers, with the policy that its retry leaves to its user, and its defaults where it has any.

use std::{sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng, rngs::SmallRng};
use tower::{
    BoxError, ServiceBuilder,
    limit::GlobalConcurrencyLimitLayer,
    load_shed::{LoadShedLayer, error::Overloaded},
    retry::{
        Policy, RetryLayer,
        backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    timeout::{TimeoutLayer, error::Elapsed},
    util::rng::Rng,
};

use super::{Place, Stack};
use crate::sim::{Client, Fault, NodeService, Request, Response, boxed};

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

impl Stack for Tower {
    fn name(&self) -> &str {
        "tower"
    }

    fn around(&self, place: &Place, service: Client) -> Client {
        let (rng, longest) = (Seeded(SmallRng::seed_from_u64(place.seed)), Duration::from_millis(u64::MAX));
        let delays = ExponentialBackoffMaker::new(Duration::from_millis(50), longest, 0.99, rng);
        let delays = delays.expect("these are its own defaults").make_backoff();
        let retries = Retries { left: 2, budget: Arc::new(TpsBudget::default()), delays };
        boxed(
            ServiceBuilder::new()
                .map_err(fault)
                .layer(RetryLayer::new(retries))
                .layer(LoadShedLayer::new())
                .layer(GlobalConcurrencyLimitLayer::new(64))
                .layer(TimeoutLayer::new(Duration::from_secs(2)))
                .service(service),
        )
    }

    fn server(&self, _: &Place, node: NodeService, _: usize) -> Client {
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
