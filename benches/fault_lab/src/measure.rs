//! Figures computed from a run's record.

use std::{fmt, ops::Range};

use crate::sim::{Plan, Record};

/// The system has recovered when, in every later window of five seconds, the share of requests
/// answered in time reaches this fraction of the share before the trigger.
const RECOVERED: f64 = 0.99;
const WINDOW: usize = 5;
/// The last seconds of a run, whose requests have no time to be answered.
const LAST: u64 = 4;

/// How long a system took to recover.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recovery {
    /// The trigger does not end.
    NotApplicable,
    /// This many seconds after the end of the trigger.
    After(u64),
    /// Not within the run.
    Never,
}

impl Recovery {
    /// Whether the system recovered within this many seconds; true if the trigger does not end.
    pub fn within(self, seconds: u64) -> bool {
        match self {
            Self::NotApplicable => true,
            Self::After(took) => took <= seconds,
            Self::Never => false,
        }
    }
}

impl fmt::Display for Recovery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotApplicable => f.write_str("-"),
            Self::After(seconds) => write!(f, "{seconds} s"),
            Self::Never => f.write_str("never"),
        }
    }
}

/// The figures of a run.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The share of the requests sent during the trigger that were answered in time.
    pub during: f64,
    /// The same for requests sent after the end of the trigger.
    pub after: Option<f64>,
    /// The same for all requests from the start of the trigger.
    pub overall: f64,
    /// How long recovery took.
    pub recovery: Recovery,
    /// Calls that reached a service per request that needs it, from the start of the trigger until
    /// recovery: the largest of all services.
    pub amplification: f64,
    /// The share of the work done for callers that had left, from the start of the trigger.
    pub wasted: f64,
    /// The average wait, in milliseconds, of users without a timely response, from the start of the
    /// trigger.
    pub wasted_wait: f64,
    /// The latency of timely responses in milliseconds: p50, p99 and p99.9.
    pub latency: [u64; 3],
    /// Jain's fairness index of the clients' shares of requests answered in time: 1 is fair.
    pub fairness: f64,
    /// The peak call rate, per tenth of a second, in the ten seconds after the trigger, as a
    /// multiple of the average before it.
    pub spike: Option<f64>,
    /// The goodput of the worst unaffected route, from the start of the trigger.
    pub healthy: Option<f64>,
    /// Requests that were rejected before the trigger, while the system was healthy.
    pub false_rejections: u64,
    /// The share of requests answered in time, by second.
    pub goodput: Vec<f64>,
    /// The calls that reached the last service, by second.
    pub calls: Vec<u32>,
}

impl Figures {
    /// Computes the figures of a run.
    pub fn of(plan: &Plan, record: &Record) -> Self {
        let end = (plan.seconds - LAST) as usize;
        let (from, to) = match plan.trigger {
            Some((from, to)) => (from as usize, to.map(|to| to as usize)),
            None => (end, None),
        };
        let incident = if from == end { 0..end } else { from..end };
        let goodput: Vec<_> = (0..end).map(|second| good(record, None, second..second + 1)).collect();
        let services = 0..plan.services.len();
        let work = |count: fn(&crate::sim::ServiceSecond) -> u64| -> u64 {
            record.services.iter().flat_map(|seconds| &seconds[incident.clone()]).map(count).sum()
        };
        let recovery = recovery(record, from, to, end);
        let disturbed = match (to, recovery) {
            (Some(to), Recovery::After(seconds)) => from..(to + seconds as usize).max(from + 1),
            _ => incident.clone(),
        };
        let incident_of_all = || record.routes.iter().flat_map(|route| &route[incident.clone()]);
        let wasted_wait: u64 = incident_of_all().map(|second| second.wasted_wait).sum();
        let bad: u64 = incident_of_all().map(|second| u64::from(second.requests - second.good)).sum();
        let latency = record.latency.as_ref().expect("a run records latencies");
        Self {
            during: good(record, None, from..to.unwrap_or(end)),
            after: to.map(|to| good(record, None, to..end)),
            overall: good(record, None, incident.clone()),
            recovery,
            amplification: services.map(|service| amplification(plan, record, service, &disturbed)).fold(0.0, f64::max),
            wasted_wait: wasted_wait as f64 / bad.max(1) as f64,
            wasted: work(|second| second.wasted) as f64 / work(|second| second.work).max(1) as f64,
            latency: [0.5, 0.99, 0.999].map(|share| latency.value_at_quantile(share)),
            fairness: fairness(&record.clients),
            spike: to.map(|to| spike(record, from, to)),
            healthy: (plan.routes.iter().enumerate())
                .filter(|(_, route)| route.healthy)
                .map(|(index, _)| good(record, Some(index), incident.clone()))
                .reduce(f64::min),
            false_rejections: record
                .routes
                .iter()
                .flat_map(|route| &route[..from])
                .map(|s| u64::from(s.rejected))
                .sum(),
            calls: record.services.last().expect("there is a service")[..end]
                .iter()
                .map(|second| second.calls)
                .collect(),
            goodput,
        }
    }
}

/// The share of requests answered in time, for one route or for all routes but an abuser's.
fn good(record: &Record, route: Option<usize>, seconds: Range<usize>) -> f64 {
    let routes = record.routes.iter().enumerate().filter(|(index, _)| match route {
        Some(route) => route == *index,
        None => record.measured[*index],
    });
    let (mut requests, mut good) = (0, 0);
    for second in routes.flat_map(|(_, all)| &all[seconds.clone()]) {
        requests += u64::from(second.requests);
        good += u64::from(second.good);
    }
    if requests == 0 { 1.0 } else { good as f64 / requests as f64 }
}

fn recovery(record: &Record, from: usize, to: Option<usize>, end: usize) -> Recovery {
    let Some(to) = to else { return Recovery::NotApplicable };
    let usual = good(record, None, from.saturating_sub(20)..from);
    let last = end - WINDOW;
    let healthy = |second: &usize| good(record, None, *second..*second + WINDOW) >= RECOVERED * usual;
    match (to..=last).rev().take_while(healthy).last() {
        Some(second) => Recovery::After((second - to) as u64),
        None => Recovery::Never,
    }
}

fn amplification(plan: &Plan, record: &Record, service: usize, seconds: &Range<usize>) -> f64 {
    let needs = |route: usize| {
        let path =
            std::iter::successors(Some(plan.routes[route].service), |at| (plan.services[*at].calls)(route as u32));
        path.into_iter().any(|at| at == service)
    };
    let requests: u64 = (0..plan.routes.len())
        .filter(|route| needs(*route))
        .flat_map(|route| &record.routes[route][seconds.clone()])
        .map(|second| u64::from(second.requests))
        .sum();
    let calls: u64 = record.services[service][seconds.clone()].iter().map(|second| u64::from(second.calls)).sum();
    calls as f64 / requests.max(1) as f64
}

fn spike(record: &Record, from: usize, to: usize) -> f64 {
    let tenths = record.tenths.last().expect("there is a service");
    let usual: u32 = tenths[..from * 10].iter().sum();
    let most = tenths[to * 10..(to * 10 + 100).min(tenths.len())].iter().max();
    f64::from(*most.unwrap_or(&0)) * (from * 10) as f64 / f64::from(usual.max(1))
}

fn fairness(clients: &[(u64, u64)]) -> f64 {
    let shares = || clients.iter().filter(|(asked, _)| *asked > 0).map(|(asked, got)| *got as f64 / *asked as f64);
    let (sum, squares) = (shares().sum::<f64>(), shares().map(|share| share * share).sum::<f64>());
    if squares == 0.0 { 1.0 } else { sum * sum / (shares().count() as f64 * squares) }
}
