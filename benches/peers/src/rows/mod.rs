//! The rows that are measured: candidates that do the same work, and this crate's goals.

mod breaker;
mod keyed;
mod layers;
mod limiter;
mod stacks;
mod tails;
mod window;

pub use keyed::{Memory, memory};
pub use tails::{THREADS, Tail, tails};
pub use window::window_sizes;

use crate::harness::{Candidate, Measured, Setting};

const BARE: &str = "bare service";

pub struct Row {
    pub name: &'static str,
    pub candidates: Vec<Candidate>,
    pub settings: Vec<Setting>,
    pub claims: Vec<Claim>,
}

type Of = dyn Fn(&Figures<'_>) -> Option<f64>;

/// A goal: one figure is at least this many times another.
pub struct Claim {
    pub text: &'static str,
    pub at_least: f64,
    pub of: Box<Of>,
    /// Set if the command `goals` prints it too.
    pub headline: Option<Comparison>,
}

impl Claim {
    fn new(text: &'static str, at_least: f64, of: impl Fn(&Figures<'_>) -> Option<f64> + 'static) -> Self {
        Self { text, at_least, of: Box::new(of), headline: None }
    }

    fn headline(text: &'static str, at_least: f64, comparison: Comparison) -> Self {
        let of = Box::new(move |row: &Figures<'_>| comparison.times_faster(row));
        Self { text, at_least, of, headline: Some(comparison) }
    }
}

/// Compares two candidates of a row, on one thread.
#[derive(Clone, Copy)]
pub struct Comparison {
    pub ours: &'static str,
    pub peer: &'static str,
    /// The candidate whose time is subtracted from both.
    pub bare: Option<&'static str>,
}

impl Comparison {
    fn new(ours: &'static str, peer: &'static str) -> Self {
        Self { ours, peer, bare: None }
    }

    fn above_bare(ours: &'static str, peer: &'static str) -> Self {
        Self { ours, peer, bare: Some(BARE) }
    }

    pub fn names(&self, candidate: &str) -> bool {
        [Some(self.ours), Some(self.peer), self.bare].contains(&Some(candidate))
    }

    /// Returns the nanoseconds of both per round.
    pub fn rounds(&self, row: &Figures<'_>) -> Option<(Vec<f64>, Vec<f64>)> {
        let rounds = |name: &str| row.of(name)?.rounds(Setting::Shared(1));
        let (ours, peer) = (rounds(self.ours)?, rounds(self.peer)?);
        let Some(bare) = self.bare else { return Some((ours.to_vec(), peer.to_vec())) };
        let bare = rounds(bare)?;
        let above = |rounds: &[f64]| rounds.iter().zip(bare).map(|(one, bare)| one - bare).collect();
        Some((above(ours), above(peer)))
    }

    fn times_faster(&self, row: &Figures<'_>) -> Option<f64> {
        match self.bare {
            Some(bare) => row.faster_above(bare, self.ours, self.peer),
            None => row.faster(self.ours, self.peer),
        }
    }
}

/// The figures of one row.
pub struct Figures<'a>(pub &'a [Measured]);

impl Figures<'_> {
    fn of(&self, name: &str) -> Option<&Measured> {
        self.0.iter().find(|measured| measured.name == name)
    }

    fn nanos(&self, name: &str, setting: Setting) -> Option<f64> {
        self.of(name)?.nanos(setting)
    }

    /// Returns the time of `peer` relative to `ours`, on one thread.
    fn faster(&self, ours: &str, peer: &str) -> Option<f64> {
        Some(self.nanos(peer, Setting::Shared(1))? / self.nanos(ours, Setting::Shared(1))?)
    }

    /// Like [`faster`](Self::faster), without the time of the bare service.
    fn faster_above(&self, bare: &str, ours: &str, peer: &str) -> Option<f64> {
        let bare = self.nanos(bare, Setting::Shared(1))?;
        Some((self.nanos(peer, Setting::Shared(1))? - bare) / (self.nanos(ours, Setting::Shared(1))? - bare))
    }

    /// Returns the throughput of `ours` relative to `peer`, for all threads together.
    fn more(&self, ours: &str, peer: &str, threads: usize) -> Option<f64> {
        let setting = Setting::Shared(threads);
        Some(self.of(ours)?.rate(setting)? / self.of(peer)?.rate(setting)?)
    }

    /// Returns the throughput of this many threads relative to one.
    fn scaling(&self, name: &str, threads: usize) -> Option<f64> {
        Some(self.of(name)?.rate(Setting::Shared(threads))? / self.of(name)?.rate(Setting::Shared(1))?)
    }

    /// Returns the time of two threads with separate instances relative to two threads on one: 1 if
    /// the threads do not contend.
    fn separate(&self, name: &str) -> Option<f64> {
        Some(self.nanos(name, Setting::Separate)? / self.nanos(name, Setting::Shared(2))?)
    }
}

pub fn all() -> Vec<Row> {
    vec![
        breaker::clean(),
        breaker::some_failures(),
        breaker::rejection(),
        breaker::layer(),
        limiter::admission(),
        limiter::rejection(),
        limiter::layer(),
        layers::retry(),
        layers::timeout_ready(),
        layers::timeout_pending(),
        layers::bulkhead(),
        stacks::ready(),
        stacks::pending(),
        stacks::server_ready(),
        stacks::server_pending(),
    ]
}

/// One to eight threads on one instance, and two threads on separate instances.
fn contended() -> Vec<Setting> {
    vec![Setting::Shared(1), Setting::Shared(2), Setting::Separate, Setting::Shared(8)]
}

fn one_and_two() -> Vec<Setting> {
    vec![Setting::Shared(1), Setting::Shared(2)]
}
