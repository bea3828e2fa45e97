//! The dependency refuses all connections immediately: its process is gone.

use super::{Scenario, base_plan};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "dead",
        summary: "connections are refused for 30 s",
        source: "a crashed process; \"Integration Points\" in M. Nygard, Release It!",
        plan: base_plan(Mode::RefusesConnections),
    }
}
