//! Measures candidates against each other in one run, in rounds, in a new order each round.
//!
//! A sample is a fixed time in which one or more threads concurrently do as many operations as they
//! can. The rounds of all candidates of a row are interleaved, so that noise affects all of them;
//! figures are medians, and ratios are computed per round. The time of an operation on one thread
//! is processor time, where the system has it.
#![allow(unreachable_pub)] // shared by benches, as modules
#![allow(clippy::disallowed_methods)] // the benchmarks' clock

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{rng, seq::SliceRandom};

use crate::{processor, statistics::median};

/// Does this many operations.
pub type Worker = Box<dyn FnMut(u64) + Send>;

/// Creates workers that share one instance.
pub type Instance = Box<dyn Fn() -> Worker + Send + Sync>;

pub struct Candidate {
    pub name: &'static str,
    /// Whether several threads may use one instance concurrently.
    pub threads: bool,
    make: Box<dyn Fn() -> Instance>,
}

impl Candidate {
    /// `make` creates an instance, which creates a worker for each thread.
    pub fn new<I>(name: &'static str, make: impl Fn() -> I + 'static) -> Self
    where
        I: Fn() -> Worker + Send + Sync + 'static,
    {
        Self { name, threads: true, make: Box::new(move || Box::new(make())) }
    }

    /// Returns a worker with its own instance.
    #[allow(dead_code)] // not every benchmark uses a single worker
    pub fn worker(&self) -> Worker {
        (self.make)()()
    }

    /// Like [`new`](Self::new), for an instance that threads cannot share.
    #[allow(dead_code)]
    pub fn single<I>(name: &'static str, make: impl Fn() -> I + 'static) -> Self
    where
        I: Fn() -> Worker + Send + Sync + 'static,
    {
        Self { threads: false, ..Self::new(name, make) }
    }
}

/// How a candidate is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Setting {
    /// This many threads on one instance.
    Shared(usize),
    /// Two threads with separate instances: the cost without contention.
    #[allow(dead_code)]
    Separate,
}

impl Setting {
    fn threads(self) -> usize {
        match self {
            Self::Shared(threads) => threads,
            Self::Separate => 2,
        }
    }
}

/// A candidate's measurements: nanoseconds per operation and thread, per round.
pub struct Measured {
    pub name: &'static str,
    settings: Vec<(Setting, Vec<f64>)>,
    /// Of the processor, on one thread. Empty where the system does not say.
    of_processor: Vec<f64>,
}

impl Measured {
    /// Returns the median nanoseconds per operation, as its thread sees it.
    pub fn nanos(&self, setting: Setting) -> Option<f64> {
        self.rounds(setting).map(median)
    }

    /// Returns million operations per second, of all threads together.
    pub fn rate(&self, setting: Setting) -> Option<f64> {
        self.elapsed(setting).map(|rounds| setting.threads() as f64 * 1e3 / median(rounds))
    }

    /// Returns nanoseconds per operation and round: of the processor where they are known.
    pub fn rounds(&self, setting: Setting) -> Option<&[f64]> {
        match setting {
            Setting::Shared(1) if !self.of_processor.is_empty() => Some(&self.of_processor),
            _ => self.elapsed(setting),
        }
    }

    fn elapsed(&self, setting: Setting) -> Option<&[f64]> {
        self.settings.iter().find(|(other, _)| *other == setting).map(|(_, rounds)| rounds.as_slice())
    }
}

#[derive(Clone, Copy)]
pub struct Effort {
    pub rounds: usize,
    pub sample: Duration,
}

impl Effort {
    pub const FULL: Self = Self { rounds: 31, sample: Duration::from_millis(8) };
    pub const QUICK: Self = Self { rounds: 1, sample: Duration::from_micros(200) };
}

pub fn measure(candidates: &[Candidate], settings: &[Setting], effort: Effort) -> Vec<Measured> {
    let mut all: Vec<Measured> = candidates.iter().map(|candidate| prepare(candidate, settings)).collect();
    let mut order: Vec<(usize, usize)> = (0..candidates.len())
        .flat_map(|candidate| (0..all[candidate].settings.len()).map(move |setting| (candidate, setting)))
        .collect();
    let instances: Vec<[Instance; 2]> =
        candidates.iter().map(|candidate| [(candidate.make)(), (candidate.make)()]).collect();
    for round in 0..=effort.rounds {
        order.shuffle(&mut rng());
        for &(candidate, setting) in &order {
            let measured = &mut all[candidate];
            let (setting, rounds) = &mut measured.settings[setting];
            let sample = sample(&instances[candidate], *setting, effort.sample);
            // The first round warms up.
            if round > 0 {
                rounds.push(sample.elapsed);
                measured.of_processor.extend(sample.of_processor);
            }
        }
    }
    all
}

fn prepare(candidate: &Candidate, settings: &[Setting]) -> Measured {
    let settings = settings.iter().filter(|setting| candidate.threads || **setting == Setting::Shared(1));
    let settings = settings.map(|setting| (*setting, Vec::new())).collect();
    Measured { name: candidate.name, settings, of_processor: Vec::new() }
}

/// Nanoseconds per operation and thread.
struct Sample {
    elapsed: f64,
    /// For one thread.
    of_processor: Option<f64>,
}

/// What one thread did.
struct Work {
    started: Instant,
    ended: Instant,
    operations: u64,
    processor: Option<Duration>,
}

fn sample(instances: &[Instance; 2], setting: Setting, time: Duration) -> Sample {
    const CHUNK: u64 = 64;
    let threads = setting.threads();
    let (start, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let processor = || if threads == 1 { processor::time_of_thread() } else { None };
    let work: Vec<Work> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let instance = match setting {
                    Setting::Shared(_) => &instances[0],
                    Setting::Separate => &instances[thread],
                };
                let mut worker = instance();
                let (start, stop) = (&start, &stop);
                scope.spawn(move || {
                    worker(CHUNK);
                    let before = processor();
                    start.wait();
                    let (started, mut operations) = (Instant::now(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        worker(CHUNK);
                        operations += CHUNK;
                    }
                    let ended = Instant::now();
                    let processor = processor().zip(before).map(|(after, before)| after - before);
                    Work { started, ended, operations, processor }
                })
            })
            .collect();
        start.wait();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).collect()
    });
    // Measure from the first start to the last end: with more threads than processors, threads take
    // turns, and rates over each thread's own time would count the same time several times.
    let started = work.iter().map(|work| work.started).min().expect("there are threads");
    let ended = work.iter().map(|work| work.ended).max().expect("there are threads");
    let operations: u64 = work.iter().map(|work| work.operations).sum();
    let nanos = |time: Duration| time.as_nanos() as f64 / operations as f64;
    Sample { elapsed: threads as f64 * nanos(ended - started), of_processor: work[0].processor.map(nanos) }
}
