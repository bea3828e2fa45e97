//! Half of the workers are gone, and do not come back: 200 requests a second are all that can be had of 280.

use super::{Scenario, usual};
use crate::sim::{Change, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    plan.changes = vec![Change { service: 0, instances: 0..1, at: 30..1_000_000, mode: Mode::Fewer(0.5) }];
    plan.cause = Some((30, None));
    Scenario {
        name: "half capacity",
        what: "half of the workers are gone for good",
        source: "capacity-decreasing triggers: L. Huang et al., Metastable Failures in the Wild, OSDI 2022",
        plan,
    }
}
