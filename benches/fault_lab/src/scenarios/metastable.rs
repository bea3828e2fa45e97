//! Ten seconds of twice the users, and then no more than before. The queue is full by then, all wait longer for an answer
//! than they care to, and what they do about it keeps it full: the system does not come back by itself.

use super::{Scenario, usual};
use crate::sim::{Mode, Shape};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    plan.changes.clear();
    // With a full queue there is also less memory, and more to look through.
    plan.services[0].thrash = 0.5;
    plan.routes[0].shape = Shape::Burst { at: 30..40, factor: 2.0 };
    plan.cause = Some((30, Some(40)));
    plan.seconds = 150;
    Scenario {
        name: "metastable",
        what: "twice the users for 10 s",
        source: "N. Bronson et al., Metastable Failures in Distributed Systems, HotOS 2021",
        plan,
    }
}
