//! Half of the calls fail, after the usual work: one of two databases behind the service is down.

use super::{Scenario, base_plan};
use crate::sim::Mode;

pub(super) fn scenario() -> Scenario {
    Scenario {
        name: "brown-out",
        summary: "half of the calls fail for 30 s",
        source: "P. Huang et al., Gray Failure: The Achilles' Heel of Cloud-Scale Systems, HotOS 2017",
        plan: base_plan(Mode::Fails(0.5)),
    }
}
