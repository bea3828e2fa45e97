//! The time source of the state core.
//!
//! The default is the standard library's monotonic clock, read through tokio, so that a test's
//! paused clock drives every decision. It is read only where a decision needs it. It is not a cycle
//! counter: on some machines those differ between cores, which has made limiters reject calls
//! wrongly. A handle's builder takes another clock, which then drives that handle's decisions;
//! waits (backoff, pacing, timeouts) still use tokio's timers. With the feature `quanta` there is
//! `CycleClock`, which uses the counter where the system does, and compares the two.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

#[cfg(feature = "quanta")]
mod cycle;
mod timeline;

#[cfg(feature = "quanta")]
pub use self::cycle::{CycleClock, CycleClockError};
pub use crate::state::time::Nanos;
use crate::state::time::nanos_of;
pub(crate) use timeline::{instant_of, nanos_at};

/// A monotonic clock.
///
/// It should not go backwards. If it does, nothing breaks, and decisions err on the strict side.
/// Choose a recent origin, such as the start of the process: open times, leases and rates work for
/// nine years after the origin. The Unix epoch is too long ago.
pub trait Clock: Send + Sync + 'static {
    /// Returns the current time.
    fn now(&self) -> Nanos;
}

impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Nanos {
        (**self).now()
    }
}

/// A clock that moves only when it is advanced manually. Clones share the time.
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
    /// Creates a clock at its origin.
    pub fn new() -> Self {
        Self::default()
    }

    /// Moves the time forward by `duration`, at most to [`Nanos::MAX`].
    pub fn advance(&self, duration: Duration) {
        let forward = |now: u64| Some(now.saturating_add(nanos_of(duration)));
        // `forward` never returns `None`, so this never fails.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, forward);
    }

    /// Sets the time. It can go backwards, as a broken clock would.
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

/// Reads tokio's clock, for code that waits on tokio's timers.
#[allow(clippy::disallowed_methods)] // the only place that reads the clock
pub(crate) fn instant() -> Instant {
    #[cfg(test)]
    READINGS.with(|readings| readings.set(readings.get() + 1));
    Instant::now()
}

#[cfg(test)]
thread_local! {
    /// How often this thread has read the clock.
    pub(crate) static READINGS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) };
}

/// Whether tokio's clock is not the standard library's: it is paused, or has been, in a test.
#[allow(clippy::disallowed_methods)]
pub(crate) fn is_simulated() -> bool {
    let before = std::time::Instant::now();
    let now = Instant::now().into_std();
    now < before || now > std::time::Instant::now()
}

/// Returns the current time on the handles' timeline.
pub(crate) fn nanos() -> u64 {
    nanos_at(instant())
}
