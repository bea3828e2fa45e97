//! Five seconds dead, five seconds well, six times.

use super::{Scenario, usual};
use crate::sim::{Change, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Refuses);
    let flap = |start| Change { service: 0, instances: 0..1, at: start..start + 5, mode: Mode::Refuses };
    plan.changes = (0..6).map(|flap_number| flap(30 + 10 * flap_number)).collect();
    plan.seconds = 150;
    plan.cause = Some((30, Some(85)));
    Scenario {
        name: "flapping",
        what: "5 s dead, 5 s well, six times",
        source: "a crash loop under a supervisor that restarts",
        plan,
    }
}
