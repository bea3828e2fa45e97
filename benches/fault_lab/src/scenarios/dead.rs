//! The dependency refuses all connections, at once: its process is gone.

use super::{Scenario, usual};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "dead",
        what: "connections are refused for 30 s",
        source: "a crashed process; \"Integration Points\" in M. Nygard, Release It!",
        plan: usual(Mode::Refuses),
    }
}
