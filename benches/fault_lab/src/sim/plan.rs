use std::ops::Range;

use super::{Dist, Mode};

/// A system and what befalls it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long it is watched, in seconds.
    pub seconds: u64,
    /// The services. A service may call only later ones.
    pub services: Vec<Service>,
    /// What users ask for.
    pub routes: Vec<Route>,
    /// Who asks.
    pub users: Users,
    /// What befalls the services.
    pub changes: Vec<Change>,
    /// When the cause of trouble is there, in seconds; its end is `None` if it stays.
    pub cause: Option<(u64, Option<u64>)>,
}

/// A service: one or several instances behind a load balancer of the network, or of the client.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its name.
    pub name: &'static str,
    /// Instances.
    pub instances: usize,
    /// Whether the clients balance between the instances themselves, by requests in flight. Otherwise the network does, in
    /// turn.
    pub balanced_by_client: bool,
    /// Requests that an instance works on at once.
    pub workers: usize,
    /// Requests that wait for a worker, at most; one more is turned away.
    pub queue: usize,
    /// Requests whose connections an instance holds open, at most; one more is refused a connection.
    pub connections: usize,
    /// Whether an instance hears of it when a caller leaves, as an HTTP server does that calls others itself: the request
    /// is dropped then. Otherwise it goes on, for nobody, as behind a proxy or in a thread of its own.
    pub hears: bool,
    /// How long the work takes.
    pub time: Dist,
    /// Slowdown under load: with a queue as long as `queue`, work takes this much longer (1 is twice as long).
    pub thrash: f64,
    /// The share of requests that fail for no particular reason.
    pub noise: f64,
    /// What it calls, while the worker waits, for each route. `None` if it needs nothing.
    pub calls: fn(route: u32) -> Option<usize>,
}

impl Service {
    /// One instance of 20 workers and 50 ms exponential, so 400 a second, and a queue of 2000, so 5 s, and 4000 connections:
    /// what servers have whose queue nobody thought of.
    pub fn new(name: &'static str) -> Self {
        Self {
            name,
            instances: 1,
            balanced_by_client: false,
            workers: 20,
            queue: 2000,
            connections: 4000,
            hears: false,
            time: Dist::Exponential(50.0),
            thrash: 0.0,
            noise: 0.001,
            calls: |_| None,
        }
    }
}

/// A stream of requests.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name.
    pub name: &'static str,
    /// The service that answers.
    pub service: usize,
    /// Requests per second, on average.
    pub rate: f64,
    /// How the rate changes.
    pub shape: Shape,
    /// Whether nothing that befalls the services concerns it, so that it should not suffer.
    pub healthy: bool,
    /// The one client that asks, if it is one that knows no manners: it has no stack, and nobody cares what it gets.
    pub abuser: Option<u32>,
}

impl Route {
    /// A steady stream.
    pub fn new(name: &'static str, service: usize, rate: f64) -> Self {
        Self { name, service, rate, shape: Shape::Steady, healthy: false, abuser: None }
    }
}

/// How a rate of arrivals changes. Arrivals are always Poisson.
#[derive(Clone, Debug)]
pub enum Shape {
    /// It does not.
    Steady,
    /// Times `factor` in these seconds.
    Burst {
        /// When.
        at: Range<u64>,
        /// How much.
        factor: f64,
    },
    /// Nothing but in these seconds.
    Only(Range<u64>),
    /// A day's curve: at night a fifth of noon.
    Daily,
}

impl Shape {
    /// The factor at a time in seconds.
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

/// Those who ask.
#[derive(Clone, Debug)]
pub struct Users {
    /// Independent clients (processes, hosts), each with a stack of its own.
    pub clients: u32,
    /// An answer after so many milliseconds is too late.
    pub in_time: u64,
    /// A user leaves after so many milliseconds; what the client has begun is dropped.
    pub patience: u64,
    /// How likely a user who got nothing in time asks again by hand.
    pub again: f64,
    /// How often at most.
    pub times: u32,
    /// After how long.
    pub think: Dist,
}

impl Users {
    /// So many clients, whose users want an answer within two seconds, leave after three, and then half the time ask once
    /// more by hand.
    pub fn of(clients: u32) -> Self {
        Self { clients, in_time: 2000, patience: 3000, again: 0.5, times: 1, think: Dist::Uniform(500.0, 3000.0) }
    }
}

/// Something that befalls instances of a service for a time.
#[derive(Clone, Debug)]
pub struct Change {
    /// The service.
    pub service: usize,
    /// Its instances.
    pub instances: Range<usize>,
    /// When, in seconds.
    pub at: Range<u64>,
    /// What.
    pub mode: Mode,
}
