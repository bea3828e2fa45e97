//! What is measured: rows of candidates that do the same work, and what ours is to reach.

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

pub struct Row {
    pub name: &'static str,
    pub candidates: Vec<Candidate>,
    pub settings: Vec<Setting>,
    pub claims: Vec<Claim>,
}

type Of = dyn Fn(&Figures<'_>) -> Option<f64>;

/// That one figure is at least so many times another.
pub struct Claim {
    pub text: &'static str,
    pub at_least: f64,
    pub of: Box<Of>,
}

impl Claim {
    fn new(text: &'static str, at_least: f64, of: impl Fn(&Figures<'_>) -> Option<f64> + 'static) -> Self {
        Self { text, at_least, of: Box::new(of) }
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

    /// How many times as long `peer` takes on one thread.
    fn faster(&self, ours: &str, peer: &str) -> Option<f64> {
        Some(self.nanos(peer, Setting::Shared(1))? / self.nanos(ours, Setting::Shared(1))?)
    }

    /// As [`faster`](Self::faster), less what the bare work takes.
    fn faster_above(&self, bare: &str, ours: &str, peer: &str) -> Option<f64> {
        let bare = self.nanos(bare, Setting::Shared(1))?;
        Some((self.nanos(peer, Setting::Shared(1))? - bare) / (self.nanos(ours, Setting::Shared(1))? - bare))
    }

    /// How many times as many operations all threads get done.
    fn more(&self, ours: &str, peer: &str, threads: usize) -> Option<f64> {
        let setting = Setting::Shared(threads);
        Some(self.of(ours)?.rate(setting)? / self.of(peer)?.rate(setting)?)
    }

    /// What all of so many threads get done, in terms of one.
    fn scaling(&self, name: &str, threads: usize) -> Option<f64> {
        Some(self.of(name)?.rate(Setting::Shared(threads))? / self.of(name)?.rate(Setting::Shared(1))?)
    }

    /// Two threads with an instance each, in terms of two on one: 1 where they do not meet.
    fn apart(&self, name: &str) -> Option<f64> {
        Some(self.nanos(name, Setting::Apart)? / self.nanos(name, Setting::Shared(2))?)
    }
}

pub fn all() -> Vec<Row> {
    vec![
        breaker::clean(),
        breaker::some_failures(),
        breaker::refusal(),
        breaker::layer(),
        limiter::admission(),
        limiter::refusal(),
        limiter::layer(),
        layers::retry(),
        layers::timeout_ready(),
        layers::timeout_pending(),
        layers::bulkhead(),
        stacks::ready(),
        stacks::pending(),
    ]
}

/// One to eight threads, and two apart.
fn contended() -> Vec<Setting> {
    vec![Setting::Shared(1), Setting::Shared(2), Setting::Apart, Setting::Shared(8)]
}

fn one_and_two() -> Vec<Setting> {
    vec![Setting::Shared(1), Setting::Shared(2)]
}
