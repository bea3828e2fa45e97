use tracing::{debug, field, info, trace, warn};

use super::{Event, EventKind, Observer};

/// Records events with `tracing`, at levels that suit production, under the target `tower_rampart`.
///
/// | event | level |
/// |---|---|
/// | state changed, budget exhausted | warn |
/// | retries exhausted, evicted | info |
/// | rejected, retry scheduled, fallback served | debug |
/// | admitted, completed, cancelled, wait completed | trace |
///
/// State changes and an exhausted budget are rare and worth an operator's attention. Rejections are
/// expected, and come in large numbers. A disabled level costs only tracing's own check.
///
/// Every event has the fields `pattern` and `name`, and those of its [`EventKind`]; unknown
/// durations are omitted. A rejection has its label as `reason` and its text as `rejection`.
///
/// ```
/// use tower_rampart::{circuit_breaker::CircuitBreaker, event::TracingObserver};
///
/// let breaker = CircuitBreaker::builder("payments").observer(TracingObserver::new()).build()?;
/// # let _ = breaker;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct TracingObserver {}

impl TracingObserver {
    /// Creates the observer. It has no settings.
    pub const fn new() -> Self {
        Self {}
    }
}

const TARGET: &str = "tower_rampart";

impl Observer for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        let (pattern, name) = (event.pattern.as_str(), event.name.as_str());
        match &event.kind {
            EventKind::StateChanged { from, to, generation, cause } => warn!(
                target: TARGET, pattern, name, from = from.as_str(), to = to.as_str(), generation, cause = cause.as_str(),
                "circuit breaker changed state"
            ),
            EventKind::BudgetExhausted { attempts } => {
                warn!(target: TARGET, pattern, name, attempts, "retry budget exhausted");
            }
            EventKind::Evicted => info!(target: TARGET, pattern, name, "evicted with the history of its calls"),
            EventKind::RetriesExhausted { attempts } => {
                info!(target: TARGET, pattern, name, attempts, "retries exhausted");
            }
            EventKind::Rejected { rejection } => {
                debug!(target: TARGET, pattern, name, reason = rejection.reason(), %rejection, "call rejected");
            }
            EventKind::RetryScheduled { attempt, delay } => {
                debug!(target: TARGET, pattern, name, attempt, ?delay, "retry scheduled");
            }
            EventKind::FallbackServed { served } => {
                debug!(target: TARGET, pattern, name, served = served.as_str(), "fallback served");
            }
            EventKind::Admitted => trace!(target: TARGET, pattern, name, "call admitted"),
            EventKind::Completed { verdict, elapsed } => {
                let elapsed = elapsed.map(field::debug);
                trace!(target: TARGET, pattern, name, verdict = verdict.as_str(), elapsed, "call completed");
            }
            EventKind::Cancelled { admitted, elapsed } => {
                let elapsed = elapsed.map(field::debug);
                trace!(target: TARGET, pattern, name, admitted, elapsed, "call cancelled");
            }
            EventKind::WaitCompleted { waited } => {
                trace!(target: TARGET, pattern, name, ?waited, "waited for a permit")
            }
        }
    }
}
