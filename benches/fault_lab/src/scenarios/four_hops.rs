//! A chain of four services, each of which retries, and hears when its caller leaves. The last one fails: what arrives there is multiplied at each hop.

use super::{Scenario, usual};
use crate::sim::{Change, Dist, Mode, Service};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    let hop = |name, calls: fn(u32) -> Option<usize>| Service {
        instances: 2,
        workers: 100,
        hears: true,
        time: Dist::Exponential(10.0),
        calls,
        ..Service::new(name)
    };
    plan.services = vec![hop("a", |_| Some(1)), hop("b", |_| Some(2)), hop("c", |_| Some(3)), Service::new("d")];
    plan.changes = vec![Change { service: 3, instances: 0..1, at: 30..60, mode: Mode::Fails(0.9) }];
    Scenario {
        name: "four hops",
        what: "nine of ten calls fail at the end of a chain of four, for 30 s",
        source: "\"Addressing Cascading Failures\": B. Beyer et al., Site Reliability Engineering, chapter 22",
        plan,
    }
}
