//! The stacks that are compared: layers around clients and servers.

mod naive;
mod rampart;
mod tower;
mod tower_resilience;

use tower_rampart::rate_limit::Rate;

use crate::sim::Stack;

pub use naive::{BackoffWithoutJitter, NaiveRetry, TimeoutOnly, Unprotected};
pub use rampart::{Part, Rampart};
pub use tower::Tower;
pub use tower_resilience::TowerResilience;

/// All stacks, those of other crates first.
pub fn all() -> Vec<Box<dyn Stack>> {
    let mut stacks = others();
    stacks.push(Box::new(Rampart::new()));
    let parts = [Part::Timeouts, Part::Retry, Part::Budget, Part::Breaker, Part::Bulkhead];
    stacks.extend(parts.map(|part| Box::new(Rampart::without(part)) as Box<dyn Stack>));
    stacks.push(Box::new(Rampart::without(Part::Server)));
    let no_breaker = Rampart::without(Part::Server).also_without(Part::Breaker).named("client stack, no breaker");
    stacks.push(Box::new(no_breaker));
    stacks.push(Box::new(Rampart::without(Part::Client)));
    // Five times the average rate of the busiest honest client.
    let rate = Rate::per_second(30);
    stacks.push(Box::new(Rampart::new().limit_per_client(rate).named("with limit per client")));
    stacks
}

/// The stacks that do not use this crate.
pub fn others() -> Vec<Box<dyn Stack>> {
    vec![
        Box::new(Unprotected),
        Box::new(TimeoutOnly),
        Box::new(NaiveRetry),
        Box::new(BackoffWithoutJitter),
        Box::new(Tower),
        Box::new(TowerResilience),
    ]
}
