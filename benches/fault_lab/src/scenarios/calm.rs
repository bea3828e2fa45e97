//! A day on which nothing happens: the load follows the sun, the work has a heavy tail, a tenth of a percent fails. Whoever
//! is refused was refused wrongly.

use super::{Scenario, usual};
use crate::sim::{Dist, Mode, Shape};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    plan.changes.clear();
    plan.cause = None;
    plan.seconds = 86_400;
    plan.users.clients = 10;
    plan.routes[0].rate = 20.0;
    plan.routes[0].shape = Shape::Daily;
    // On average a little below 50 ms, at the longest a second.
    plan.services[0].time = Dist::HeavyTail { min: 18.0, max: 1000.0 };
    Scenario { name: "calm", what: "a day of ordinary noise", source: "every other day", plan }
}
