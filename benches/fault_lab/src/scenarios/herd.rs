//! Dead for half a minute, and most users ask three times before they give up. When it is back its caches are cold, so that
//! work takes twice as long at first; the cause is gone when they are warm.

use super::{Scenario, usual};
use crate::sim::{Dist, Mode};

pub(super) fn scenario() -> Scenario {
    let mut plan = usual(Mode::RefusesThenCold(5, 2.0));
    plan.routes[0].rate = 200.0;
    plan.users.again = 0.8;
    plan.users.times = 2;
    plan.users.think = Dist::Uniform(1000.0, 4000.0);
    plan.cause = Some((30, Some(65)));
    Scenario {
        name: "herd",
        what: "dead for 30 s, users insist, caches are cold for 5 s",
        source: "M. Brooker, Timeouts, retries and backoff with jitter, Amazon Builders' Library",
        plan,
    }
}
