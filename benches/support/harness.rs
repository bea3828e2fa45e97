//! Measures candidates against each other: in one run, in rounds, in a new order each round.
//!
//! A sample is a fixed time in which one or more threads, all at once, do as many operations as they get done. The rounds
//! of all candidates of a row are interleaved, so what disturbs the machine disturbs all; figures are medians, and
//! ratios are taken round by round.
#![allow(unreachable_pub)] // shared by benches, as modules
#![allow(clippy::disallowed_methods)] // the benches' own clock

use std::{
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rand::{rng, seq::SliceRandom};

/// Does so many operations.
pub type Worker = Box<dyn FnMut(u64) + Send>;

/// Makes workers that share one instance.
pub type Instance = Box<dyn Fn() -> Worker + Send + Sync>;

pub struct Candidate {
    pub name: &'static str,
    /// Whether several threads may use it at once.
    pub threads: bool,
    make: Box<dyn Fn() -> Instance>,
}

impl Candidate {
    /// `make` makes an instance, from which a worker for each thread is made.
    pub fn new<I>(name: &'static str, make: impl Fn() -> I + 'static) -> Self
    where
        I: Fn() -> Worker + Send + Sync + 'static,
    {
        Self { name, threads: true, make: Box::new(move || Box::new(make())) }
    }

    /// A worker of an instance of its own.
    #[allow(dead_code)] // not every bench looks at a single worker
    pub fn worker(&self) -> Worker {
        (self.make)()()
    }

    /// As [`new`](Self::new), for what cannot be shared by threads.
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
    /// So many threads on one instance.
    Shared(usize),
    /// Two threads, an instance each: what two cost that have nothing in common.
    #[allow(dead_code)]
    Apart,
}

impl Setting {
    fn threads(self) -> usize {
        match self {
            Self::Shared(threads) => threads,
            Self::Apart => 2,
        }
    }
}

/// What was measured of a candidate: nanoseconds per operation and thread, round by round.
pub struct Measured {
    pub name: &'static str,
    pub settings: Vec<(Setting, Vec<f64>)>,
}

impl Measured {
    /// Median nanoseconds of an operation, as its thread sees it.
    pub fn nanos(&self, setting: Setting) -> Option<f64> {
        self.rounds(setting).map(median)
    }

    /// Million operations a second, of all threads together.
    pub fn rate(&self, setting: Setting) -> Option<f64> {
        self.nanos(setting).map(|nanos| setting.threads() as f64 * 1e3 / nanos)
    }

    pub fn rounds(&self, setting: Setting) -> Option<&[f64]> {
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
            let (setting, rounds) = &mut all[candidate].settings[setting];
            let nanos = sample(&instances[candidate], *setting, effort.sample);
            // The first round warms up.
            if round > 0 {
                rounds.push(nanos);
            }
        }
    }
    all
}

fn prepare(candidate: &Candidate, settings: &[Setting]) -> Measured {
    let settings = settings.iter().filter(|setting| candidate.threads || **setting == Setting::Shared(1));
    Measured { name: candidate.name, settings: settings.map(|setting| (*setting, Vec::new())).collect() }
}

/// Nanoseconds per operation and thread.
fn sample(instances: &[Instance; 2], setting: Setting, time: Duration) -> f64 {
    const CHUNK: u64 = 64;
    let threads = setting.threads();
    let (start, stop) = (Barrier::new(threads + 1), AtomicBool::new(false));
    let per_second: f64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                let instance = match setting {
                    Setting::Shared(_) => &instances[0],
                    Setting::Apart => &instances[thread],
                };
                let mut worker = instance();
                let (start, stop) = (&start, &stop);
                scope.spawn(move || {
                    worker(CHUNK);
                    start.wait();
                    let (begun, mut operations) = (Instant::now(), 0);
                    while !stop.load(Ordering::Relaxed) {
                        worker(CHUNK);
                        operations += CHUNK;
                    }
                    operations as f64 / begun.elapsed().as_secs_f64()
                })
            })
            .collect();
        start.wait();
        std::thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        workers.into_iter().map(|worker| worker.join().expect("a worker panicked")).sum()
    });
    threads as f64 * 1e9 / per_second
}

pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

#[allow(dead_code)]
/// The median of `a / b`, round by round, and an interval that holds it with 95% (a bootstrap of the rounds).
pub fn ratio(a: &[f64], b: &[f64]) -> (f64, f64, f64) {
    use rand::RngExt;

    let ratios: Vec<f64> = a.iter().zip(b).map(|(a, b)| a / b).collect();
    let mut rng = rng();
    let mut medians: Vec<f64> = (0..400)
        .map(|_| median(&(0..ratios.len()).map(|_| ratios[rng.random_range(0..ratios.len())]).collect::<Vec<_>>()))
        .collect();
    medians.sort_by(f64::total_cmp);
    (median(&ratios), medians[10], medians[389])
}
