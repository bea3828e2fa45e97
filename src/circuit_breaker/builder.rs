use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    CircuitBreaker,
    inner::{CircuitBreakerInner, OpenTimes},
};
use crate::{
    clock::{Clock, TimeSource},
    error::ConfigError,
    event::{EventEmitter, Observer, Pattern},
    name::Name,
    shared::random::Random,
    shared::waker_list::WakerList,
    shared::{striped::StripedArc, thread_id::stripes},
    state::{
        circuit::{Circuit, CircuitConfig, MAX_CONSECUTIVE_FAILURES, MAX_PROBES},
        window::{Rates, count::MAX_SIZE, millionths, time::MAX_BUCKETS},
    },
};

/// Configures a [`CircuitBreaker`].
///
/// # Defaults
///
/// | field | default | reason |
/// |---|---|---|
/// | `time_window` | 10 s in 10 buckets | long enough to ride out a hiccup, short enough to trip within seconds of an outage |
/// | `failure_rate` | 0.8 | a dependency that answers one call in five is worth asking; at half, a breaker costs more answers than the fault |
/// | `min_calls` | 20 | fewer are no evidence of a rate |
/// | `open_duration` | 1 s, not growing | bounds the time for which a dependency that is well again is refused; growth costs more answers than it spares calls |
/// | `open_jitter` | on | clients that tripped together should not probe together |
/// | `probes`, `probe_successes` | 3, 3 | one lucky probe at a half-broken dependency proves nothing |
/// | `probe_timeout` | 30 s | a probe without an end must not keep the circuit half-open |
/// | `consecutive_failures`, `count_window`, `slow_calls`, `gradual_recovery` | off | |
///
/// The figures behind these, from the fault lab: [docs/evidence.md](https://docs.rs/crate/tower-rampart/latest/source/docs/evidence.md).
#[must_use]
pub struct CircuitBreakerBuilder {
    name: Name,
    consecutive: Option<u32>,
    count: Option<u32>,
    time: Option<Duration>,
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
    time_source: TimeSource,
}

impl CircuitBreakerBuilder {
    pub(super) fn new(name: Name) -> Self {
        Self {
            name,
            consecutive: None,
            count: None,
            time: Some(Duration::from_secs(10)),
            buckets: 10,
            min_calls: 20,
            failure_rate: Some(0.8),
            slow: None,
            open: OpenTimes { first: Duration::from_secs(1), growth: 1.0, max: Duration::from_secs(1), jitter: true },
            probes: 3,
            successes: 3,
            probe_timeout: Duration::from_secs(30),
            recovery: None,
            random: Random::from_entropy(),
            observer: None,
            time_source: TimeSource::default(),
        }
    }

    /// Trips at so many failures in a row, from 1 to 65,535. A success resets the run; what is throttled or ignored
    /// does neither.
    pub fn consecutive_failures(mut self, failures: u32) -> Self {
        self.consecutive = Some(failures);
        self
    }

    /// Judges the rates by the last `calls` calls, from 1 to 1000, exactly. A success in a window without failures
    /// writes nothing and reads no clock. It works beside the time window; [`no_time_window`](Self::no_time_window) turns
    /// that off.
    pub fn count_window(mut self, calls: u32) -> Self {
        self.count = Some(calls);
        self
    }

    /// Judges the rates by the calls of the last `length`, from 10 ms to 24 hours. It moves by a bucket at a time.
    pub fn time_window(mut self, length: Duration) -> Self {
        self.time = Some(length);
        self
    }

    /// Buckets of the time window, from 1 to 16.
    pub fn time_buckets(mut self, buckets: u32) -> Self {
        self.buckets = buckets;
        self
    }

    /// Does without the time window.
    pub fn no_time_window(mut self) -> Self {
        self.time = None;
        self
    }

    /// Rates are judged from so many calls in a window on; at least 1.
    pub fn min_calls(mut self, calls: u32) -> Self {
        self.min_calls = calls;
        self
    }

    /// Trips when at least this share of a window's calls failed or were throttled: above 0, at most 1. Counted in
    /// shared per million. Judged with each failure, and in the count window also by the call that reaches `min_calls`.
    pub fn failure_rate(mut self, share: f64) -> Self {
        self.failure_rate = Some(share);
        self
    }

    /// Does not trip by a share of failures.
    pub fn no_failure_rate(mut self) -> Self {
        self.failure_rate = None;
        self
    }

    /// Trips when at least `share` of a window's calls took longer than `limit`: above 0, at most 1. Reads the clock at
    /// the beginning and the end of each call. A call that is cancelled after `limit` counts as slow too; a slow probe
    /// fails.
    pub fn slow_calls(mut self, limit: Duration, share: f64) -> Self {
        self.slow = Some((limit, share));
        self
    }

    /// How long the circuit stays open at first; at least 1 ms. Rounded down to a quarter of a millisecond. Raises the
    /// maximum of the growth if it is shorter.
    pub fn open_duration(mut self, first: Duration) -> Self {
        self.open.first = first;
        self.open.max = self.open.max.max(first);
        self
    }

    /// Each time a probe fails the open time is multiplied by `factor`, at least 1, up to `max`. A factor of 1, the default,
    /// keeps it.
    /// It stops growing after 16 times.
    pub fn open_growth(mut self, factor: f64, max: Duration) -> Self {
        (self.open.growth, self.open.max) = (factor, max);
        self
    }

    /// Draws each open time uniformly from the upper half of itself ("equal jitter").
    pub fn open_jitter(mut self, jitter: bool) -> Self {
        self.open.jitter = jitter;
        self
    }

    /// Probes at once while half-open, from 1 to 8191.
    pub fn probes(mut self, at_once: u32) -> Self {
        self.probes = at_once;
        self
    }

    /// Probes that must succeed to close the circuit, from 1 to 8191. A failed one opens it again.
    pub fn probe_successes(mut self, successes: u32) -> Self {
        self.successes = successes;
        self
    }

    /// When all places are taken by probes that do not end, others may take them after so long; at least 1 ms.
    pub fn probe_timeout(mut self, limit: Duration) -> Self {
        self.probe_timeout = limit;
        self
    }

    /// After closing, lets a growing share of the calls through, from a tenth to all, over so long: from 100 ms to one
    /// hour. For dependencies with cold caches that a stampede would bring down again.
    pub fn gradual_recovery(mut self, over: Duration) -> Self {
        self.recovery = Some(over);
        self
    }

    /// Makes the jitter of open times repeatable.
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = Random::seeded(seed);
        self
    }

    /// Who is told what happens.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observer = Some(Arc::new(observer));
        self
    }

    /// Another clock than tokio's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.time_source = TimeSource::custom(clock);
        self
    }

    /// The breaker, closed.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a field out of its range, and when there is no rule by which it could trip.
    pub fn build(self) -> Result<CircuitBreaker, ConfigError> {
        let wrong = |field, reason: &'static str| Err(ConfigError::new(field, reason));
        if self.consecutive.is_some_and(|run| !(1..=MAX_CONSECUTIVE_FAILURES).contains(&run)) {
            return wrong("consecutive_failures", "must be from 1 to 65,535");
        }
        if let Some(size) = self.count {
            if !(1..=MAX_SIZE).contains(&size) {
                return wrong("count_window", "must be from 1 to 1000 calls");
            }
            if self.min_calls > size {
                return wrong("min_calls", "is above the size of the count window: it could never be reached");
            }
        }
        let time_range = Duration::from_millis(10)..=Duration::from_secs(86_400);
        if self.time.is_some_and(|length| !time_range.contains(&length)) {
            return wrong("time_window", "must be from 10 ms to 24 hours");
        }
        if !(1..=MAX_BUCKETS).contains(&self.buckets) {
            return wrong("time_buckets", "must be from 1 to 16");
        }
        if self.min_calls == 0 {
            return wrong("min_calls", "is zero: a share of no calls is no number; use at least 1");
        }
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        if self.failure_rate.is_some_and(|share| !is_share(share)) {
            return wrong("failure_rate", "must be a number above 0 and at most 1");
        }
        if self.slow.is_some_and(|(limit, share)| limit.is_zero() || !is_share(share)) {
            return wrong("slow_calls", "needs a limit above zero, and a share above 0 and at most 1");
        }
        let windows = self.count.is_some() || self.time.is_some();
        let rates = self.failure_rate.is_some() || self.slow.is_some();
        if self.slow.is_some() && !windows {
            return wrong("slow_calls", "needs a count or a time window to be a share of");
        }
        if self.consecutive.is_none() && !(windows && rates) {
            return wrong(
                "failure_rate",
                "there is no rule to trip by: set a window and a rate, or consecutive_failures",
            );
        }
        let millisecond = Duration::from_millis(1);
        if self.open.first < millisecond {
            return wrong("open_duration", "must be at least 1 ms");
        }
        if !(self.open.growth.is_finite() && self.open.growth >= 1.0) {
            return wrong("open_growth", "the factor must be a number, at least 1");
        }
        if self.open.max < self.open.first {
            return wrong("open_growth", "the maximum is below open_duration");
        }
        if !(1..=MAX_PROBES).contains(&self.probes) {
            return wrong("probes", "must be from 1 to 8191");
        }
        if !(1..=MAX_PROBES).contains(&self.successes) {
            return wrong("probe_successes", "must be from 1 to 8191");
        }
        if self.probe_timeout < millisecond {
            return wrong("probe_timeout", "must be at least 1 ms");
        }
        let recovery_range = Duration::from_millis(100)..=Duration::from_secs(3600);
        if self.recovery.is_some_and(|over| !recovery_range.contains(&over)) {
            return wrong("gradual_recovery", "must be from 100 ms to one hour");
        }
        Ok(self.make())
    }

    /// With a configuration that has been checked.
    pub(super) fn make(self) -> CircuitBreaker {
        let rates = Rates {
            min_calls: self.min_calls,
            failed: self.failure_rate.map(millionths),
            slow: self.slow.map(|(_, share)| millionths(share)),
        };
        let judged = rates.failed.is_some() || rates.slow.is_some();
        let watched = self.slow.is_some() || self.observer.is_some();
        let circuit = Circuit::new(CircuitConfig {
            consecutive: self.consecutive.and_then(NonZeroU32::new),
            count: self.count.filter(|_| judged).map(|size| (size, rates)),
            time: self.time.filter(|_| judged).map(|length| (length, self.buckets, rates)),
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
            quiet: !watched && (self.time.is_none() || !judged),
            random: self.random,
            waiters: WakerList::default(),
            events: EventEmitter::new(Pattern::CircuitBreaker, self.name, self.observer),
            time: self.time_source,
        }))
    }
}

impl fmt::Debug for CircuitBreakerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreakerBuilder")
            .field("name", &self.name)
            .field("consecutive_failures", &self.consecutive)
            .field("count_window", &self.count)
            .field("time_window", &self.time)
            .field("min_calls", &self.min_calls)
            .field("failure_rate", &self.failure_rate)
            .field("slow_calls", &self.slow)
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
