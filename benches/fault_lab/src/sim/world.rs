use std::sync::{Mutex, MutexGuard, PoisonError};

use rand::{SeedableRng, rngs::SmallRng};
use tokio::time::{Duration, Instant};
use tower_rampart::clock::{Clock, Nanos};

use super::{Plan, Record};

/// What all parts of a run share: its clock, its seed, its record.
#[derive(Debug)]
pub struct World {
    clock: LabClock,
    seed: u64,
    record: Mutex<Record>,
}

impl World {
    #[allow(clippy::disallowed_methods)] // the run's own clock
    pub(super) fn new(plan: &Plan, seed: u64) -> Self {
        Self { clock: LabClock(Instant::now()), seed, record: Mutex::new(Record::new(plan)) }
    }

    /// The clock, for handles.
    pub fn clock(&self) -> LabClock {
        self.clock
    }

    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.clock.millis()
    }

    /// The moment so many milliseconds after the beginning.
    pub(super) fn moment(&self, millis: u64) -> Instant {
        self.clock.0 + Duration::from_millis(millis)
    }

    /// A seed that belongs to `what`.
    pub fn seed(&self, what: u64) -> u64 {
        // The steps of splitmix64: neighbours come out unlike each other.
        let mut mixed = self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(what);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn rng(&self, what: u64) -> SmallRng {
        SmallRng::seed_from_u64(self.seed(what))
    }

    pub(super) fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn finish(&self) -> Record {
        std::mem::take(&mut self.record())
    }
}

/// Time since the beginning of a run, from a fixed origin: windows begin at the same moments in every run.
#[derive(Clone, Copy, Debug)]
pub struct LabClock(Instant);

impl LabClock {
    /// Milliseconds since the beginning.
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
