//! One of a thousand clients, which has no stack, sends three times as many requests as all others
//! together.

use super::{Scenario, base_plan};
use crate::sim::{Mode, Route, Shape, Users};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Healthy);
    plan.changes.clear();
    plan.users = Users::with_clients(1000);
    plan.routes.push(Route { shape: Shape::Only(30..60), abuser: Some(0), ..Route::new("abuse", 0, 840.0) });
    Scenario {
        name: "abusive client",
        summary: "one of 1000 clients sends three times the load of all others together, for 30 s",
        source: "\"Per-Customer Limits\": B. Beyer et al., Site Reliability Engineering, chapter 21",
        plan,
    }
}
