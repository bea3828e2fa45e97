use std::time::Duration;

use crate::{error::ConfigError, shared::random::Random, state::time::nanos_of};

/// How delays are spread, so that clients that failed together do not come back together.
///
/// The formulas are those of Marc Brooker's "Exponential Backoff And Jitter" (AWS, 2015). The cap applies after the
/// jitter: no delay is ever longer than the backoff's maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Jitter {
    /// The delay itself. For tests, and for a client that is alone.
    None,
    /// Uniform between zero and the delay. Spreads best, and is the default.
    #[default]
    Full,
    /// Uniform between half the delay and the delay: never at once.
    Equal,
    /// Uniform between the base and three times the previous delay, which before the first one is the base. Has its own
    /// growth: the factor is not used.
    Decorrelated,
}

/// The delays between attempts.
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
/// Exponential from 50 ms to 20 s, doubling, with full jitter. The figures behind base and jitter, from the fault lab:
/// [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
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
    /// The same delay every time, with full jitter unless changed.
    pub const fn fixed(delay: Duration) -> Self {
        Self { base: delay, factor: 1.0, max: delay, jitter: Jitter::Full }
    }

    /// Begins with `base` and doubles up to `max`, with full jitter unless changed.
    pub const fn exponential(base: Duration, max: Duration) -> Self {
        Self { base, factor: 2.0, max, jitter: Jitter::Full }
    }

    /// Multiplies by `factor`, at least 1, instead of doubling.
    pub const fn factor(mut self, factor: f64) -> Self {
        self.factor = factor;
        self
    }

    /// Spreads the delays.
    pub const fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = jitter;
        self
    }

    /// The longest delay.
    pub const fn max(&self) -> Duration {
        self.max
    }

    /// The delays themselves, without end, for use by hand. The same seed gives the same delays.
    pub fn delays(&self, seed: u64) -> Delays {
        Delays { backoff: *self, progress: Progress::default(), random: Random::seeded(seed) }
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |reason| Err(ConfigError::new("backoff", reason));
        if self.base.is_zero() && !self.max.is_zero() {
            wrong("the base delay is zero, and would stay so however often it is multiplied")
        } else if !(self.factor.is_finite() && self.factor >= 1.0) {
            wrong("the factor must be a number, at least 1")
        } else if self.base > self.max {
            wrong("the base delay is above the maximum")
        } else {
            Ok(())
        }
    }
}

/// How far one request is in its backoff. Every request has its own.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// The last delay before jitter (for decorrelated jitter: the last delay), in nanoseconds.
    last: Option<u64>,
}

impl Progress {
    pub(super) fn next(&mut self, backoff: &Backoff, random: &Random) -> Duration {
        let (base, max) = (nanos_of(backoff.base), nanos_of(backoff.max));
        let grown = match (self.last, backoff.jitter) {
            // From the first delay on: clients that failed together must be apart when they come back.
            (last, Jitter::Decorrelated) => last.unwrap_or(base).saturating_mul(3),
            (None, _) => base,
            // Casting from float saturates; doubling is exact up to 104 days.
            (Some(last), _) => (last as f64 * backoff.factor) as u64,
        };
        let grown = grown.min(max);
        let delay = Duration::from_nanos(grown);
        let drawn = match backoff.jitter {
            Jitter::None => delay,
            Jitter::Full => random.duration(Duration::ZERO..=delay),
            Jitter::Equal => random.duration(delay / 2..=delay),
            Jitter::Decorrelated => random.duration(backoff.base.min(delay)..=delay),
        };
        self.last = Some(if backoff.jitter == Jitter::Decorrelated { nanos_of(drawn) } else { grown });
        drawn
    }
}

/// Iterator over the delays of a [`Backoff`]. Never ends.
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
