//! The incidents, each in its own file.
//!
//! By default a scenario has one service with 20 workers and 50 ms of work per request
//! (exponential), which is a capacity of 400 requests a second, a queue of 5 s, and 280 requests a
//! second from 50 clients with a stack each: a utilization of 70%, as high as a service should run.
//! Users expect a response within two seconds and leave after three; half of those without a timely
//! response retry once, manually. 0.1% of the requests fail even when the service is healthy.

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

/// A plan with its name and its source.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The name, for tables and the command line.
    pub name: &'static str,
    /// The incident in one phrase.
    pub summary: &'static str,
    /// A description of this kind of incident in the literature.
    pub source: &'static str,
    /// The system and the incident.
    pub plan: Plan,
}

/// Returns all scenarios with an incident.
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

/// Returns the day without an incident.
pub fn calm() -> Scenario {
    calm::scenario()
}

/// One service, in this mode from second 30 to 60 of 120.
fn base_plan(mode: Mode) -> Plan {
    Plan {
        seconds: 120,
        services: vec![Service::new("backend")],
        routes: vec![Route::new("all", 0, 280.0)],
        users: Users::with_clients(50),
        changes: vec![Change { service: 0, instances: 0..1, at: 30..60, mode }],
        trigger: Some((30, Some(60))),
    }
}
