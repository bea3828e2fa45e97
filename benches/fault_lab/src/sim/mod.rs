//! The laboratory: services, networks and users on virtual time.
//!
//! A run has a thread and a runtime of its own, whose clock is paused: it moves on when nobody has anything to do, so an
//! hour takes as long as its events do. All random numbers come from the seed, and all times are whole milliseconds, the
//! grain of tokio's timers, and mathematics is a crate's and not the system's: the same seed gives the same result to the
//! last digit, anywhere.

mod balance;
mod dist;
mod message;
mod network;
mod node;
mod plan;
mod record;
mod users;
mod world;

use std::sync::Arc;

pub use balance::Balance;
pub use dist::Dist;
pub use message::{Client, Fault, Request, Response};
pub use network::boxed;
pub use node::Mode;
pub use plan::{Change, Plan, Route, Service, Shape, Users};
pub use record::{Record, RouteSecond, ServiceSecond};
pub use world::{LabClock, World};

use crate::stacks::Stack;

/// Runs a plan with a stack around all its clients and servers.
pub fn run(plan: &Plan, stack: &dyn Stack, seed: u64) -> Record {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime with a clock needs nothing of the system");
    runtime.block_on(async {
        let world = Arc::new(World::new(plan, seed));
        let (nodes, clients) = network::build(&world, plan, stack);
        for change in &plan.changes {
            let befallen = nodes[change.service][change.instances.clone()].to_vec();
            tokio::spawn(node::apply(world.clone(), befallen, change.clone()));
        }
        users::live(&world, plan, clients).await;
        world.finish()
    })
}
