//! Time in the core: nanoseconds on one monotonic timeline.

use std::{fmt, num::NonZeroU64, time::Duration};

/// A point on a clock's timeline, in nanoseconds since that clock's origin. The range is 584 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanos(u64);

impl Nanos {
    /// The last point on the timeline, which stands for "never".
    pub const MAX: Self = Self(u64::MAX);

    /// Returns the point `nanos` nanoseconds after the origin.
    pub const fn new(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Returns the nanoseconds since the origin.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Returns the point `duration` later, or [`Nanos::MAX`] if that is past the end.
    pub const fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(nanos_of(duration)))
    }

    /// Returns the point `duration` earlier, or the origin if that is before it.
    pub const fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(nanos_of(duration)))
    }

    /// Returns the time passed since `earlier`, or zero if the clock went backwards.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole nanoseconds, in eight bytes, also as an `Option`.
///
/// It holds up to 584 years; a longer duration becomes the longest one.
///
/// ```
/// use std::time::Duration;
/// use tower_rampart::error::CompactDuration;
///
/// let wait = CompactDuration::from(Duration::from_millis(5));
/// assert_eq!(wait.get(), Duration::from_millis(5));
/// assert_eq!(size_of::<Option<CompactDuration>>(), 8);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompactDuration(NonZeroU64);

// One more than the nanoseconds. Making one from a difference of two readings is an addition; a
// `Duration` takes a division, which a rejection would wait for.
impl CompactDuration {
    /// Returns the duration.
    pub const fn get(self) -> Duration {
        Duration::from_nanos(self.0.get() - 1)
    }

    #[inline]
    pub(crate) const fn from_nanos(nanos: u64) -> Self {
        Self(NonZeroU64::MIN.saturating_add(nanos))
    }
}

impl From<Duration> for CompactDuration {
    #[inline]
    fn from(duration: Duration) -> Self {
        Self::from_nanos(nanos_of(duration))
    }
}

impl From<CompactDuration> for Duration {
    fn from(duration: CompactDuration) -> Self {
        duration.get()
    }
}

impl PartialEq<Duration> for CompactDuration {
    fn eq(&self, other: &Duration) -> bool {
        *self == Self::from(*other)
    }
}

impl PartialOrd<Duration> for CompactDuration {
    fn partial_cmp(&self, other: &Duration) -> Option<std::cmp::Ordering> {
        self.partial_cmp(&Self::from(*other))
    }
}

/// As the `Duration`.
impl fmt::Debug for CompactDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// Returns a duration in nanoseconds, or `u64::MAX` if it is longer.
pub(crate) const fn nanos_of(duration: Duration) -> u64 {
    let nanos = duration.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compact_duration_is_exact_and_saturates() {
        let longest = u64::MAX - 1;
        for nanos in [0, 1, 999_999_999, 1_000_000_000, 1 << 63, longest] {
            let duration = Duration::from_nanos(nanos);
            let compact = CompactDuration::from(duration);
            assert_eq!(compact.get(), duration);
            assert_eq!(compact, CompactDuration::from_nanos(nanos));
            assert_eq!(format!("{compact:?}"), format!("{duration:?}"));
            assert!(compact == duration && compact < duration + Duration::from_nanos(1) || nanos == longest);
        }
        for duration in [Duration::from_nanos(u64::MAX), Duration::MAX] {
            assert_eq!(CompactDuration::from(duration).get(), Duration::from_nanos(longest));
        }
    }
}
