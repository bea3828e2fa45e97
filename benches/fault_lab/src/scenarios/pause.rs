//! The server pauses for ten seconds: garbage collection, or a migration to another host. Requests
//! that arrive meanwhile are queued, and by the time they are handled their callers have left.

use super::{Scenario, base_plan};
use crate::sim::{Change, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Healthy);
    plan.changes = vec![Change { service: 0, instances: 0..1, at: 30..40, mode: Mode::Paused }];
    plan.trigger = Some((30, Some(40)));
    Scenario {
        name: "pause",
        summary: "the server pauses for 10 s",
        source: "stop-the-world pauses; J. Dean and L. Barroso, The Tail at Scale, CACM 2013",
        plan,
    }
}
