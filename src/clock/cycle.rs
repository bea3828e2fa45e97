//! A clock by the processor's cycle counter.

mod anchored;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use anchored::{Anchored, Source};
use tokio::time::Instant;

use super::{Clock, Nanos, nanos_at};

/// A clock that reads the processor's cycle counter, which takes a fraction of the time that the
/// system's clock takes. It requires the feature `quanta`.
///
/// The default clock stays the system's. This one is for handles that decide by the clock millions
/// of times a second: limiters, time windows, open circuits. Make one, and give each builder a
/// clone.
///
/// ```
/// use tower_rampart::{clock::CycleClock, rate_limit::{Rate, RateLimiter}};
///
/// let builder = RateLimiter::builder("api", Rate::per_second(1_000_000));
/// let limiter = match CycleClock::new() {
///     Ok(clock) => builder.clock(clock).build()?,
///     Err(unusable) => {
///         eprintln!("{unusable}");
///         builder.build()?
///     }
/// };
/// # drop(limiter);
/// # Ok::<_, tower_rampart::ConfigError>(())
/// ```
///
/// # When it is usable
///
/// On some machines the counter stops, changes its speed, or differs between processors. Linux
/// decides whether it relies on the counter, and names its clock source in
/// `/sys/devices/system/clocksource/clocksource0/current_clocksource`: `tsc` on x86-64,
/// `arch_sys_counter` on aarch64. With any other source, such as `kvm-clock` or `hpet`,
/// [`new`](Self::new) returns an error: the counter may be sound, but the system does not rely on
/// it. Other systems do not name their source, so there it always returns an error.
///
/// # How it is checked
///
/// The choice may change later, as when a virtual machine moves to another host. So once a second
/// the clock is compared with the system's, by the call that comes first, and follows it: it has
/// the same rate, and runs up to 0.25% slower while it is ahead. If the two differ by more than a
/// millisecond and a thousandth of the time since the last comparison, the counter is never read
/// again, and this clock is the system's. In the worst case, decisions have used a wrong time for a
/// second.
///
/// # Compared with the default clock
///
/// Both have the same origin. On one thread, neither goes backwards as long as the counter is
/// sound; readings of different threads may be out of order by the time that a reading takes. A
/// test's paused clock (`tokio::time::pause`) does not affect this one: do not use it in such
/// tests.
#[derive(Clone)]
pub struct CycleClock(Arc<Anchored<Counter>>);

impl CycleClock {
    /// Creates a clock. It blocks for 20 ms to measure the counter's speed; the first one of a
    /// process blocks for up to 220 ms.
    ///
    /// # Errors
    ///
    /// [`CycleClockError`] if the system does not rely on the counter.
    pub fn new() -> Result<Self, CycleClockError> {
        let clock_source = clock_source().ok_or(CycleClockError::UnknownSystem)?;
        if !is_counter(&clock_source) {
            return Err(CycleClockError::OtherSource { clock_source });
        }
        Ok(Self(Arc::new(Anchored::new(Counter(quanta::Clock::new())))))
    }

    /// Returns whether the counter is still read. It is not once it has failed a comparison with
    /// the system's clock.
    pub fn is_counting(&self) -> bool {
        self.0.is_counting()
    }
}

impl Clock for CycleClock {
    #[inline]
    fn now(&self) -> Nanos {
        Nanos::new(self.0.now())
    }
}

impl fmt::Debug for CycleClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CycleClock").field("is_counting", &self.is_counting()).finish_non_exhaustive()
    }
}

/// The reason why there is no [`CycleClock`] on a machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CycleClockError {
    /// The system does not say whether its cycle counter can be relied on.
    #[error("this system does not say whether its cycle counter can be relied on")]
    UnknownSystem,
    /// Linux has chosen another clock source than the cycle counter.
    #[error("the system's clock source is `{clock_source}`, not the cycle counter")]
    #[non_exhaustive]
    OtherSource {
        /// Its name, such as `kvm-clock`.
        clock_source: String,
    },
}

/// The system's clock source, where it names one.
fn clock_source() -> Option<String> {
    const FILE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    if !cfg!(target_os = "linux") {
        return None;
    }
    std::fs::read_to_string(FILE).ok().map(|source| source.trim().to_owned())
}

fn is_counter(source: &str) -> bool {
    let counter = if cfg!(target_arch = "x86_64") {
        Some("tsc")
    } else if cfg!(target_arch = "aarch64") {
        Some("arch_sys_counter")
    } else {
        None
    };
    counter == Some(source)
}

/// The cycle counter, and the system's clock on the handles' timeline.
struct Counter(quanta::Clock);

impl Source for Counter {
    #[inline]
    fn ticks(&self) -> u64 {
        self.0.raw()
    }

    #[allow(clippy::disallowed_methods)] // not tokio's: a paused clock is not to be followed
    fn system(&self) -> u64 {
        nanos_at(Instant::from_std(StdInstant::now()))
    }

    fn pause(&self) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_counter_itself_is_accepted() {
        for source in ["kvm-clock", "hpet", "acpi_pm", "hyperv_clocksource_tsc_page", "jiffies", "xen", ""] {
            assert!(!is_counter(source), "{source}");
        }
        assert_eq!(is_counter("tsc"), cfg!(target_arch = "x86_64"));
        assert_eq!(is_counter("arch_sys_counter"), cfg!(target_arch = "aarch64"));
    }

    // On a machine without a usable counter, this only tests that there is an error.
    #[test]
    fn it_agrees_with_the_system_from_every_thread() {
        let usable = clock_source().is_some_and(|source| is_counter(&source));
        let clock = CycleClock::new();
        assert_eq!(clock.is_ok(), usable, "{clock:?}");
        let Ok(clock) = clock else { return };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut last = clock.now();
                    let until = last.saturating_add(Duration::from_millis(1500));
                    while last < until {
                        let before = clock.0.source().system();
                        let now = clock.now();
                        let after = clock.0.source().system();
                        assert!(now >= last, "backwards");
                        let (early, late) = (before.saturating_sub(now.get()), now.get().saturating_sub(after));
                        assert!(early.max(late) < 500_000, "{early} ns early, {late} ns late");
                        last = now;
                    }
                });
            }
        });
        assert!(clock.is_counting());
    }
}
