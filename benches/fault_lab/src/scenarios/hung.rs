//! The dependency takes requests and never answers: a deadlock, a full disk, a lost packet filter.

use super::{Scenario, usual};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "hung",
        what: "requests are taken and not answered for 30 s",
        source: "\"Blocked Threads\" in M. Nygard, Release It!",
        plan: usual(Mode::Hangs),
    }
}
