use hdrhistogram::Histogram;

use super::{Plan, Request};

/// What happened in a run, second by second.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// By route, whether it matters what becomes of its requests.
    pub minded: Vec<bool>,
    /// By route, then by the second in which a request was made.
    pub routes: Vec<Vec<RouteSecond>>,
    /// By service, then by the second in which it happened.
    pub services: Vec<Vec<ServiceSecond>>,
    /// Calls that reached a service, by tenths of a second.
    pub tenths: Vec<Vec<u32>>,
    /// By client: requests made, and those answered in time.
    pub clients: Vec<(u64, u64)>,
    /// How long the good answers took, in milliseconds.
    pub latency: Option<Histogram<u64>>,
}

/// The requests of a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteSecond {
    /// Made.
    pub requests: u32,
    /// Answered in time.
    pub good: u32,
    /// Ended by the refusal of a layer; in the second in which that was.
    pub refused: u32,
    /// Milliseconds that those waited in all who got no answer in time.
    pub in_vain: u64,
}

/// A second of a service.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServiceSecond {
    /// Calls that reached it.
    pub calls: u32,
    /// Milliseconds of its workers that came to their end.
    pub work: u64,
    /// Of these, for callers who had left.
    pub wasted: u64,
}

impl Record {
    pub(super) fn new(plan: &Plan) -> Self {
        let seconds = plan.seconds as usize + 1;
        Self {
            minded: plan.routes.iter().map(|route| route.abuser.is_none()).collect(),
            routes: vec![vec![RouteSecond::default(); seconds]; plan.routes.len()],
            services: vec![vec![ServiceSecond::default(); seconds]; plan.services.len()],
            tenths: vec![vec![0; seconds * 10]; plan.services.len()],
            clients: vec![(0, 0); plan.users.clients as usize],
            latency: Some(Histogram::new_with_bounds(1, 1_000_000, 3).expect("these bounds are valid")),
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
        if self.minded[request.route as usize] {
            self.clients[request.client as usize].0 += 1;
        }
    }

    pub(super) fn answered(&mut self, at: u64, request: Request, took: u64, good: bool, refused: bool) {
        self.route(at + took, request).refused += u32::from(refused);
        let second = self.route(at, request);
        second.good += u32::from(good);
        second.in_vain += if good { 0 } else { took };
        if good && self.minded[request.route as usize] {
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
