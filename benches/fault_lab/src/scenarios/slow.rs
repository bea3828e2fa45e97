//! Work takes ten times as long, so that a tenth of the capacity is left.

use super::{Scenario, usual};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "slow",
        what: "work takes ten times as long for 30 s",
        source: "\"Slow Responses\" in M. Nygard, Release It!",
        plan: usual(Mode::Slower(10.0)),
    }
}
