use std::{fmt, future::Future, time::Duration};

use super::{
    CircuitBreakerBuilder, CircuitBreakerLayer,
    inner::{AdmittedCall, CircuitBreakerInner},
};
use crate::{
    call::CancelOnDrop,
    classify::{Classify, DefaultClassifier, Verdict},
    error::{AsRejection, ConfigError, FromRejection, Rejection},
    event::CircuitState,
    name::Name,
    shared::striped::StripedArc,
    state::window::Counts,
};

/// Refuses calls to a dependency that fails. See the [module docs](super).
///
/// A handle: cheap to clone, and all clones share one circuit.
#[derive(Clone)]
pub struct CircuitBreaker(pub(crate) StripedArc<CircuitBreakerInner>);

impl CircuitBreaker {
    /// A breaker with the defaults of [`CircuitBreakerBuilder`].
    pub fn new(name: impl Into<Name>) -> Self {
        CircuitBreakerBuilder::new(name.into()).make()
    }

    /// A breaker with the defaults of [`CircuitBreakerBuilder`], to be changed.
    pub fn builder(name: impl Into<Name>) -> CircuitBreakerBuilder {
        CircuitBreakerBuilder::new(name.into())
    }

    /// Trips at so many failures in a row and by nothing else: for dependencies that are called seldom, where a rate
    /// would take too long to have evidence. A single success resets it, so it does not see a dependency that fails half
    /// the time.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] when `failures` is not from 1 to 65,535.
    pub fn consecutive(name: impl Into<Name>, failures: u32) -> Result<Self, ConfigError> {
        Self::builder(name).no_time_window().no_failure_rate().consecutive_failures(failures).build()
    }

    /// The instance's name.
    pub fn name(&self) -> &Name {
        self.0.events.name()
    }

    /// The layer that breaks a service's circuit.
    pub fn layer(&self) -> CircuitBreakerLayer {
        CircuitBreakerLayer::new(self)
    }

    /// Asks for admission. EventEmitter the permit how the call went; dropping it cancels the call.
    ///
    /// Closed, it is one load. Open, one load and a reading of the clock.
    ///
    /// # Errors
    ///
    /// [`Rejection::CircuitOpen`].
    #[inline(always)]
    pub fn try_acquire(&self) -> Result<Permit<'_>, Rejection> {
        let inner = &*self.0;
        Ok(Permit { guard: CancelOnDrop::new(inner, inner.admit()?) })
    }

    /// Runs `future` if the circuit lets it, and counts its result.
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
    /// Cancel-safe: dropping it cancels the call, which counts as nothing unless it was slow already.
    ///
    /// # Errors
    ///
    /// The future's own, or [`Rejection::CircuitOpen`]; the future is dropped unpolled then.
    pub async fn run<F, T, E>(&self, future: F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: FromRejection + AsRejection,
    {
        self.run_with(DefaultClassifier, future).await
    }

    /// As [`run`](Self::run), with a classifier of your own.
    ///
    /// # Errors
    ///
    /// As [`run`](Self::run).
    pub async fn run_with<C, F, T, E>(&self, classify: C, future: F) -> Result<T, E>
    where
        C: Classify<T, E>,
        F: Future<Output = Result<T, E>>,
        E: FromRejection,
    {
        let inner = &*self.0;
        let mut guard = CancelOnDrop::new(inner, inner.admit()?);
        let result = future.await;
        guard.consume(|inner, call| call.finish(inner, classify.classify(result.as_ref())));
        result
    }

    /// The state it is in. An open circuit whose time is over says open until somebody calls.
    pub fn state(&self) -> CircuitState {
        self.0.circuit.state()
    }

    /// Closes the circuit by hand, from whatever state, with empty windows.
    pub fn close(&self) {
        self.0.set(CircuitState::Closed, Duration::ZERO);
    }

    /// Refuses all calls until told otherwise by hand. The rejections know no `retry_after`.
    pub fn force_open(&self) {
        self.0.set(CircuitState::ForcedOpen, Duration::ZERO);
    }

    /// Opens the circuit for so long, as if it had tripped; then it probes.
    pub fn open_for(&self, duration: Duration) {
        self.0.set(CircuitState::Open, duration);
    }

    /// Opens the circuit for so long because the service asked for it; then it probes. What was decided before stays: a
    /// circuit that is open already, forced open or disabled is left as it is.
    ///
    /// For HTTP there is a layer that does it: `http::HonorRetryAfterLayer`.
    pub fn honor_retry_after(&self, duration: Duration) {
        self.0.honor_retry_after(duration);
    }

    /// Lets probes through by hand, from whatever state.
    pub fn half_open(&self) {
        self.0.set(CircuitState::HalfOpen, Duration::ZERO);
    }

    /// Lets all calls through until told otherwise by hand: counts them, and never trips.
    pub fn disable(&self) {
        self.0.set(CircuitState::Disabled, Duration::ZERO);
    }

    /// How it stands.
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

    /// What it is set to, in a few words.
    pub(crate) fn describe(&self) -> String {
        let (config, open) = (self.0.circuit.config(), self.0.open_times);
        let mut rules = Vec::new();
        if let Some(run) = config.consecutive {
            rules.push(format!("{run} failures in a row"));
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

/// How a [`CircuitBreaker`] stands at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitBreakerSnapshot {
    /// The state.
    pub state: CircuitState,
    /// Counts transitions.
    pub generation: u64,
    /// Failures in a row, while closed and if that is a rule.
    pub consecutive_failures: u32,
    /// Times it opened again since it was last closed; up to 15.
    pub reopened: u32,
    /// Probes in flight.
    pub probes_in_flight: u32,
    /// Probes that succeeded since it is half-open.
    pub probes_succeeded: u32,
    /// Time left while open.
    pub open_for: Option<Duration>,
    /// What the count window holds, if there is one.
    pub count_window: Option<WindowSnapshot>,
    /// What the time window holds, if there is one.
    pub time_window: Option<WindowSnapshot>,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WindowSnapshot {
    /// Calls in it.
    pub calls: u64,
    /// Those that failed or were throttled.
    pub failed: u64,
    /// Those that were slow, if they are counted.
    pub slow: u64,
}

impl From<Counts> for WindowSnapshot {
    fn from(counts: Counts) -> Self {
        Self { calls: counts.calls, failed: counts.failed, slow: counts.slow }
    }
}

/// Admission by a [`CircuitBreaker`]. EventEmitter it how the call went.
///
/// Dropped without a word, the call was cancelled, which counts as nothing unless it was slow already; dropped by a
/// panic, it failed.
#[derive(Debug)]
#[must_use = "dropping the permit cancels the call"]
pub struct Permit<'a> {
    guard: CancelOnDrop<&'a CircuitBreakerInner, AdmittedCall>,
}

impl Permit<'_> {
    /// The call succeeded.
    #[inline(always)]
    pub fn success(self) {
        self.finish(Verdict::Success);
    }

    /// The call failed.
    #[inline(always)]
    pub fn failure(self) {
        self.finish(Verdict::Failure);
    }

    /// The call went so.
    #[inline(always)]
    pub fn finish(mut self, verdict: Verdict) {
        self.guard.consume(|inner, call| call.finish(inner, verdict));
    }
}
