use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::{SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, Instant};
use tower_rampart::clock::{Clock, Nanos};

use super::{Plan, Record};

/// State shared by all parts of a run: its clock, its seed, its record.
#[derive(Debug)]
pub struct World {
    clock: LabClock,
    seed: u64,
    record: Mutex<Record>,
}

impl World {
    #[allow(clippy::disallowed_methods)] // this is the run's clock
    pub(super) fn new(plan: &Plan, seed: u64) -> Self {
        Self { clock: LabClock(Instant::now()), seed, record: Mutex::new(Record::new(plan)) }
    }

    /// Returns the clock, for handles.
    pub fn clock(&self) -> LabClock {
        self.clock
    }

    /// Returns the milliseconds since the start of the run.
    pub fn now(&self) -> u64 {
        self.clock.millis()
    }

    /// Returns the instant this many milliseconds after the start of the run.
    pub(super) fn instant(&self, millis: u64) -> Instant {
        self.clock.0 + Duration::from_millis(millis)
    }

    /// Returns the seed of the random stream with this number.
    pub fn seed(&self, stream: u64) -> u64 {
        // The mixing steps of splitmix64, so that neighbouring streams are unrelated.
        let mut mixed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(stream);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn rng(&self, stream: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.seed(stream))
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn finish(&self) -> Record {
        std::mem::take(&mut self.record())
    }
}

/// The time since the start of a run, from a fixed origin, so that windows start at the same
/// instants in every run.
#[derive(Clone, Copy, Debug)]
pub struct LabClock(Instant);

impl LabClock {
    /// Returns the milliseconds since the start of the run.
    #[allow(clippy::disallowed_methods)]
    pub fn millis(self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

impl Clock for LabClock {
    fn now(&self) -> Nanos {
        const ORIGIN: u64 = 1_000_000_000_000;
        Nanos::new(ORIGIN + self.millis() * 1_000_000)
    }
}
