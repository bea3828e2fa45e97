//! Dead for half a minute, and most users try three times before they leave. Afterwards the caches
//! are cold, so that work takes twice as long at first; the trigger ends when they are warm.

use super::{Scenario, base_plan};
use crate::sim::{Dist, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::RefusesThenCold(5, 2.0));
    plan.routes[0].rate = 200.0;
    plan.users.retry_probability = 0.8;
    plan.users.max_retries = 2;
    plan.users.think_time = Dist::Uniform(1000.0, 4000.0);
    plan.trigger = Some((30, Some(65)));
    Scenario {
        name: "herd",
        summary: "dead for 30 s, users keep retrying, caches are cold for 5 s",
        source: "M. Brooker, Timeouts, retries and backoff with jitter, Amazon Builders' Library",
        plan,
    }
}
