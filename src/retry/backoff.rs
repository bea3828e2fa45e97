use std::time::Duration;

use crate::{error::ConfigError, shared::random::Random, state::time::nanos_of};

/// The random spread of delays, so that clients that failed together do not retry together.
///
/// The formulas are those of Marc Brooker's "Exponential Backoff And Jitter" (AWS, 2015). The cap
/// applies after the jitter: no delay is ever longer than the backoff's maximum, unless the service
/// asks for it. Its hint (`Retry-After`) is a floor: with any jitter but `None`, a random time of
/// up to the delay and a tenth of the hint is added, so that clients that were sent away together
/// do not come back together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// No spread. For tests, and for a dependency's only client.
    None,
    /// Uniform between zero and the delay. Spreads best, and is the default.
    #[default]
    Full,
    /// Uniform between half the delay and the delay: no retry is immediate.
    Equal,
    /// Uniform between the base and three times the previous delay, or three times the base for the
    /// first delay. The backoff's factor is not used.
    Decorrelated,
}

/// The delays between the attempts of a call.
///
/// ```
/// use std::time::Duration;
/// use tower_rampart::retry::{Backoff, Jitter};
///
/// let backoff = Backoff::exponential(Duration::from_millis(100), Duration::from_secs(1)).jitter(Jitter::None);
/// let delays: Vec<_> = backoff.delays(0).take(5).map(|delay| delay.as_millis()).collect();
/// assert_eq!(delays, [100, 200, 400, 800, 1000]);
/// ```
///
/// # Defaults
///
/// Exponential from 50 ms to 20 s, doubling, with full jitter. The fault lab's figures for base and
/// jitter: [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Backoff {
    base: Duration,
    factor: f64,
    max: Duration,
    jitter: Jitter,
}

impl Default for Backoff {
    fn default() -> Self {
        Self::exponential(Duration::from_millis(50), Duration::from_secs(20))
    }
}

impl Backoff {
    /// Creates a backoff with the same delay every time, with full jitter unless changed.
    pub const fn fixed(delay: Duration) -> Self {
        Self { base: delay, factor: 1.0, max: delay, jitter: Jitter::Full }
    }

    /// Creates a backoff that starts at `base` and doubles up to `max`, with full jitter unless
    /// changed.
    pub const fn exponential(base: Duration, max: Duration) -> Self {
        Self { base, factor: 2.0, max, jitter: Jitter::Full }
    }

    /// Sets the factor between consecutive delays, at least 1. The default is 2, or 1 for a fixed
    /// backoff.
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Sets the jitter.
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// Returns the longest delay.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// Returns the delays as an endless iterator, for retries without [`Retry`](super::Retry). The
    /// same seed gives the same delays.
    pub fn delays(&self, seed: u64) -> Delays {
        Delays { backoff: *self, progress: Progress::default(), random: Random::seeded(seed) }
    }

    /// Returns the delay after a service's hint: at least the hint, and at least the drawn backoff.
    /// Jitter is added above the hint, since all callers get the same one: up to the drawn backoff
    /// and a tenth of the hint, but not beyond `cap`.
    pub(super) fn after_hint(&self, hint: Duration, drawn: Duration, cap: Duration, random: &Random) -> Duration {
        let spread = match self.jitter {
            Jitter::None => Duration::ZERO,
            Jitter::Full | Jitter::Equal | Jitter::Decorrelated => drawn.saturating_add(hint / 10),
        };
        let spread = spread.min(cap.saturating_sub(hint));
        hint.saturating_add(random.duration(Duration::ZERO..=spread)).max(drawn)
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |reason| Err(ConfigError::new("backoff", reason));
        if self.base.is_zero() && !self.max.is_zero() {
            wrong("the base delay is zero and would never grow")
        } else if !(self.factor.is_finite() && self.factor >= 1.0) {
            wrong("the factor must be finite and at least 1")
        } else if self.base > self.max {
            wrong("the base delay is above the maximum")
        } else {
            Ok(())
        }
    }
}

/// The progress of one call through its backoff.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The last delay before jitter (for decorrelated jitter: the last delay), in nanoseconds; zero
    /// before the first. A backoff with delays of zero has no others.
    last: u64,
}

impl Progress {
    pub(super) fn next(&mut self, backoff: &Backoff, random: &Random) -> Duration {
        let (base, max) = (nanos_of(backoff.base), nanos_of(backoff.max));
        let grown = match (self.last, backoff.jitter) {
            // Applies to the first delay too: clients that failed together must not retry together.
            (0, Jitter::Decorrelated) => base.saturating_mul(3),
            (last, Jitter::Decorrelated) => last.saturating_mul(3),
            (0, _) => base,
            // Casting from float saturates; doubling is exact up to 104 days.
            (last, _) => (last as f64 * backoff.factor) as u64,
        };
        let grown = grown.min(max);
        let delay = Duration::from_nanos(grown);
        let drawn = match backoff.jitter {
            Jitter::None => delay,
            Jitter::Full => random.duration(Duration::ZERO..=delay),
            Jitter::Equal => random.duration(delay / 2..=delay),
            Jitter::Decorrelated => random.duration(backoff.base.min(delay)..=delay),
        };
        self.last = if backoff.jitter == Jitter::Decorrelated { nanos_of(drawn) } else { grown };
        drawn
    }
}

/// An endless iterator over the delays of a [`Backoff`].
#[derive(Debug)]
pub struct Delays {
    backoff: Backoff,
    progress: Progress,
    random: Random,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.progress.next(&self.backoff, &self.random))
    }
}
