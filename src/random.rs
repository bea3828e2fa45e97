//! Random numbers for jitter.

use std::{
    ops::RangeInclusive,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::state::time::nanos_of;

/// A lock-free source of random numbers, shared by the calls of a handle. Draws happen on cold paths only (a delay
/// before a retry, an open time), so one shared counter is good enough.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    /// Seeded by the operating system.
    pub(crate) fn from_entropy() -> Self {
        Self::seeded(rand::random())
    }

    /// The same seed draws the same numbers, in the order of the draws.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn rng(&self) -> SmallRng {
        // `seed_from_u64` mixes its argument well, so consecutive states make independent generators. The odd step
        // visits all states.
        SmallRng::seed_from_u64(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }

    /// Uniform in the range, to the nanosecond.
    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Duration {
        let (low, high) = (nanos_of(*range.start()), nanos_of(*range.end()));
        if low >= high { *range.start() } else { Duration::from_nanos(self.rng().random_range(low..=high)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_draws_the_same_numbers() {
        let (a, b) = (Random::seeded(7), Random::seeded(7));
        let range = Duration::ZERO..=Duration::from_secs(1);
        let draws: Vec<_> = (0..8).map(|_| a.duration(range.clone())).collect();
        assert!(draws.iter().all(|draw| *draw == b.duration(range.clone()) && range.contains(draw)));
        assert!(draws.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
