use tracing::{debug, field, info, trace, warn};

use super::{CircuitState, Event, EventKind, Observer};

/// Records events with `tracing`, at levels that suit production, under the target `tower_rampart`.
///
/// | event | level |
/// |---|---|
/// | circuit opened from closed, forced open, disabled; budget exhausted, the first call | warn |
/// | circuit closed, budget recovered, evicted | info |
/// | circuit half-open, reopened by a probe; rejected, retry scheduled, retries exhausted, budget exhausted, fallback served | debug |
/// | admitted, completed, cancelled, wait completed | trace |
///
/// Info and above is for changes, of which there are few: the number of lines does not grow with
/// the number of calls. An outage is a line when the circuit opens and one when it closes, however
/// many probes fail in between. A circuit that keeps closing and tripping adds at most one of each
/// per open time, and a retry budget at most one of each in ten seconds. A single call is debug or
/// trace. A disabled level costs only tracing's own check.
///
/// Every event has the fields `pattern` and `name`, and those of its [`EventKind`]; unknown
/// durations are omitted. A rejection has its label as `reason` and its text as `rejection`. Names
/// are recorded as they are [shown](crate::Name): on one line, escaped and at most 256 bytes long.
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

/// Records an event with its common fields, which are read only if the level is enabled.
macro_rules! record {
    ($level:ident, $event:ident, $($fields:tt)+) => {
        $level!(
            target: TARGET, pattern = $event.pattern.as_str(), name = &*$event.name.printable(), $($fields)+
        )
    };
}

impl Observer for TracingObserver {
    fn on_event(&self, event: &Event<'_>) {
        match &event.kind {
            EventKind::StateChanged { from, to, generation, cause } => {
                macro_rules! changed {
                    ($level:ident) => {
                        record!(
                            $level,
                            event,
                            from = from.as_str(),
                            to = to.as_str(),
                            generation,
                            cause = cause.as_str(),
                            "circuit breaker changed state"
                        )
                    };
                }
                match (from, to) {
                    (_, CircuitState::Closed) => changed!(info),
                    (_, CircuitState::HalfOpen) | (CircuitState::HalfOpen, CircuitState::Open) => changed!(debug),
                    _ => changed!(warn),
                }
            }
            EventKind::BudgetExhausted { attempts, first: true } => {
                record!(warn, event, attempts, "retry budget exhausted");
            }
            EventKind::BudgetExhausted { attempts, first: false } => {
                record!(debug, event, attempts, "retry budget exhausted");
            }
            EventKind::BudgetRecovered => record!(info, event, "retry budget recovered"),
            EventKind::Evicted => record!(info, event, "evicted with the history of its calls"),
            EventKind::RetriesExhausted { attempts } => record!(debug, event, attempts, "retries exhausted"),
            EventKind::Rejected { rejection } => {
                record!(debug, event, reason = rejection.reason(), %rejection, "call rejected");
            }
            EventKind::RetryScheduled { attempt, delay } => {
                record!(debug, event, attempt, ?delay, "retry scheduled");
            }
            EventKind::FallbackServed { served } => {
                record!(debug, event, served = served.as_str(), "fallback served");
            }
            EventKind::Admitted => record!(trace, event, "call admitted"),
            EventKind::Completed { verdict, elapsed } => {
                record!(
                    trace,
                    event,
                    verdict = verdict.as_str(),
                    elapsed = elapsed.map(field::debug),
                    "call completed"
                );
            }
            EventKind::Cancelled { admitted, elapsed } => {
                record!(trace, event, admitted, elapsed = elapsed.map(field::debug), "call cancelled");
            }
            EventKind::WaitCompleted { waited } => record!(trace, event, ?waited, "waited for a permit"),
        }
    }
}
