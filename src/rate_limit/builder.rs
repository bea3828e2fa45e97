use std::{fmt, sync::Arc, time::Duration};

use super::{Rate, RateLimiter, inner::RateLimiterInner, queue::Tokens};
use crate::{
    clock::TimeSource,
    error::ConfigError,
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::striped::StripedArc,
    state::gcra::{Params, ParamsError},
};

/// Configures a [`RateLimiter`].
///
/// # Defaults
///
/// | field | default |
/// |---|---|
/// | `burst` | the rate's count: a full period's worth |
/// | `max_wait` | zero: reject immediately |
/// | `observer` | none |
/// | `clock` | tokio's |
#[must_use]
pub struct RateLimiterBuilder {
    name: Name,
    rate: Rate,
    burst: Option<u32>,
    max_wait: Duration,
    observer: Option<Arc<dyn Observer>>,
    time: TimeSource,
}

impl RateLimiterBuilder {
    pub(super) fn new(name: Name, rate: Rate) -> Self {
        Self { name, rate, burst: None, max_wait: Duration::ZERO, observer: None, time: TimeSource::default() }
    }

    /// Sets the maximum number of tokens that can be consumed at one instant, from 1 to 67,108,863.
    /// With a burst of 1, calls are spaced evenly.
    pub fn burst(mut self, tokens: u32) -> Self {
        self.burst = Some(tokens);
        self
    }

    /// Sets how long a call may wait for its tokens. A call that would have to wait longer is
    /// rejected immediately.
    ///
    /// A call whose wait turns out longer, because the rate was lowered meanwhile or its task was
    /// not polled when its tokens were due, is rejected at most 10 ms later.
    ///
    /// Applies where waiting is requested: [`RateLimitLayer::wait`](super::RateLimitLayer::wait),
    /// [`RateLimiter::acquire`] and [`RateLimiter::run`].
    pub fn max_wait(mut self, wait: Duration) -> Self {
        self.max_wait = wait;
        self
    }

    observer_setter!();

    clock_setter!("It makes the decisions. Waiting uses tokio's timers.");

    /// Builds the limiter, with all tokens available.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if the rate's count, its period or the burst is zero; if the burst takes
    /// more than two years to refill; or if the rate is so high that it would be kept with an error
    /// of more than 1%, which is possible above 80 million a second.
    pub fn build(self) -> Result<RateLimiter, ConfigError> {
        let burst = self.burst.unwrap_or(self.rate.count);
        let params = params(self.rate, burst).map_err(|error| error.of(&self.name))?;
        Ok(RateLimiter(StripedArc::new(RateLimiterInner {
            tokens: Tokens::new(self.rate, params),
            built_rate: (self.rate, burst),
            max_wait: self.max_wait,
            events: EventEmitter::new(Pattern::RateLimiter, self.name, self.observer),
            time: self.time,
        })))
    }
}

/// Checks the rate on its own, apart from the burst.
pub(super) fn check_rate(rate: Rate) -> Result<(), ConfigError> {
    if rate.count == 0 {
        return Err(ConfigError::new("rate", "is zero calls: no call could ever be admitted"));
    }
    if rate.per.is_zero() {
        return Err(ConfigError::new("rate", "has a period of zero; use a longer one"));
    }
    Ok(())
}

pub(super) fn params(rate: Rate, burst: u32) -> Result<Params, ConfigError> {
    check_rate(rate)?;
    if burst == 0 {
        return Err(ConfigError::new("burst", "is zero: no call could ever be admitted; use at least 1"));
    }
    if burst > Params::MAX_BURST {
        return Err(ConfigError::new("burst", "must be at most 67,108,863"));
    }
    Params::new(rate.count, rate.per, burst).map_err(|error| match error {
        ParamsError::RateTooHigh => {
            ConfigError::new("rate", "is too high to be kept within 1%: use at most 80,000,000 a second")
        }
        ParamsError::RateTooLow => ConfigError::new("rate", "is below one in two years"),
        ParamsError::BurstTooLong => ConfigError::new("burst", "takes more than two years to refill at this rate"),
    })
}

impl fmt::Debug for RateLimiterBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiterBuilder")
            .field("name", &self.name)
            .field("rate", &self.rate)
            .field("burst", &self.burst)
            .field("max_wait", &self.max_wait)
            .finish_non_exhaustive()
    }
}
