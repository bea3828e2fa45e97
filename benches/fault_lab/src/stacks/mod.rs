//! What is put around clients and servers.

mod naive;
mod rampart;
mod tower_resilience;
mod towers;

use tower_rampart::rate_limit::Rate;

use crate::sim::{Balance, Client, LabClock, boxed};

pub use naive::{BackoffWithoutJitter, NaiveRetry, Nothing, TimeoutOnly};
pub use rampart::{Rampart, Without};
pub use tower_resilience::TowerResilience;
pub use towers::Tower;

/// Where a stack is put.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The run's clock.
    pub clock: LabClock,
    /// A seed of its own.
    pub seed: u64,
}

/// A way to protect a system.
pub trait Stack: Send + Sync {
    /// Its name, for tables.
    fn name(&self) -> &str;

    /// Around the way to a service. Each client process has its own.
    fn client(&self, place: &Place, link: Client) -> Client;

    /// Around the ways to all instances, for a client that balances between them itself. Without better advice, the stack
    /// goes around the balancer.
    fn balanced(&self, place: &Place, links: Vec<Client>) -> Client {
        self.client(place, boxed(Balance::new(links, place.seed)))
    }

    /// Around an instance, in its server.
    fn server(&self, place: &Place, node: Client) -> Client {
        let _ = place;
        node
    }
}

/// All that are compared, the others first.
pub fn all() -> Vec<Box<dyn Stack>> {
    let mut stacks = others();
    stacks.push(Box::new(Rampart::new()));
    let parts = [Without::Timeouts, Without::Retry, Without::Budget, Without::Breaker, Without::Bulkhead];
    stacks.extend(parts.map(|part| Box::new(Rampart::without(part)) as Box<dyn Stack>));
    stacks.push(Box::new(Rampart::without(Without::Server)));
    let bare = Rampart::without(Without::Server).lacking(Without::Breaker).named("client stack, no breaker");
    stacks.push(Box::new(bare));
    stacks.push(Box::new(Rampart::without(Without::Client)));
    // Five times what the busiest honest client asks for on average.
    let rate = Rate::per_second(30);
    stacks.push(Box::new(Rampart::new().limit_per_client(rate).named("with limit per client")));
    stacks
}

/// Those that are not of this crate.
pub fn others() -> Vec<Box<dyn Stack>> {
    vec![
        Box::new(Nothing),
        Box::new(TimeoutOnly),
        Box::new(NaiveRetry),
        Box::new(BackoffWithoutJitter),
        Box::new(Tower),
        Box::new(TowerResilience),
    ]
}
