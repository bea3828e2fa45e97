//! A hundred instances, one of which runs a bad build that fails every request immediately. A
//! balancer that prefers the least loaded instance sends most requests there.

use super::{Scenario, base_plan};
use crate::sim::{Change, Dist, Mode, Service, Users};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Healthy);
    // Two or three concurrent requests per instance.
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
    plan.users = Users::with_clients(1);
    plan.changes = vec![Change { service: 0, instances: 0..1, at: 30..60, mode: Mode::FailsImmediately }];
    Scenario {
        name: "bad deploy",
        summary: "one of 100 instances fails immediately for 30 s under a least-loaded balancer",
        source: "\"sinkholes\": B. Beyer et al., Site Reliability Engineering, chapter 20",
        plan,
    }
}
