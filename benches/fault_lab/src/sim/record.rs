use hdrhistogram::Histogram;

use super::{Plan, Request};

/// The record of a run, by second.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// By route, whether its requests are measured; an abuser's are not.
    pub measured: Vec<bool>,
    /// By route, then by the second in which a request was sent.
    pub routes: Vec<Vec<RouteSecond>>,
    /// By service, then by second.
    pub services: Vec<Vec<ServiceSecond>>,
    /// By service, the calls that reached it per tenth of a second.
    pub tenths: Vec<Vec<u32>>,
    /// By client: requests sent, and requests answered in time.
    pub clients: Vec<(u64, u64)>,
    /// The latency of the timely responses, in milliseconds.
    pub latency: Option<Histogram<u64>>,
}

/// A second of a route.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteSecond {
    /// Requests sent.
    pub requests: u32,
    /// Requests answered in time.
    pub good: u32,
    /// Requests rejected by a layer, counted in the second of the rejection.
    pub rejected: u32,
    /// Total milliseconds that users without a timely response waited.
    pub wasted_wait: u64,
}

/// A second of a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceSecond {
    /// Calls that reached the service.
    pub calls: u32,
    /// Milliseconds of completed work.
    pub work: u64,
    /// The part of it done for callers that had left.
    pub wasted: u64,
}

impl Record {
    pub(super) fn new(plan: &Plan) -> Self {
        let seconds = plan.seconds as usize + 1;
        Self {
            measured: plan.routes.iter().map(|route| route.abuser.is_none()).collect(),
            routes: vec![vec![RouteSecond::default(); seconds]; plan.routes.len()],
            services: vec![vec![ServiceSecond::default(); seconds]; plan.services.len()],
            tenths: vec![vec![0; seconds * 10]; plan.services.len()],
            clients: vec![(0, 0); plan.users.clients as usize],
            latency: Some(Histogram::new_with_bounds(1, 1_000_000, 3).expect("the bounds are valid")),
        }
    }

    fn route(&mut self, at: u64, request: Request) -> &mut RouteSecond {
        &mut self.routes[request.route as usize][at as usize / 1000]
    }

    fn service(&mut self, at: u64, service: usize) -> &mut ServiceSecond {
        &mut self.services[service][at as usize / 1000]
    }

    pub(super) fn requested(&mut self, at: u64, request: Request) {
        self.route(at, request).requests += 1;
        if self.measured[request.route as usize] {
            self.clients[request.client as usize].0 += 1;
        }
    }

    pub(super) fn answered(&mut self, at: u64, request: Request, took: u64, good: bool, rejected: bool) {
        self.route(at + took, request).rejected += u32::from(rejected);
        let second = self.route(at, request);
        second.good += u32::from(good);
        second.wasted_wait += if good { 0 } else { took };
        if good && self.measured[request.route as usize] {
            self.clients[request.client as usize].1 += 1;
            if let Some(latency) = &mut self.latency {
                latency.saturating_record(took.max(1));
            }
        }
    }

    pub(super) fn called(&mut self, at: u64, service: usize) {
        self.service(at, service).calls += 1;
        self.tenths[service][at as usize / 100] += 1;
    }

    pub(super) fn worked(&mut self, at: u64, service: usize, millis: u64) {
        self.service(at, service).work += millis;
    }

    pub(super) fn wasted(&mut self, at: u64, service: usize, millis: u64) {
        self.service(at, service).wasted += millis;
    }
}
