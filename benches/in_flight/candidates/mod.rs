//! The layers and stacks that are measured.

#[cfg(feature = "http")]
mod http;
mod plain;

use std::{fmt::Debug, time::Duration};

use tower::Service;
use tower_rampart::{
    bulkhead::Bulkhead,
    rate_limit::{Rate, RateLimiter},
    retry::Retry,
    timeout::Timeout,
};

use crate::{
    footprint::Footprint,
    held::{Held, Request},
    sustained::Sustained,
};

/// Longer than any measurement: no call times out.
const LIMIT: Duration = Duration::from_secs(10);
/// More than the calls that any measurement has in flight.
const PERMITS: u32 = 1_000_000;

pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    pub(crate) footprint: Box<dyn Fn() -> Footprint>,
    /// Keeps this many calls in flight for this time.
    pub(crate) sustain: Box<dyn Fn(usize, Duration) -> Sustained>,
}

impl Candidate {
    fn new<S, R>(name: &'static str, make: impl Fn(Held) -> S + Clone + 'static) -> Self
    where
        S: Service<R, Response: Send, Error: Debug + Send, Future: Send> + Send + 'static,
        R: Request,
    {
        let footprint = make.clone();
        Self {
            name,
            footprint: Box::new(move || Footprint::of(&footprint)),
            sustain: Box::new(move |in_flight, time| Sustained::of(&make, in_flight, time)),
        }
    }

    pub(crate) fn is_bare(&self) -> bool {
        self.name.starts_with("bare")
    }

    pub(crate) fn is_ours(&self) -> bool {
        !self.is_bare() && !self.name.starts_with("tower")
    }
}

/// Returns the candidates, a table each for plain calls and for HTTP. The bare service is first.
pub(crate) fn tables() -> Vec<Vec<Candidate>> {
    vec![
        plain::all(),
        #[cfg(feature = "http")]
        http::all(),
    ]
}

fn timeout() -> Timeout {
    Timeout::new("t", LIMIT)
}

fn retry() -> Retry {
    Retry::attempts("r", 3).unwrap()
}

fn bulkhead() -> Bulkhead {
    Bulkhead::new("k", PERMITS).unwrap()
}

fn limiter() -> RateLimiter {
    RateLimiter::new("l", Rate::per_second(60_000_000)).unwrap()
}
