//! Twice the usual load for ten seconds, then the usual load again. By then the queue is full,
//! every user waits longer than their patience, and their retries keep it full: the system does not
//! recover by itself.

use super::{Scenario, base_plan};
use crate::sim::{Mode, Shape};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Healthy);
    plan.changes.clear();
    // A full queue also takes memory and lookup time.
    plan.services[0].thrash = 0.5;
    plan.routes[0].shape = Shape::Burst { at: 30..40, factor: 2.0 };
    plan.trigger = Some((30, Some(40)));
    plan.seconds = 150;
    Scenario {
        name: "metastable",
        summary: "twice the usual load for 10 s",
        source: "N. Bronson et al., Metastable Failures in Distributed Systems, HotOS 2021",
        plan,
    }
}
