//! Work takes ten times as long, so that a tenth of the capacity is left.

use super::{Scenario, base_plan};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "slow",
        summary: "work takes ten times as long for 30 s",
        source: "\"Slow Responses\" in M. Nygard, Release It!",
        plan: base_plan(Mode::Slower(10.0)),
    }
}
