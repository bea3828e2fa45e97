//! The measurements, and the expectations that they must meet.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use hdrhistogram::Histogram;
use tokio::time::Instant;
use tower_rampart::event::CircuitState;

use crate::{
    options::{Options, Phases},
    system::{Gauges, Path, Protection},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Catalog,
    Checkout,
}

impl Route {
    pub fn path(self) -> Path {
        Path(self.name())
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Catalog => "/catalog",
            Self::Checkout => "/checkout",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Served,
    Degraded,
    Error,
    TimedOut,
}

/// One attempt of one user.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    /// The start of the attempt, relative to the start of the run.
    pub at: Duration,
    pub took: Duration,
    pub route: Route,
    pub attempt: u32,
    pub answer: Answer,
}

/// A sample of the gauges.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    pub at: Duration,
    pub in_flight: usize,
    pub circuit: Option<CircuitState>,
}

#[derive(Clone)]
pub struct Recorder(Arc<Inner>);

struct Inner {
    start: Instant,
    records: Mutex<Vec<Record>>,
    samples: Mutex<Vec<Sample>>,
    waiting: AtomicUsize,
}

/// A user waiting for a response.
pub struct Waiting(Recorder);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Recorder {
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            start: Instant::now(),
            records: Mutex::default(),
            samples: Mutex::default(),
            waiting: AtomicUsize::new(0),
        }))
    }

    pub fn elapsed(&self) -> Duration {
        self.0.start.elapsed()
    }

    pub fn arrive(&self) -> Waiting {
        self.0.waiting.fetch_add(1, SeqCst);
        Waiting(self.clone())
    }

    pub fn record(&self, route: Route, attempt: u32, started: Instant, answer: Answer) {
        let record = Record { at: started - self.0.start, took: started.elapsed(), route, attempt, answer };
        self.0.records.lock().unwrap().push(record);
    }

    pub fn sample(&self, gauges: &Gauges) -> Sample {
        let sample = Sample { at: self.elapsed(), in_flight: gauges.in_flight(), circuit: gauges.circuit() };
        self.0.samples.lock().unwrap().push(sample);
        sample
    }

    pub fn waiting(&self) -> usize {
        self.0.waiting.load(SeqCst)
    }

    /// Returns the records of attempts that ended after `since`.
    pub fn ended_since(&self, since: Duration) -> Vec<Record> {
        let records = self.0.records.lock().unwrap();
        records.iter().rev().take_while(|record| record.at + record.took >= since).copied().collect()
    }

    pub fn finish(self, protection: Protection, gauges: &Gauges) -> Run {
        Run {
            protection,
            records: std::mem::take(&mut self.0.records.lock().unwrap()),
            samples: std::mem::take(&mut self.0.samples.lock().unwrap()),
            payments_calls_while_down: gauges.payments_calls_while_down(),
        }
    }
}

/// The results of a run.
pub struct Run {
    pub protection: Protection,
    pub records: Vec<Record>,
    pub samples: Vec<Sample>,
    pub payments_calls_while_down: usize,
}

/// The users of a route in a phase, and the number of those who got a response.
#[derive(Clone, Copy, Debug, Default)]
pub struct Goodput {
    pub users: usize,
    pub full: usize,
    pub degraded: usize,
}

impl Goodput {
    /// Returns the percentage of users with a full or a fallback response.
    pub fn percent(&self) -> f64 {
        100.0 * (self.full + self.degraded) as f64 / self.users.max(1) as f64
    }

    /// Returns the percentage of users with a full response.
    pub fn full_percent(&self) -> f64 {
        100.0 * self.full as f64 / self.users.max(1) as f64
    }
}

impl Run {
    /// Returns the goodput of the users who arrived in a time span: those with a timely response to
    /// their first attempt.
    pub fn goodput(&self, route: Option<Route>, from: Duration, to: Duration) -> Goodput {
        let mut goodput = Goodput::default();
        let first = |record: &&Record| record.attempt == 1 && (from..to).contains(&record.at);
        for record in self.records.iter().filter(first).filter(|record| route.is_none_or(|route| record.route == route))
        {
            goodput.users += 1;
            match record.answer {
                Answer::Served => goodput.full += 1,
                Answer::Degraded => goodput.degraded += 1,
                Answer::Error | Answer::TimedOut => {}
            }
        }
        goodput
    }

    /// Returns a quantile of the users' waits, whatever the outcome.
    pub fn latency(&self, route: Route, from: Duration, to: Duration, quantile: f64) -> Duration {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, 10_000_000, 3).expect("the bounds are valid");
        for record in self.records.iter().filter(|record| record.route == route && (from..to).contains(&record.at)) {
            histogram.saturating_record(record.took.as_micros() as u64);
        }
        Duration::from_micros(histogram.value_at_quantile(quantile))
    }

    pub fn peak_in_flight(&self) -> usize {
        self.samples.iter().map(|sample| sample.in_flight).max().unwrap_or(0)
    }

    /// Returns the time from the end of the fault until at least 99% of users get full responses
    /// for at least half a second.
    pub fn recovery(&self, phases: Phases) -> Option<Duration> {
        const STEP: Duration = Duration::from_millis(100);
        let mut at = phases.recovered;
        while at + 5 * STEP <= phases.end {
            if self.goodput(None, at, at + 5 * STEP).full_percent() >= 99.0 {
                return Some(at - phases.recovered);
            }
            at += STEP;
        }
        None
    }
}

/// Returns the expectations that are not met, as sentences.
pub fn verify(options: &Options, bare: &Run, protected: &Run) -> Vec<String> {
    let phases = options.phases();
    let mut complaints = Vec::new();
    let mut expect = |holds: bool, complaint: String| {
        if !holds {
            complaints.push(complaint);
        }
    };
    for run in [bare, protected] {
        let healthy = run.goodput(None, Duration::ZERO, phases.fault).full_percent();
        let name = run.protection.name();
        expect(healthy >= 99.0, format!("the {name} run is unhealthy before the fault: goodput {healthy:.1}%"));
    }
    let (fault, recovered) = (phases.fault, phases.recovered);
    let cascade = bare.goodput(Some(Route::Catalog), fault, recovered).percent();
    expect(cascade < 80.0, format!("no cascade in the bare run: /catalog keeps {cascade:.1}% of its goodput"));
    let catalog = protected.goodput(Some(Route::Catalog), fault, recovered).full_percent();
    expect(catalog >= 99.0, format!("protected, /catalog keeps only {catalog:.2}% of its goodput during the fault"));
    let checkout = protected.goodput(Some(Route::Checkout), fault, recovered).percent();
    expect(
        checkout >= 99.0,
        format!("protected, only {checkout:.2}% of /checkout requests get a response during the fault"),
    );
    let p99 = protected.latency(Route::Checkout, fault, recovered, 0.99);
    expect(p99 <= Duration::from_millis(500), format!("protected, /checkout's fallback takes {p99:?} (p99)"));
    let recovery = protected.recovery(phases);
    let in_time = recovery.is_some_and(|recovery| recovery <= Duration::from_secs(2));
    expect(in_time, format!("protected, full goodput returned after {recovery:?}, not within 2 s"));
    complaints
}
