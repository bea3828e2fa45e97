//! Half of the calls fail, after the usual work: one of two databases behind the service is gone.

use super::{Scenario, usual};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "brown-out",
        what: "half of the calls fail for 30 s",
        source: "P. Huang et al., Gray Failure: The Achilles' Heel of Cloud-Scale Systems, HotOS 2017",
        plan: usual(Mode::Fails(0.5)),
    }
}
