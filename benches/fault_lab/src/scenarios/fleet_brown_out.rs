//! The same with a thousand clients, each of which makes a call every four seconds: none sees enough of the outage for a
//! rate, and what each may add to the load adds up.

use super::{Scenario, usual};
use crate::sim::{Mode, Users};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::Fails(0.5));
    plan.users = Users::of(1000);
    Scenario {
        name: "brown-out, fleet",
        what: "half of the calls of 1000 small clients fail for 30 s",
        source: "retry budgets per client: B. Beyer et al., Site Reliability Engineering, chapter 21",
        plan,
    }
}
