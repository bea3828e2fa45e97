//! The simulator: services, networks and users on virtual time.
//!
//! A run has its own thread and its own runtime, whose paused clock advances only when every task
//! is idle, so an hour takes as long as its events take to process. All random numbers derive from
//! the seed, all times are whole milliseconds (the resolution of tokio's timers), and mathematical
//! functions come from a crate instead of the system. The same seed therefore gives the same result
//! to the last digit on any machine.

mod balance;
mod dist;
mod message;
mod network;
mod node;
mod plan;
mod record;
mod stack;
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
pub use stack::{Stack, StackContext};
pub use world::{LabClock, World};

/// Runs a plan with a stack around all its clients and servers.
pub fn run(plan: &Plan, stack: &dyn Stack, seed: u64) -> Record {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime without I/O needs no system resources");
    runtime.block_on(async {
        let world = Arc::new(World::new(plan, seed));
        let (nodes, clients) = network::build(&world, plan, stack);
        for change in &plan.changes {
            let affected = nodes[change.service][change.instances.clone()].to_vec();
            tokio::spawn(node::apply(world.clone(), affected, change.clone()));
        }
        users::run(&world, plan, clients).await;
        world.finish()
    })
}
