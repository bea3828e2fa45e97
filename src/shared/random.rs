//! Random numbers for jitter.

use std::{
    ops::RangeInclusive,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::state::time::nanos_of;

/// A lock-free source of random numbers, shared by the calls of a handle. Only cold paths draw from
/// it (a delay before a retry, an open time), so one shared counter is enough.
#[derive(Debug)]
pub(crate) struct Random(AtomicU64);

impl Random {
    /// A source seeded by the operating system.
    pub(crate) fn from_entropy() -> Self {
        Self::seeded(rand::random())
    }

    /// A source that draws the same numbers for the same seed, in the order of the draws.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn rng(&self) -> SmallRng {
        // `seed_from_u64` mixes its argument well, so successive states make independent
        // generators. An odd step visits all states.
        SmallRng::seed_from_u64(self.0.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed))
    }

    /// Draws a duration, uniform in the range to the nanosecond.
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

    #[test]
    fn draws_are_uniform_in_the_range() {
        let random = Random::seeded(1);
        let (low, high) = (Duration::from_secs(1), Duration::from_secs(5));
        let mut quarters = [0_u32; 4];
        for _ in 0..4_000 {
            let draw = random.duration(low..=high);
            assert!((low..=high).contains(&draw));
            quarters[((draw - low).as_millis() / 1_000).min(3) as usize] += 1;
        }
        // Six standard deviations around a thousand each.
        assert!(quarters.iter().all(|count| count.abs_diff(1_000) < 165), "{quarters:?}");
    }

    #[test]
    fn empty_single_and_unbounded_ranges_are_valid() {
        let random = Random::from_entropy();
        assert_eq!(random.duration(Duration::ZERO..=Duration::ZERO), Duration::ZERO);
        let (two, one) = (Duration::from_secs(2), Duration::from_secs(1));
        assert_eq!(random.duration(two..=one), two);
        assert!(random.duration(Duration::ZERO..=Duration::MAX) <= Duration::MAX);
        assert_eq!(random.duration(Duration::MAX..=Duration::MAX), Duration::MAX);
    }
}
