//! One of a thousand clients, and one without any of this in it, asks three times as much as all others together.

use super::{Scenario, usual};
use crate::sim::{Mode, Route, Shape, Users};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Well);
    plan.changes.clear();
    plan.users = Users::of(1000);
    plan.routes.push(Route { shape: Shape::Only(30..60), abuser: Some(0), ..Route::new("abuse", 0, 840.0) });
    Scenario {
        name: "abusive client",
        what: "one of 1000 clients asks three times as much as all others together, for 30 s",
        source: "\"Per-Customer Limits\": B. Beyer et al., Site Reliability Engineering, chapter 21",
        plan,
    }
}
