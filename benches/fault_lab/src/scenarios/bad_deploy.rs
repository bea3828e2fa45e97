//! A hundred instances, one of which has a bad build: it answers everything at once, with an error. A proxy that sends what it
//! has to the least loaded instance sends it there.

use super::{Scenario, usual};
use crate::sim::{Change, Dist, Mode, Service, Users};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    // Two or three requests at a time in each instance.
    let time = Dist::Uniform(200.0, 600.0);
    plan.services = vec![Service {
        instances: 100,
        balanced_by_client: true,
        workers: 4,
        queue: 40,
        time,
        ..Service::new("backend")
    }];
    plan.routes[0].rate = 600.0;
    plan.users = Users::of(1);
    plan.changes = vec![Change { service: 0, instances: 0..1, at: 30..60, mode: Mode::FailsAtOnce }];
    Scenario {
        name: "bad deploy",
        what: "one of 100 instances fails at once for 30 s, and a proxy prefers the least loaded",
        source: "\"sinkholes\": B. Beyer et al., Site Reliability Engineering, chapter 20",
        plan,
    }
}
