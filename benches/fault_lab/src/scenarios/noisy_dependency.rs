//! A front-end service with 100 workers serves two routes: one needs a healthy dependency, the
//! other one that hangs. Workers that wait for the second are not available to the first.

use super::{Scenario, base_plan};
use crate::sim::{Change, Dist, Mode, Route, Service};

pub(super) fn scenario() -> Scenario {
    let mut plan = base_plan(Mode::Hangs);
    let front = Service {
        workers: 100,
        time: Dist::Exponential(10.0),
        calls: |route| Some(1 + route as usize),
        ..Service::new("front")
    };
    plan.services = vec![front, Service::new("healthy"), Service::new("sick")];
    plan.routes = vec![Route { healthy: true, ..Route::new("healthy", 0, 200.0) }, Route::new("sick", 0, 80.0)];
    plan.changes = vec![Change { service: 2, instances: 0..1, at: 30..60, mode: Mode::Hangs }];
    Scenario {
        name: "noisy dependency",
        summary: "one of a front-end service's two dependencies hangs for 30 s",
        source: "\"Bulkheads\" in M. Nygard, Release It!",
        plan,
    }
}
