//! The server stands still for ten seconds: a collection of garbage, a move to another host. What came meanwhile is
//! waiting, and nobody waits for it.

use super::{Scenario, usual};
use crate::sim::{Change, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    plan.changes = vec![Change { service: 0, instances: 0..1, at: 30..40, mode: Mode::Paused }];
    plan.cause = Some((30, Some(40)));
    Scenario {
        name: "pause",
        what: "the server stands still for 10 s",
        source: "stop-the-world pauses; J. Dean and L. Barroso, The Tail at Scale, CACM 2013",
        plan,
    }
}
