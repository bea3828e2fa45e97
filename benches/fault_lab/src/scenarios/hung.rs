//! The dependency accepts requests and never responds: a deadlock, a full disk, a lost packet
//! filter.

use super::{Scenario, base_plan};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "hung",
        summary: "requests are accepted and not answered for 30 s",
        source: "\"Blocked Threads\" in M. Nygard, Release It!",
        plan: base_plan(Mode::Hangs),
    }
}
