use std::{fmt, future::Future, time::Duration};

use super::{
    CircuitBreakerBuilder, CircuitBreakerLayer,
    admitted::AdmittedCall,
    inner::{BreakerOwner, CircuitBreakerInner},
};
use crate::{
    call::{CancelOnDrop, Guarded, LeafCall, WithShared},
    classify::{Classify, DefaultClassifier, Verdict},
    error::{AsRejection, ConfigError, FromRejection, Rejection},
    event::CircuitState,
    name::Name,
    shared::striped::StripedArc,
    state::window::Counts,
};

/// A handle to a circuit, which rejects calls to a failing dependency. See the [module
/// docs](super).
///
/// Cheap to clone. All clones share the circuit.
#[derive(Clone)]
pub struct CircuitBreaker(pub(crate) StripedArc<CircuitBreakerInner>);

impl CircuitBreaker {
    /// Creates a breaker with the defaults of [`CircuitBreakerBuilder`].
    pub fn new(name: impl Into<Name>) -> Self {
        CircuitBreakerBuilder::new(name.into()).make()
    }

    /// Returns a builder with the defaults of [`CircuitBreakerBuilder`].
    pub fn builder(name: impl Into<Name>) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::new(name.into())
    }

    /// Creates a breaker that trips after this many consecutive failures, and by no other rule: for
    /// dependencies that are called rarely, where a rate would take too long to gather evidence. A
    /// single success resets the count, so it does not detect a dependency that fails half of the
    /// time.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if `failures` is not from 1 to 65,535.
    pub fn consecutive(name: impl Into<Name>, failures: u32) -> Result<Self, ConfigError> {
        Self::builder(name).no_time_window().no_failure_rate().consecutive_failures(failures).build()
    }

    /// Returns the name of this instance.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// Returns a layer that rejects calls to a service while the circuit is open.
    pub fn layer(&self) -> CircuitBreakerLayer {
        CircuitBreakerLayer::new(self)
    }

    /// Admits or rejects a call. The permit records the call's outcome; dropping it cancels the
    /// call.
    ///
    /// One load while closed; one load and one clock read while open.
    ///
    /// # Errors
    ///
    /// [`Rejection::CircuitOpen`] if the circuit rejects the call, or
    /// [`Rejection::CircuitRecovering`] during a gradual recovery.
    #[inline(always)]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        let inner = &*self.0;
        inner.admit_as(|call| Ok(Permit { guard: CancelOnDrop::new(inner, call) }), Err)
    }

    /// Runs `future` if the circuit admits it, and records its result.
    ///
    /// ```
    /// use tower_rampart::{Error, adapt, circuit_breaker::CircuitBreaker};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let breaker = CircuitBreaker::new("settings");
    /// // `adapt` is for errors that cannot be made from a rejection.
    /// match breaker.run(adapt(tokio::fs::read("Cargo.toml"))).await {
    ///     Ok(bytes) => assert!(!bytes.is_empty()),
    ///     Err(Error::Rejected(rejection)) => println!("not now: {rejection}"),
    ///     Err(Error::Service(error)) => return Err(error.into()),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// Cancel-safe: dropping the returned future cancels the call, which does not count unless it
    /// was slow already. A panic of `future` counts as a failure.
    ///
    /// # Errors
    ///
    /// The future's own error, or [`Rejection::CircuitOpen`], in which case the future is dropped
    /// without being polled.
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection + AsRejection,
    {
        self.run_with(DefaultClassifier, future).await
    }

    /// Runs `future` as [`run`](Self::run) does, with another classifier.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_with<C, F, T, E>(&self, classify: C, future: F) -> Result<T, E>
    where
        C: Classify<T, E>,
        F: Future<Output = Result<T, E>>,
        E: FromRejection + AsRejection,
    {
        let breaker = &*self.0;
        let admitted = breaker.admit()?;
        let call = Guarded::started(LeafCall::new(future), Some(admitted));
        WithShared::new(BreakerOwner { breaker, classify }, call).await
    }

    /// Returns the current state. After the open time is over, the circuit remains open until the
    /// next call.
    pub fn state(&self) -> CircuitState {
        self.0.circuit.state()
    }

    /// Closes the circuit manually, from any state, with empty windows.
    pub fn close(&self) {
        self.0.set(CircuitState::Closed, Duration::ZERO);
    }

    /// Rejects all calls until the state is changed manually. The rejections have no `retry_after`.
    pub fn force_open(&self) {
        self.0.set(CircuitState::ForcedOpen, Duration::ZERO);
    }

    /// Opens the circuit for `duration`, as if it had tripped. It admits probes afterwards.
    pub fn open_for(&self, duration: Duration) {
        self.0.set(CircuitState::Open, duration);
    }

    /// Opens the circuit for `duration` because the service asked for it. It admits probes
    /// afterwards. Earlier decisions take precedence: a circuit that is already open, forced open
    /// or disabled does not change.
    ///
    /// For HTTP, `http::HonorRetryAfterLayer` does this.
    pub fn honor_retry_after(&self, duration: Duration) {
        self.0.honor_retry_after(duration);
    }

    /// Half-opens the circuit manually, from any state: the next calls are probes.
    pub fn half_open(&self) {
        self.0.set(CircuitState::HalfOpen, Duration::ZERO);
    }

    /// Admits all calls until the state is changed manually. They are counted, but never trip the
    /// circuit.
    pub fn disable(&self) {
        self.0.set(CircuitState::Disabled, Duration::ZERO);
    }

    /// Returns a snapshot of the circuit.
    pub fn snapshot(&self) -> CircuitBreakerSnapshot {
        let view = self.0.circuit.view(|| self.0.now());
        CircuitBreakerSnapshot {
            state: view.state,
            generation: view.generation,
            consecutive_failures: view.consecutive_failures,
            reopened: view.reopen_count,
            probes_in_flight: view.probes_in_flight,
            probes_succeeded: view.probes_succeeded,
            open_for: view.open_for,
            count_window: view.count.map(WindowSnapshot::from),
            time_window: view.time.map(WindowSnapshot::from),
        }
    }

    /// A short description of the settings.
    pub(crate) fn describe(&self) -> String {
        let (config, open) = (self.0.circuit.config(), self.0.open_times);
        let mut rules = Vec::new();
        if let Some(failures) = config.consecutive {
            rules.push(format!("{failures} consecutive failures"));
        }
        let windows = [
            config.count.map(|(size, rates)| (format!("the last {size} calls"), rates)),
            config.time.map(|(length, _, rates)| (format!("the last {length:?}"), rates)),
        ];
        for (window, rates) in windows.into_iter().flatten() {
            let percent = |share: u32| f64::from(share) / 1e4;
            if let Some(share) = rates.failed {
                rules.push(format!("{}% failures in {window} (from {} calls on)", percent(share), rates.min_calls));
            }
            if let (Some(share), Some(limit)) = (rates.slow, self.0.slow_after) {
                rules.push(format!("{}% above {limit:?} in {window}", percent(share)));
            }
        }
        let grown = if open.max > open.first { format!(" to {:?}", open.max) } else { String::new() };
        format!("trips at {}; open {:?}{grown}", rules.join(" or "), open.first)
    }

    pub(crate) fn slow_after(&self) -> Option<Duration> {
        self.0.slow_after
    }
}

impl fmt::Debug for CircuitBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker").field("name", self.name()).field("snapshot", &self.snapshot()).finish()
    }
}

/// The state of a [`CircuitBreaker`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitBreakerSnapshot {
    /// The state of the circuit.
    pub state: CircuitState,
    /// A counter of transitions.
    pub generation: u64,
    /// Consecutive failures, counted while closed if there is a rule on them.
    pub consecutive_failures: u32,
    /// The number of times it reopened since it was last closed, up to 15.
    pub reopened: u32,
    /// Probes in flight.
    pub probes_in_flight: u32,
    /// Probes that have succeeded since it turned half-open.
    pub probes_succeeded: u32,
    /// The time left while open.
    pub open_for: Option<Duration>,
    /// The contents of the count window, if there is one.
    pub count_window: Option<WindowSnapshot>,
    /// The contents of the time window, if there is one.
    pub time_window: Option<WindowSnapshot>,
}

/// The contents of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowSnapshot {
    /// Calls in the window.
    pub calls: u64,
    /// Calls that failed or were throttled.
    pub failed: u64,
    /// Slow calls, if they are counted.
    pub slow: u64,
}

impl From<Counts> for WindowSnapshot {
    fn from(counts: Counts) -> Self {
        Self { calls: counts.calls, failed: counts.failed, slow: counts.slow }
    }
}

/// A permit of a [`CircuitBreaker`] for one call. It records the call's outcome.
///
/// Dropping it without an outcome cancels the call, which does not count unless it was slow
/// already. That holds for a drop by a panic too, since the panic may be that of other code: where
/// a panic of the call is to count as a failure, use [`run`](CircuitBreaker::run).
#[derive(Debug)]
#[must_use = "dropping the permit cancels the call"]
pub struct Permit<'a> {
    guard: CancelOnDrop<&'a CircuitBreakerInner, AdmittedCall>,
}

impl Permit<'_> {
    /// Completes the call as a success.
    #[inline(always)]
    pub fn success(self) {
        self.finish(Verdict::Success);
    }

    /// Completes the call as a failure.
    #[inline(always)]
    pub fn failure(self) {
        self.finish(Verdict::Failure);
    }

    /// Completes the call with this verdict.
    #[inline(always)]
    pub fn finish(mut self, verdict: Verdict) {
        self.guard.finish(verdict);
    }
}
