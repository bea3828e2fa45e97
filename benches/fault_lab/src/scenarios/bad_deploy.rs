//! A hundred instances, one of which has a bad build: it answers everything at once, with an error. Clients that send what
//! they have to the least loaded instance send it there.

use super::{Scenario, usual};
use crate::sim::{Change, Mode, Service, Users};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    let backend =
        Service { instances: 100, balanced_by_client: true, workers: 4, queue: 400, ..Service::new("backend") };
    plan.services = vec![backend];
    plan.routes[0].rate = 1000.0;
    plan.users = Users::of(10);
    plan.changes = vec![Change { service: 0, instances: 0..1, at: 30..60, mode: Mode::FailsAtOnce }];
    Scenario {
        name: "bad deploy",
        what: "one of 100 instances fails at once for 30 s, and clients prefer the least loaded",
        source: "\"sinkholes\": B. Beyer et al., Site Reliability Engineering, chapter 20",
        plan,
    }
}
