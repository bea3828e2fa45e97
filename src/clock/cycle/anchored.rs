//! A counter that is anchored to the system's clock, and compared with it once a second.

use std::sync::{
    Mutex, TryLockError,
    atomic::{AtomicU64, Ordering, fence},
};

/// A counter of fixed speed, and the system's clock.
pub(super) trait Source {
    fn ticks(&self) -> u64;

    fn system(&self) -> u64;

    /// Lets time pass, in which the counter's speed is measured.
    fn pause(&self);
}

/// The time between comparisons.
const INTERVAL: u64 = 1_000_000_000;

/// The most by which the clocks may differ, besides a thousandth of the time since the last
/// comparison.
const TOLERANCE: u64 = 1_000_000;

/// The rate is in fractions of a nanosecond: `1 / 2^32`.
const RATE_BITS: u32 = 32;

/// The time by a counter.
///
/// Readers compute the time from the last anchor: the counter and the time at one moment, and the
/// counter's rate. The caller that finds the anchor to be a second old makes the next one, which
/// begins at the time that readers have at that moment, or at the system's, if that is later. While
/// the clock is ahead of the system's, its rate is lower.
///
/// Lock-free for readers. An anchor is three words, so there are four of them in a ring, and a
/// reader tries again if the one that it has read may have been overwritten meanwhile. That takes
/// three further anchors, which are seconds apart.
pub(super) struct Anchored<S> {
    source: S,
    ring: [Words; 4],
    /// The number of the current anchor.
    current: AtomicU64,
    /// The ticks of an [`INTERVAL`], at the rate that was measured first.
    interval: u64,
    last: Mutex<Sample>,
}

#[derive(Default)]
struct Words {
    ticks: AtomicU64,
    nanos: AtomicU64,
    rate: AtomicU64,
}

#[derive(Clone, Copy, Debug)]
struct Anchor {
    ticks: u64,
    nanos: u64,
    /// Zero once the counter has failed a comparison.
    rate: u64,
}

impl Anchor {
    /// The time at a count at most a few seconds later.
    #[inline]
    fn nanos_at(self, ticks: u64) -> u64 {
        let passed = u128::from(ticks.saturating_sub(self.ticks)) * u128::from(self.rate);
        self.nanos.saturating_add(u64::try_from(passed >> RATE_BITS).unwrap_or(u64::MAX))
    }
}

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug)]
struct Sample {
    ticks: u64,
    system: u64,
    /// The ticks that it took.
    width: u64,
}

impl Sample {
    /// The best of several, as the thread may be descheduled in the middle of one.
    fn take(source: &impl Source) -> Self {
        let samples = (0..8).map(|_| {
            let before = source.ticks();
            let system = source.system();
            let width = source.ticks().saturating_sub(before);
            Self { ticks: before.saturating_add(width / 2), system, width }
        });
        samples.min_by_key(|sample| sample.width).expect("there are eight")
    }
}

impl<S: Source> Anchored<S> {
    pub(super) fn new(source: S) -> Self {
        let first = Sample::take(&source);
        source.pause();
        let second = Sample::take(&source);
        // A counter that stands still has failed already.
        let (ticks, nanos) = (second.ticks.saturating_sub(first.ticks), second.system.saturating_sub(first.system));
        let rate = if ticks == 0 { 0 } else { scaled(nanos, 1 << RATE_BITS, ticks) };
        let anchored = Self {
            source,
            ring: Default::default(),
            current: AtomicU64::new(0),
            interval: scaled(INTERVAL, ticks, nanos.max(1)),
            last: Mutex::new(second),
        };
        anchored.publish(Anchor { ticks: second.ticks, nanos: second.system, rate });
        anchored
    }

    #[cfg(test)]
    pub(super) fn source(&self) -> &S {
        &self.source
    }

    pub(super) fn is_counting(&self) -> bool {
        self.anchor().rate != 0
    }

    #[inline]
    pub(super) fn now(&self) -> u64 {
        let anchor = self.anchor();
        let elapsed = self.source.ticks().wrapping_sub(anchor.ticks);
        if elapsed < self.interval && anchor.rate != 0 {
            // No overflow: an interval is 2^62 at the rate that was measured first, which is almost
            // this one.
            return anchor.nanos + ((elapsed * anchor.rate) >> RATE_BITS);
        }
        self.compare()
    }

    #[inline]
    fn anchor(&self) -> Anchor {
        loop {
            let number = self.current.load(Ordering::Acquire);
            let words = &self.ring[number as usize % 4];
            let anchor = Anchor {
                ticks: words.ticks.load(Ordering::Relaxed),
                nanos: words.nanos.load(Ordering::Relaxed),
                rate: words.rate.load(Ordering::Relaxed),
            };
            fence(Ordering::Acquire);
            if self.current.load(Ordering::Relaxed).wrapping_sub(number) < 3 {
                return anchor;
            }
        }
    }

    /// Only by the holder of the lock.
    fn publish(&self, anchor: Anchor) {
        let number = self.current.load(Ordering::Relaxed).wrapping_add(1);
        let words = &self.ring[number as usize % 4];
        // A reader that sees one of the words written here also sees the numbers before.
        fence(Ordering::Release);
        words.ticks.store(anchor.ticks, Ordering::Relaxed);
        words.nanos.store(anchor.nanos, Ordering::Relaxed);
        words.rate.store(anchor.rate, Ordering::Relaxed);
        self.current.store(number, Ordering::Release);
    }

    /// Makes the next anchor, unless another caller does, and returns the time.
    #[cold]
    fn compare(&self) -> u64 {
        let anchor = self.anchor();
        if anchor.rate == 0 {
            return self.source.system().max(anchor.nanos);
        }
        let mut last = match self.last.try_lock() {
            Ok(last) => last,
            // Nothing panics while it is held.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return self.source.system().max(self.latest(anchor, u64::MAX)),
        };
        let anchor = self.anchor();
        let ticks = self.source.ticks();
        // Another caller was first, perhaps on a processor whose counter is a little ahead.
        if ticks.wrapping_sub(anchor.ticks) < self.interval || anchor.ticks.wrapping_sub(ticks) < self.interval / 1000 {
            return anchor.nanos_at(ticks);
        }
        let sample = Sample::take(&self.source);
        let next = self.next(anchor, *last, sample);
        *last = sample;
        self.publish(next);
        next.nanos
    }

    /// The latest time that a reader has computed from this anchor, until this count.
    fn latest(&self, anchor: Anchor, ticks: u64) -> u64 {
        anchor.nanos_at(ticks.min(anchor.ticks.saturating_add(self.interval)))
    }

    fn next(&self, anchor: Anchor, last: Sample, sample: Sample) -> Anchor {
        let shown = anchor.nanos_at(sample.ticks);
        let nanos = sample.system.max(self.latest(anchor, sample.ticks));
        let elapsed = sample.system.saturating_sub(last.system);
        let width = scaled(sample.width, anchor.rate, 1 << RATE_BITS);
        if shown.abs_diff(sample.system) > TOLERANCE.saturating_add(elapsed / 1000).saturating_add(width) {
            return Anchor { ticks: sample.ticks, nanos, rate: 0 };
        }
        let rate = scaled(elapsed, 1 << RATE_BITS, sample.ticks.saturating_sub(last.ticks).max(1));
        let ahead = (nanos - sample.system).min(INTERVAL / 400);
        Anchor { ticks: sample.ticks, nanos, rate: rate - scaled(rate, ahead, INTERVAL) }
    }
}

/// `value * numerator / denominator`.
fn scaled(value: u64, numerator: u64, denominator: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(numerator) / u128::from(denominator)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    /// Three ticks in a nanosecond at first.
    #[derive(Default)]
    struct Fake {
        ticks: AtomicU64,
        system: AtomicU64,
    }

    impl Source for Fake {
        fn ticks(&self) -> u64 {
            self.ticks.load(Ordering::Relaxed)
        }

        fn system(&self) -> u64 {
            self.system.load(Ordering::Relaxed)
        }

        fn pause(&self) {
            self.ticks.fetch_add(3_000_000, Ordering::Relaxed);
            self.system.fetch_add(1_000_000, Ordering::Relaxed);
        }
    }

    fn clock() -> Anchored<Fake> {
        let fake = Fake::default();
        fake.ticks.store(1 << 40, Ordering::Relaxed);
        fake.system.store(1 << 50, Ordering::Relaxed);
        Anchored::new(fake)
    }

    /// Lets time pass, in which the counter ticks at a speed that is higher than known by this many
    /// parts in a million.
    fn pass(clock: &Anchored<Fake>, nanos: u64, faster: i64) {
        let ticks = 3 * nanos as i64 + 3 * nanos as i64 / 1000 * faster / 1000;
        clock.source.ticks.fetch_add(ticks as u64, Ordering::Relaxed);
        clock.source.system.fetch_add(nanos, Ordering::Relaxed);
    }

    fn error(clock: &Anchored<Fake>) -> u64 {
        clock.now().abs_diff(clock.source.system())
    }

    #[test]
    fn it_follows_the_system_and_never_goes_backwards() {
        for faster in [-400, -50, 0, 50, 400] {
            let (clock, mut last) = (clock(), 0);
            for step in 0..3_000 {
                // The system's clock is slewed in the middle.
                pass(&clock, SECOND / 100, if step < 1_500 { faster } else { -faster });
                let now = clock.now();
                assert!(now >= last, "{faster}: {now} after {last}");
                last = now;
                assert!(error(&clock) < 850_000, "{faster}, step {step}: {}", error(&clock));
                if (400..1_500).contains(&step) {
                    assert!(error(&clock) < 1_000, "{faster}, step {step}: {}", error(&clock));
                }
            }
            assert!(clock.is_counting());
        }
    }

    #[test]
    fn a_counter_that_changes_its_speed_or_jumps_is_not_read_again() {
        for faster in [-900_000, -5_000, 5_000, 500_000] {
            let clock = clock();
            let mut last = clock.now();
            for _ in 0..10_000 {
                pass(&clock, SECOND / 1000, faster);
                let now = clock.now();
                assert!(now >= last, "{faster}: {now} after {last}");
                last = now;
            }
            assert!(!clock.is_counting(), "{faster}");
            pass(&clock, SECOND, 0);
            assert_eq!(error(&clock), 0, "{faster}");
        }
        for ticks in [0, 1 << 39, 1 << 60, u64::MAX] {
            let clock = clock();
            pass(&clock, SECOND / 2, 0);
            let before = clock.now();
            clock.source.ticks.store(ticks, Ordering::Relaxed);
            pass(&clock, SECOND / 100, 0);
            assert!(clock.now() >= before, "{ticks}");
            assert!(!clock.is_counting(), "{ticks}");
            pass(&clock, SECOND * 2, 0);
            assert_eq!(error(&clock), 0, "{ticks}");
        }
    }

    #[test]
    fn after_a_time_without_readers_it_has_the_time_of_the_system() {
        let clock = clock();
        for hours in [1, 24, 24 * 365] {
            pass(&clock, hours * 3600 * SECOND, 80);
            assert_eq!(error(&clock), 0);
            assert!(clock.is_counting());
        }
    }

    #[test]
    fn a_processor_whose_counter_is_a_little_behind_sees_no_earlier_time() {
        let clock = clock();
        pass(&clock, SECOND * 5, 0);
        let now = clock.now();
        clock.source.ticks.fetch_sub(300, Ordering::Relaxed);
        assert_eq!(clock.now(), now);
        assert!(clock.is_counting());
    }
}
