//! Dead for five seconds, healthy for five seconds, six times.

use super::{Scenario, base_plan};
use crate::sim::{Change, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::RefusesConnections);
    let flap = |start| Change { service: 0, instances: 0..1, at: start..start + 5, mode: Mode::RefusesConnections };
    plan.changes = (0..6).map(|flap_number| flap(30 + 10 * flap_number)).collect();
    plan.seconds = 150;
    plan.trigger = Some((30, Some(85)));
    Scenario {
        name: "flapping",
        summary: "5 s dead, 5 s healthy, six times",
        source: "a crash loop under a supervisor that restarts",
        plan,
    }
}
