//! A brown-out with a thousand clients, each of which makes a call every four seconds. No client
//! sees enough of the outage for a failure rate, and the retries that each may send add up.

use super::{Scenario, base_plan};
use crate::sim::{Mode, Users};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Fails(0.5));
    plan.users = Users::with_clients(1000);
    Scenario {
        name: "brown-out, fleet",
        summary: "half of the calls of 1000 small clients fail for 30 s",
        source: "retry budgets per client: B. Beyer et al., Site Reliability Engineering, chapter 21",
        plan,
    }
}
