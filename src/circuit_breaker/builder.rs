use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    CircuitBreaker,
    inner::{CircuitBreakerInner, OpenTimes},
    reserved_probes::ReservedProbes,
};
use crate::{
    clock::TimeSource,
    error::ConfigError,
    event::{EventEmitter, Observer},
    name::Name,
    pattern::Pattern,
    shared::{random::Random, striped::StripedArc, thread_id::stripes, waker_list::WakerList},
    state::{
        circuit::{Circuit, CircuitConfig, MAX_CONSECUTIVE_FAILURES, MAX_PROBES},
        window::{
            Rates,
            count::MAX_SIZE,
            millionths,
            time::{MAX_BUCKETS, max_counted},
        },
    },
};

/// Configures a [`CircuitBreaker`].
///
/// # Defaults
///
/// | field | default | reason |
/// |---|---|---|
/// | `time_window` | 10 s in 10 buckets | long enough to ride out a hiccup, short enough to trip within seconds of an outage |
/// | `failure_rate` | 0.8 | a dependency that answers one call in five is still worth calling; at 0.5 the breaker costs more answers than the fault |
/// | `min_calls` | 20 | a rate of fewer calls is no evidence |
/// | `open_duration` | 1 s, not growing | bounds the time for which a recovered dependency is rejected; growth costs more answers than it saves calls |
/// | `open_jitter` | on | clients that tripped together should not probe together |
/// | `probes`, `probe_successes` | 3, 1 | a failure rate at which the circuit stays closed must also close it: each further success required makes that less likely, and if the dependency is broken after all, the window trips again |
/// | `probe_timeout` | 30 s | a probe that never completes must not keep the circuit half-open |
/// | `consecutive_failures`, `count_window`, `slow_calls`, `gradual_recovery` | off | |
///
/// The figures behind these, measured by the fault lab:
/// [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
#[must_use]
pub struct CircuitBreakerBuilder {
    name: Name,
    consecutive: Option<u32>,
    count_window: Option<u32>,
    time_window: Option<Duration>,
    buckets: u32,
    min_calls: u32,
    failure_rate: Option<f64>,
    slow: Option<(Duration, f64)>,
    open: OpenTimes,
    probes: u32,
    successes: u32,
    probe_timeout: Duration,
    recovery: Option<Duration>,
    random: Random,
    observer: Option<Arc<dyn Observer>>,
    time: TimeSource,
}

impl CircuitBreakerBuilder {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            consecutive: None,
            count_window: None,
            time_window: Some(Duration::from_secs(10)),
            buckets: 10,
            min_calls: 20,
            failure_rate: Some(0.8),
            slow: None,
            open: OpenTimes { first: Duration::from_secs(1), growth: 1.0, max: Duration::from_secs(1), jitter: true },
            probes: 3,
            successes: 1,
            probe_timeout: Duration::from_secs(30),
            recovery: None,
            random: Random::from_entropy(),
            observer: None,
            time: TimeSource::default(),
        }
    }

    /// Trips after this many consecutive failures, from 1 to 65,535. A success resets the count; a
    /// throttled or ignored call leaves it unchanged.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive = Some(failures);
        self
    }

    /// Evaluates the rates over exactly the last `calls` calls, from 1 to 1000. A success in a
    /// window without failures writes nothing and reads no clock. The time window stays in place
    /// beside it; [`no_time_window`](Self::no_time_window) removes that.
    pub fn count_window(mut self, calls: u32) -> Self {
        self.count_window = Some(calls);
        self
    }

    /// Evaluates the rates over the calls of the last `length`, from 10 ms to 24 hours. The window
    /// advances one bucket at a time.
    ///
    /// A clock that goes ahead and back makes the window stricter: failures that it counted
    /// meanwhile remain, and successes do not. If it goes back by less than a second, a shorter
    /// window counts nothing until the clock is where it was.
    pub fn time_window(mut self, length: Duration) -> Self {
        self.time_window = Some(length);
        self
    }

    /// Sets the number of buckets of the time window, from 1 to 16.
    pub fn time_buckets(mut self, buckets: u32) -> Self {
        self.buckets = buckets;
        self
    }

    /// Removes the time window.
    pub fn no_time_window(mut self) -> Self {
        self.time_window = None;
        self
    }

    /// Sets the number of calls that a window must hold before its rates are evaluated: at least 1,
    /// and at most what the window can count, which is the size of a count window, and 8,388,607
    /// for a time window of ten seconds (in proportion for other lengths, in powers of two).
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Trips when at least this share of a window's calls failed or were throttled: from one
    /// millionth to 1, with a resolution of one millionth. Evaluated at each failure, and in the
    /// count window also at the call that reaches `min_calls`.
    pub fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = Some(share);
        self
    }

    /// Removes the failure rate rule.
    pub fn no_failure_rate(mut self) -> Self {
        self.failure_rate = None;
        self
    }

    /// Trips when at least `share` of a window's calls took longer than `limit`: from one millionth
    /// to 1. Reads the clock at the start and the end of each call. A call that is cancelled after
    /// `limit` counts as slow too; a slow probe fails.
    pub fn slow_calls(mut self, limit: Duration, share: f64) -> Self {
        self.slow = Some((limit, share));
        self
    }

    /// Sets the first open time, from 1 ms to a year. Rounded down to a quarter of a millisecond.
    /// Raises the maximum of [`open_growth`](Self::open_growth) if that is shorter.
    pub fn open_duration(mut self, first: Duration) -> Self {
        self.open.first = first;
        self.open.max = self.open.max.max(first);
        self
    }

    /// Multiplies the open time by `factor`, at least 1, each time a probe fails, up to `max`,
    /// which is at most a year. A factor of 1, the default, keeps it constant. The factor applies
    /// at most 16 times.
    pub fn open_growth(mut self, factor: f64, max: Duration) -> Self {
        (self.open.growth, self.open.max) = (factor, max);
        self
    }

    /// Sets whether each open time is drawn uniformly from its upper half ("equal jitter").
    pub fn open_jitter(mut self, jitter: bool) -> Self {
        self.open.jitter = jitter;
        self
    }

    /// Sets the maximum number of concurrent probes while half-open, from 1 to 8191.
    pub fn probes(mut self, concurrent: u32) -> Self {
        self.probes = concurrent;
        self
    }

    /// Sets the number of probes that must succeed to close the circuit, from 1 to 8191. A failed
    /// probe opens it again.
    ///
    /// If a share `f` of the calls fails, the circuit closes after an open time with a probability
    /// of `(1 - f)` to the power of this number. With 1 and the default failure rate of 0.8, every
    /// dependency that the closed circuit would put up with closes it within five open times on
    /// average. With 3, it takes 8 open times at a rate of 0.5, and 125 at 0.8.
    pub fn probe_successes(mut self, successes: u32) -> Self {
        self.successes = successes;
        self
    }

    /// Sets the time after which probes that have not completed lose their slots to new ones, from
    /// 1 ms to a year.
    pub fn probe_timeout(mut self, limit: Duration) -> Self {
        self.probe_timeout = limit;
        self
    }

    /// Admits a growing share of the calls after closing, from a tenth to all, over this time: from
    /// 100 ms to one hour. The rest is rejected as
    /// [`CircuitRecovering`](crate::Rejection::CircuitRecovering). For dependencies with cold
    /// caches, which a stampede would take down again.
    pub fn gradual_recovery(mut self, over: Duration) -> Self {
        self.recovery = Some(over);
        self
    }

    /// Seeds the jitter of open times, to make it reproducible.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = Random::seeded(seed);
        self
    }

    observer_setter!();

    clock_setter!();

    /// Builds the breaker, in the closed state.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if a field is out of range, or if no rule could trip the circuit.
    pub fn build(self) -> Result<CircuitBreaker, ConfigError> {
        self.check().map_err(|error| error.of(&self.name))?;
        Ok(self.make())
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.check_windows()?;
        self.check_rules()?;
        self.check_open_time()?;
        self.check_probes()
    }

    fn check_windows(&self) -> Result<(), ConfigError> {
        if let Some(size) = self.count_window {
            check((1..=MAX_SIZE).contains(&size), "count_window", "must be from 1 to 1000 calls")?;
            let reason = "exceeds the size of the count window: it could never be reached";
            check(self.min_calls <= size, "min_calls", reason)?;
        }
        let lengths = Duration::from_millis(10)..=Duration::from_secs(86_400);
        let length_fits = self.time_window.is_none_or(|length| lengths.contains(&length));
        check(length_fits, "time_window", "must be from 10 ms to 24 hours")?;
        check((1..=MAX_BUCKETS).contains(&self.buckets), "time_buckets", "must be from 1 to 16")?;
        let reason = "exceeds what the time window can count: it might never be reached";
        let fits = self.time_window.is_none_or(|length| u64::from(self.min_calls) <= max_counted(length, self.buckets));
        check(fits, "min_calls", reason)?;
        check(self.min_calls > 0, "min_calls", "is zero: a share of no calls is undefined; use at least 1")
    }

    fn check_rules(&self) -> Result<(), ConfigError> {
        let failures_fit = self.consecutive.is_none_or(|failures| (1..=MAX_CONSECUTIVE_FAILURES).contains(&failures));
        check(failures_fit, "consecutive_failures", "must be from 1 to 65,535")?;
        let is_share = |share: f64| (MIN_SHARE..=1.0).contains(&share);
        let rate_fits = self.failure_rate.is_none_or(is_share);
        check(rate_fits, "failure_rate", "must be a number from 0.000001 to 1")?;
        let slow_fits = self.slow.is_none_or(|(limit, share)| !limit.is_zero() && is_share(share));
        check(slow_fits, "slow_calls", "needs a limit above zero, and a share from 0.000001 to 1")?;
        let has_window = self.count_window.is_some() || self.time_window.is_some();
        let has_rate = self.failure_rate.is_some() || self.slow.is_some();
        let reason = "needs a count window or a time window";
        check(self.slow.is_none() || has_window, "slow_calls", reason)?;
        let reason = "no rule could trip the circuit: set a window and a rate, or consecutive_failures";
        check(self.consecutive.is_some() || has_window && has_rate, "failure_rate", reason)
    }

    fn check_open_time(&self) -> Result<(), ConfigError> {
        let OpenTimes { first, growth, max, .. } = self.open;
        let times = Duration::from_millis(1)..=YEAR;
        check(times.contains(&first), "open_duration", "must be from 1 ms to a year (see force_open)")?;
        let factor_fits = growth.is_finite() && growth >= 1.0;
        check(factor_fits, "open_growth", "the factor must be a number, at least 1")?;
        check(max >= first, "open_growth", "the maximum is below open_duration")?;
        check(max <= YEAR, "open_growth", "the maximum is above a year")
    }

    fn check_probes(&self) -> Result<(), ConfigError> {
        check((1..=MAX_PROBES).contains(&self.probes), "probes", "must be from 1 to 8191")?;
        check((1..=MAX_PROBES).contains(&self.successes), "probe_successes", "must be from 1 to 8191")?;
        let timeouts = Duration::from_millis(1)..=YEAR;
        check(timeouts.contains(&self.probe_timeout), "probe_timeout", "must be from 1 ms to a year")?;
        let recoveries = Duration::from_millis(100)..=Duration::from_secs(3600);
        let recovery_fits = self.recovery.is_none_or(|over| recoveries.contains(&over));
        check(recovery_fits, "gradual_recovery", "must be from 100 ms to one hour")
    }

    /// Builds the breaker from a configuration that has been checked.
    pub(super) fn make(self) -> CircuitBreaker {
        let rates = Rates {
            min_calls: self.min_calls,
            failed: self.failure_rate.map(millionths),
            slow: self.slow.map(|(_, share)| millionths(share)),
        };
        let has_rate = rates.failed.is_some() || rates.slow.is_some();
        let watched = self.slow.is_some() || self.observer.is_some();
        let circuit = Circuit::new(CircuitConfig {
            consecutive: self.consecutive.and_then(NonZeroU32::new),
            count: self.count_window.filter(|_| has_rate).map(|size| (size, rates)),
            time: self.time_window.filter(|_| has_rate).map(|length| (length, self.buckets, rates)),
            slow: self.slow.is_some(),
            probes: self.probes,
            successes: self.successes,
            probe_timeout: self.probe_timeout,
            recovery: self.recovery,
            stripes: stripes(),
        });
        CircuitBreaker(StripedArc::new(CircuitBreakerInner {
            circuit,
            open_times: self.open,
            slow_after: self.slow.map(|(limit, _)| limit),
            watched,
            quiet: !watched && (self.time_window.is_none() || !has_rate),
            random: self.random,
            waiters: WakerList::default(),
            reserved_probes: ReservedProbes::default(),
            events: EventEmitter::new(Pattern::CircuitBreaker, self.name, self.observer),
            time: self.time,
        }))
    }
}

/// Below it, a share would be rounded to another.
const MIN_SHARE: f64 = 1e-6;

/// Longer times could pass the end of a clock's nine years.
const YEAR: Duration = Duration::from_secs(366 * 86_400);

fn check(holds: bool, field: &'static str, reason: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError::new(field, reason)) }
}

impl fmt::Debug for CircuitBreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder")
            .field("name", &self.name)
            .field("consecutive_failures", &self.consecutive)
            .field("count_window", &self.count_window)
            .field("time_window", &self.time_window)
            .field("min_calls", &self.min_calls)
            .field("failure_rate", &self.failure_rate)
            .field("slow_calls", &self.slow)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
