//! Half of the workers are lost permanently: the remaining capacity is 200 requests a second, for a
//! load of 280.

use super::{Scenario, base_plan};
use crate::sim::{Change, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Healthy);
    plan.changes = vec![Change { service: 0, instances: 0..1, at: 30..1_000_000, mode: Mode::FewerWorkers(0.5) }];
    plan.trigger = Some((30, None));
    Scenario {
        name: "half capacity",
        summary: "half of the workers are lost permanently",
        source: "capacity-decreasing triggers: L. Huang et al., Metastable Failures in the Wild, OSDI 2022",
        plan,
    }
}
