//! The timeline of the default clock: nanoseconds since a base instant, as one number.

use std::{
    hash::{Hash, Hasher},
    sync::LazyLock,
    time::{Duration, Instant as StdInstant},
};

use tokio::time::Instant;

use crate::state::time::nanos_of;

/// Where the base instant lies on the timeline. All handles use one timeline, so that they can
/// share a reading. It begins well before the base, because a test's runtime may have been paused
/// before the first reading here, and its instants, a little earlier than the base, must still be
/// on the timeline.
const ORIGIN_TO_BASE: u64 = 1 << 50; // 13 days

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// The seconds after the base that the fast conversion covers: 272 years.
const RANGE: u64 = 1 << 33;

static BASE: LazyLock<Base> = LazyLock::new(Base::now);

struct Base {
    instant: StdInstant,
    secs: u64,
    /// The place on the timeline of the instant whose parts are zero. Wraps around.
    zero: u64,
    /// The seconds after the base for which differences of [`Parts`] are durations: [`RANGE`], or
    /// none.
    range: u64,
}

impl Base {
    #[allow(clippy::disallowed_methods)]
    fn now() -> Self {
        let instant = StdInstant::now();
        let Parts { secs, nanos } = Parts::of(instant);
        let zero = ORIGIN_TO_BASE.wrapping_sub(Parts { secs, nanos }.nanos());
        let base = Self { instant, secs, zero, range: RANGE };
        if base.adds_up() { base } else { Self { range: 0, ..base } }
    }

    /// Whether differences of parts are durations. If `Instant` hashes anything else than seconds
    /// and nanoseconds, in this version of the standard library or in a later one, they are not,
    /// and its own arithmetic is used, which takes longer.
    fn adds_up(&self) -> bool {
        [0, 1, 2, 59, 86_400, RANGE - 2].into_iter().all(|secs| {
            [0, 1, 500_000_000, 999_999_999].into_iter().all(|nanos| {
                let after = Duration::new(secs, nanos);
                let later = self.instant.checked_add(after);
                later.is_some_and(|later| self.fast(Parts::of(later)) == Some(ORIGIN_TO_BASE + nanos_of(after)))
            })
        })
    }

    #[inline(always)]
    fn fast(&self, parts: Parts) -> Option<u64> {
        // Earlier seconds wrap around, out of the range.
        let after = parts.secs.wrapping_sub(self.secs);
        (after < self.range).then(|| parts.nanos().wrapping_add(self.zero))
    }

    #[cold]
    fn slow(&self, instant: StdInstant) -> u64 {
        match instant.checked_duration_since(self.instant) {
            Some(after) => ORIGIN_TO_BASE.saturating_add(nanos_of(after)),
            None => ORIGIN_TO_BASE.saturating_sub(nanos_of(self.instant.saturating_duration_since(instant))),
        }
    }
}

/// The seconds and nanoseconds of an instant.
///
/// The standard library shows them to a hasher only. Subtracting two instants is a call into code
/// that is never inlined and normalizes the difference twice; this is a few instructions, on a path
/// that every timed decision takes.
#[derive(Clone, Copy, Default)]
struct Parts {
    secs: u64,
    nanos: u32,
}

impl Parts {
    #[inline(always)]
    fn of(instant: StdInstant) -> Self {
        let mut parts = Self::default();
        instant.hash(&mut parts);
        parts
    }

    /// All nanoseconds. Wraps around.
    #[inline(always)]
    fn nanos(self) -> u64 {
        self.secs.wrapping_mul(NANOS_PER_SEC).wrapping_add(self.nanos.into())
    }
}

impl Hasher for Parts {
    #[inline(always)]
    fn write_i64(&mut self, secs: i64) {
        self.write_u64(secs as u64);
    }

    #[inline(always)]
    fn write_u64(&mut self, secs: u64) {
        self.secs = secs;
    }

    #[inline(always)]
    fn write_u32(&mut self, nanos: u32) {
        self.nanos = nanos;
    }

    // Other representations are not understood, which `Base::now` notices.
    fn write(&mut self, _: &[u8]) {}

    fn finish(&self) -> u64 {
        0
    }
}

/// Converts an instant to nanoseconds on the timeline.
#[inline]
pub(crate) fn nanos_at(instant: Instant) -> u64 {
    let (base, instant) = (&*BASE, instant.into_std());
    base.fast(Parts::of(instant)).unwrap_or_else(|| base.slow(instant))
}

/// Inverts [`nanos_at`]. `None` if the time is further away than an instant can be.
pub(crate) fn instant_of(nanos: u64) -> Option<Instant> {
    let base = BASE.instant;
    if nanos == u64::MAX {
        None
    } else if nanos >= ORIGIN_TO_BASE {
        base.checked_add(Duration::from_nanos(nanos - ORIGIN_TO_BASE)).map(Instant::from_std)
    } else {
        base.checked_sub(Duration::from_nanos(ORIGIN_TO_BASE - nanos)).map(Instant::from_std)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn forwards(duration: Duration) -> Option<StdInstant> {
        BASE.instant.checked_add(duration)
    }

    fn backwards(duration: Duration) -> Option<StdInstant> {
        BASE.instant.checked_sub(duration)
    }

    // If it fails, the conversion is right, but slower than it was measured.
    #[test]
    fn this_standard_library_hashes_the_parts_of_an_instant() {
        assert!(BASE.range > 0);
    }

    proptest! {
        #[test]
        fn any_instant_has_its_place_on_the_timeline(secs in 0_u64..1 << 36, shift in 0_u32..36, nanos in 0_u32..1_000_000_000) {
            let duration = Duration::new(secs >> shift, nanos);
            for instant in [forwards(duration), backwards(duration)].into_iter().flatten() {
                prop_assert_eq!(nanos_at(Instant::from_std(instant)), BASE.slow(instant));
            }
            if let Some(instant) = forwards(duration) {
                prop_assert_eq!(BASE.slow(instant), ORIGIN_TO_BASE.saturating_add(nanos_of(duration)));
            }
        }

        #[test]
        fn an_unknown_representation_falls_back(secs in 0_u64..1 << 33) {
            let base = Base { range: 0, ..Base::now() };
            prop_assert_eq!(base.fast(Parts { secs, nanos: 0 }), None);
        }
    }

    #[test]
    fn instants_at_the_edges_convert_and_back() {
        for nanos in [0, 1, NANOS_PER_SEC - 1, NANOS_PER_SEC] {
            for at in [ORIGIN_TO_BASE - nanos, ORIGIN_TO_BASE + nanos, (1 << 63) + nanos] {
                assert_eq!(instant_of(at).map(nanos_at), Some(at));
            }
        }
        let centuries = Duration::from_secs(1 << 36);
        let beyond = forwards(centuries).map(|instant| nanos_at(Instant::from_std(instant)));
        assert_eq!(beyond, Some(u64::MAX));
        assert_eq!(instant_of(u64::MAX), None);
    }
}
