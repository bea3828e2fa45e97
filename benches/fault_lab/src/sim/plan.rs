use std::ops::Range;

use super::{Dist, Mode};

/// A system and the changes it goes through.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The length of the run, in seconds.
    pub seconds: u64,
    /// The services. A service may call only later ones.
    pub services: Vec<Service>,
    /// The streams of user requests.
    pub routes: Vec<Route>,
    /// The users.
    pub users: Users,
    /// Changes to the services during the run.
    pub changes: Vec<Change>,
    /// The start and end of the incident's trigger, in seconds; the end is `None` if the trigger
    /// stays.
    pub trigger: Option<(u64, Option<u64>)>,
}

/// A service: one or several instances behind a load balancer, in the network or in the client.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// The number of instances.
    pub instances: usize,
    /// Whether clients balance between the instances themselves, by requests in flight. Otherwise
    /// the network does, round robin.
    pub balanced_by_client: bool,
    /// Requests that an instance handles concurrently.
    pub workers: usize,
    /// The most requests that may wait for a worker; further requests are rejected.
    pub queue: usize,
    /// The most connections that an instance keeps open, one per request; further connections are
    /// refused.
    pub connections: usize,
    /// Whether a request is dropped when its caller disconnects, as in an HTTP server whose
    /// handlers call other services. Otherwise it runs to completion and the result is discarded,
    /// as behind a proxy or in a thread of its own.
    pub cancels_on_disconnect: bool,
    /// The service time.
    pub time: Dist,
    /// Slowdown under load: with a full queue, work takes longer by this factor (1 doubles it).
    pub thrash: f64,
    /// The share of requests that fail even when the service is healthy.
    pub background_failures: f64,
    /// The service that a request of this route calls while its worker waits, or `None`.
    pub calls: fn(route: u32) -> Option<usize>,
}

impl Service {
    /// One instance with 20 workers and 50 ms of work (exponential), which is a capacity of 400
    /// requests a second, a queue of 2000 requests (5 s), and 4000 connections: typical of a server
    /// whose queue was never sized.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            instances: 1,
            balanced_by_client: false,
            workers: 20,
            queue: 2000,
            connections: 4000,
            cancels_on_disconnect: false,
            time: Dist::Exponential(50.0),
            thrash: 0.0,
            background_failures: 0.001,
            calls: |_| None,
        }
    }
}

/// A stream of user requests.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name.
    pub name: &'static str,
    /// The service that handles them.
    pub service: usize,
    /// The average rate, in requests per second.
    pub rate: f64,
    /// How the rate varies.
    pub shape: Shape,
    /// Whether no change affects the services it needs, so that its goodput should not suffer.
    pub healthy: bool,
    /// The client that sends all of these requests, if the route models an abuser: it has no stack,
    /// and its goodput is not measured.
    pub abuser: Option<u32>,
}

impl Route {
    /// A steady stream.
    pub fn new(name: &'static str, service: usize, rate: f64) -> Self {
        Self { name, service, rate, shape: Shape::Steady, healthy: false, abuser: None }
    }
}

/// How an arrival rate varies. Arrivals are always Poisson.
#[derive(Clone, Debug)]
pub enum Shape {
    /// Constant.
    Steady,
    /// Multiplied by `factor` during these seconds.
    Burst {
        /// The seconds of the burst.
        at: Range<u64>,
        /// The multiplier.
        factor: f64,
    },
    /// Zero outside of these seconds.
    Only(Range<u64>),
    /// A daily curve: the rate at night is a fifth of the rate at noon.
    Daily,
}

impl Shape {
    /// The factor at a point in time, in seconds.
    pub fn factor(&self, second: f64) -> f64 {
        match self {
            Self::Steady => 1.0,
            Self::Burst { at, factor } => {
                if within(at, second) {
                    *factor
                } else {
                    1.0
                }
            }
            Self::Only(at) => {
                if within(at, second) {
                    1.0
                } else {
                    0.0
                }
            }
            Self::Daily => 0.6 - 0.4 * libm::cos(second / 86_400.0 * std::f64::consts::TAU),
        }
    }

    /// The largest factor.
    pub fn peak(&self) -> f64 {
        match self {
            Self::Burst { factor, .. } => factor.max(1.0),
            Self::Steady | Self::Only(_) | Self::Daily => 1.0,
        }
    }
}

fn within(seconds: &Range<u64>, second: f64) -> bool {
    (seconds.start as f64..seconds.end as f64).contains(&second)
}

/// The users, and the clients that send their requests.
#[derive(Clone, Debug)]
pub struct Users {
    /// Independent clients (processes, hosts), each with its own stack.
    pub clients: u32,
    /// A response after this many milliseconds is too late.
    pub in_time: u64,
    /// A user leaves after this many milliseconds; the client then drops the call.
    pub patience: u64,
    /// The probability that a user without a timely response retries manually.
    pub retry_probability: f64,
    /// The most manual retries per user.
    pub max_retries: u32,
    /// The pause before a manual retry.
    pub think_time: Dist,
}

impl Users {
    /// This many clients, whose users expect a response within two seconds and leave after three.
    /// Half of those without a timely response retry once, manually.
    pub fn with_clients(clients: u32) -> Self {
        Self {
            clients,
            in_time: 2000,
            patience: 3000,
            retry_probability: 0.5,
            max_retries: 1,
            think_time: Dist::Uniform(500.0, 3000.0),
        }
    }
}

/// A temporary change of mode of some instances of a service.
#[derive(Clone, Debug)]
pub struct Change {
    /// The service.
    pub service: usize,
    /// The affected instances.
    pub instances: Range<usize>,
    /// Its start and end, in seconds.
    pub at: Range<u64>,
    /// The mode they change to.
    pub mode: Mode,
}
