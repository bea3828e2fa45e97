//! A chain of four services, each of which retries, and cancels a request when its caller
//! disconnects. The last service fails, and each hop multiplies the calls that reach it.

use super::{Scenario, base_plan};
use crate::sim::{Change, Dist, Mode, Service};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Healthy);
    let hop = |name, calls: fn(u32) -> Option<usize>| Service {
        instances: 2,
        workers: 100,
        cancels_on_disconnect: true,
        time: Dist::Exponential(10.0),
        calls,
        ..Service::new(name)
    };
    plan.services = vec![hop("a", |_| Some(1)), hop("b", |_| Some(2)), hop("c", |_| Some(3)), Service::new("d")];
    plan.changes = vec![Change { service: 3, instances: 0..1, at: 30..60, mode: Mode::Fails(0.9) }];
    Scenario {
        name: "four hops",
        summary: "90% of the calls fail at the end of a chain of four services, for 30 s",
        source: "\"Addressing Cascading Failures\": B. Beyer et al., Site Reliability Engineering, chapter 22",
        plan,
    }
}
