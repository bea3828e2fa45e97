//! The time source: where the state core's `now` comes from.
//!
//! The default is the standard library's monotonic clock, read through tokio, so that tests with a paused clock drive
//! every decision. It is read only where a decision needs it. Cycle counters are not used: they differ between cores on
//! some machines, and that has made limiters refuse calls wrongly. Another clock can be given to a handle's builder; it
//! then makes that handle's decisions, while waiting (backoff, pacing, timeouts) stays with tokio's timers.

use std::{
    fmt,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

pub use crate::state::time::Nanos;
use crate::state::time::nanos_of;

/// A monotonic clock.
///
/// It should not go backwards; if it does, nothing breaks, and decisions err on the strict side. Let its origin be near,
/// such as the start of the process: open times, leases and rates are kept for the first nine years after it. The time
/// since 1970 is too far from its origin.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Nanos;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Nanos {
        (**self).now()
    }
}

/// A clock that stands still until it is told to move. Clones show the same time.
///
/// ```
/// use std::time::Duration;
/// use tower_rampart::clock::{Clock, ManualClock};
///
/// let clock = ManualClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_millis(5));
/// assert_eq!(clock.now().saturating_since(before), Duration::from_millis(5));
/// ```
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// A clock at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward by `duration`, at most to [`Nanos::MAX`].
    pub fn advance(&self, duration: Duration) {
        let forward = |now: u64| Some(now.saturating_add(nanos_of(duration)));
        // Never `None`, so never an error.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, forward);
    }

    /// Sets the time, also backwards, as a broken clock would.
    pub fn set(&self, now: Nanos) {
        self.0.store(now.get(), Ordering::Release);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Nanos {
        Nanos::new(self.0.load(Ordering::Acquire))
    }
}

/// The clock of a handle.
#[derive(Clone, Default)]
pub(crate) enum TimeSource {
    /// tokio's monotonic clock: the standard library's, or the paused one of a test.
    #[default]
    Tokio,
    Custom(Arc<dyn Clock>),
}

impl TimeSource {
    pub(crate) fn custom(clock: impl Clock) -> Self {
        Self::Custom(Arc::new(clock))
    }

    pub(crate) fn now(&self) -> Nanos {
        match self {
            Self::Tokio => Nanos::new(nanos()),
            Self::Custom(clock) => clock.now(),
        }
    }
}

impl fmt::Debug for TimeSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tokio => "Tokio",
            Self::Custom(_) => "Custom",
        })
    }
}

/// tokio's `Instant::now()`, for what waits on tokio's timers.
#[allow(clippy::disallowed_methods)] // this is the one place that reads the clock
pub(crate) fn instant() -> Instant {
    #[cfg(test)]
    READINGS.with(|readings| readings.set(readings.get() + 1));
    Instant::now()
}

#[cfg(test)]
thread_local! {
    /// Readings of the clock by this thread.
    pub(crate) static READINGS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// The time now, on the time-line of all handles.
pub(crate) fn nanos() -> u64 {
    nanos_at(instant())
}

/// All handles share one time-line, so that a reading can be shared between them. The runtime of a test may have been
/// paused before the first reading here: its instants lie a little before the base, and must still tell time. Hence a
/// time-line that begins well before its base.
const BASE: u64 = 1 << 50; // 13 days

#[allow(clippy::disallowed_methods)]
static BASE_INSTANT: LazyLock<std::time::Instant> = LazyLock::new(std::time::Instant::now);

/// Where an instant lies on the time-line.
#[inline]
pub(crate) fn nanos_at(instant: Instant) -> u64 {
    let (instant, base) = (instant.into_std(), *BASE_INSTANT);
    match instant.checked_duration_since(base) {
        Some(after) => {
            let nanos = after.as_secs().saturating_mul(1_000_000_000) + u64::from(after.subsec_nanos());
            BASE.saturating_add(nanos)
        }
        None => before_base(base, instant),
    }
}

#[cold]
fn before_base(base: std::time::Instant, instant: std::time::Instant) -> u64 {
    BASE.saturating_sub(nanos_of(base.saturating_duration_since(instant)))
}

/// What [`nanos_at`] was made of; `None` when it is further away than an instant can be.
pub(crate) fn instant_of(nanos: u64) -> Option<Instant> {
    if nanos == u64::MAX {
        None
    } else if nanos >= BASE {
        BASE_INSTANT.checked_add(Duration::from_nanos(nanos - BASE)).map(Instant::from_std)
    } else {
        BASE_INSTANT.checked_sub(Duration::from_nanos(BASE - nanos)).map(Instant::from_std)
    }
}
