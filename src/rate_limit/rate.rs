use std::{fmt, time::Duration};

/// A number of calls per period.
///
/// ```
/// use std::time::Duration;
/// use tower_rampart::rate_limit::Rate;
///
/// assert_eq!(Rate::per_second(100), Rate::new(100, Duration::from_secs(1)));
/// assert_eq!(Rate::new(5, Duration::from_secs(900)).to_string(), "5 per 900s");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    pub(super) count: u32,
    pub(super) per: Duration,
}

impl Rate {
    /// Creates a rate of `count` calls per period of `per`.
    pub const fn new(count: u32, per: Duration) -> Self {
        Self { count, per }
    }

    /// Creates a rate of `count` calls per second.
    pub const fn per_second(count: u32) -> Self {
        Self::new(count, Duration::from_secs(1))
    }

    /// Creates a rate of `count` calls per minute.
    pub const fn per_minute(count: u32) -> Self {
        Self::new(count, Duration::from_secs(60))
    }

    /// Creates a rate of `count` calls per hour.
    pub const fn per_hour(count: u32) -> Self {
        Self::new(count, Duration::from_secs(3600))
    }

    /// Returns the number of calls per period.
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Returns the period.
    pub const fn per(&self) -> Duration {
        self.per
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} per {:?}", self.count, self.per)
    }
}
