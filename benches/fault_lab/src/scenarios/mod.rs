//! What befalls systems, each in a file of its own.
//!
//! Unless it says otherwise, a scenario has one service with 20 workers and 50 ms of work per request, exponential, and so a
//! capacity of 400 requests a second, a queue of 5 s, and 280 requests a second of 50 clients with a stack each: at 70%
//! it is as busy as a service should be. Users want an answer within two seconds, leave after three, and half the time ask
//! once more by hand. A tenth of a percent of the requests fails for no particular reason.

mod abusive_client;
mod bad_deploy;
mod brown_out;
mod calm;
mod dead;
mod flapping;
mod fleet_brown_out;
mod four_hops;
mod half_capacity;
mod herd;
mod hung;
mod metastable;
mod noisy_dependency;
mod pause;
mod slow;

use crate::sim::{Change, Mode, Plan, Route, Service, Users};

/// A plan with its name and where it comes from.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name, for tables and the command line.
    pub name: &'static str,
    /// What happens, in a sentence.
    pub what: &'static str,
    /// The kind of incident, and where it is described.
    pub source: &'static str,
    /// The system, and what befalls it.
    pub plan: Plan,
}

/// All but the calm ones.
pub fn incidents() -> Vec<Scenario> {
    vec![
        dead::scenario(),
        hung::scenario(),
        brown_out::scenario(),
        fleet_brown_out::scenario(),
        slow::scenario(),
        flapping::scenario(),
        metastable::scenario(),
        herd::scenario(),
        noisy_dependency::scenario(),
        abusive_client::scenario(),
        four_hops::scenario(),
        bad_deploy::scenario(),
        pause::scenario(),
        half_capacity::scenario(),
    ]
}

/// A day without an incident.
pub fn calm() -> Scenario {
    calm::scenario()
}

/// The metastable state, for charts.
pub fn metastable() -> Scenario {
    metastable::scenario()
}

/// One service, in trouble from second 30 to 60 of 120.
fn usual(mode: Mode) -> Plan {
    Plan {
        seconds: 120,
        services: vec![Service::new("backend")],
        routes: vec![Route::new("all", 0, 280.0)],
        users: Users::of(50),
        changes: vec![Change { service: 0, instances: 0..1, at: 30..60, mode }],
        cause: Some((30, Some(60))),
    }
}
