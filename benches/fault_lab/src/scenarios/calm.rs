//! A day without an incident: the load follows a daily curve, the work has a heavy tail, and 0.1%
//! of the requests fail. Any rejection is a false one.

use super::{Scenario, base_plan};
use crate::sim::{Dist, Mode, Shape};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Healthy);
    plan.changes.clear();
    plan.trigger = None;
    plan.seconds = 86_400;
    plan.users.clients = 10;
    plan.routes[0].rate = 20.0;
    plan.routes[0].shape = Shape::Daily;
    // A mean of a little under 50 ms, a maximum of one second.
    plan.services[0].time = Dist::HeavyTail { min: 18.0, max: 1000.0 };
    Scenario { name: "calm", summary: "a day of ordinary load", source: "every other day", plan }
}
