use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{CircuitState, Event, EventKind, Observer, Pattern};
use crate::error::Rejection;

/// Tells events to the `metrics` facade.
///
/// | metric | kind | labels besides `pattern` and `name` |
/// |---|---|---|
/// | `rampart_calls_total` | counter | `outcome`: a verdict, `rejected` or `cancelled` |
/// | `rampart_rejections_total` | counter | `reason`: `circuit_open`, `timed_out`, ... |
/// | `rampart_retries_total` | counter | |
/// | `rampart_retries_exhausted_total` | counter | `limit`: `attempts` (or time), `budget` |
/// | `rampart_transitions_total` | counter | `from`, `to`, `cause` |
/// | `rampart_circuit_state` | gauge | 0 closed, 1 half-open, 2 open, 3 forced open, -1 disabled; since the first change |
/// | `rampart_in_flight` | gauge | |
/// | `rampart_call_duration_seconds` | histogram | where the pattern knows the duration |
/// | `rampart_permit_wait_seconds` | histogram | |
/// | `rampart_fallbacks_total` | counter | `served` |
///
/// Each event looks its metric up by name and labels in the recorder that is installed, which allocates. If that is too
/// much for a path of yours, give the observer to the breaker alone.
///
/// The name is a label: give it to instances of which there are few.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MetricsObserver {}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl MetricsObserver {
    /// The observer. Describes its metrics to the recorder that is installed now.
    pub fn new() -> Self {
        describe_counter!("rampart_calls_total", Unit::Count, "Calls by outcome");
        describe_counter!("rampart_rejections_total", Unit::Count, "Calls refused or given up, by reason");
        describe_counter!("rampart_retries_total", Unit::Count, "Retries scheduled");
        describe_counter!("rampart_retries_exhausted_total", Unit::Count, "Calls that would have deserved another try");
        describe_counter!("rampart_transitions_total", Unit::Count, "Changes of a circuit's state");
        describe_gauge!(
            "rampart_circuit_state",
            "State of a circuit: 0 closed, 1 half-open, 2 open, 3 forced open, -1 disabled"
        );
        describe_gauge!("rampart_in_flight", Unit::Count, "Calls in flight");
        describe_histogram!("rampart_call_duration_seconds", Unit::Seconds, "Duration of calls");
        describe_histogram!("rampart_permit_wait_seconds", Unit::Seconds, "Time waited for a permit or a token");
        describe_counter!("rampart_fallbacks_total", Unit::Count, "Fallbacks served");
        Self {}
    }
}

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        let (pattern, name) = (event.pattern.as_str(), event.name.as_str().to_owned());
        let outcome = |outcome: &'static str| {
            let labels = [("pattern", pattern.to_owned()), ("name", name.clone()), ("outcome", outcome.to_owned())];
            counter!("rampart_calls_total", &labels).increment(1);
        };
        let labels = || [("pattern", pattern.to_owned()), ("name", name.clone())];
        let ended = || gauge!("rampart_in_flight", &labels()).decrement(1.0);
        match event.kind {
            EventKind::Admitted => gauge!("rampart_in_flight", &labels()).increment(1.0),
            EventKind::Rejected { rejection } => {
                outcome("rejected");
                counter!(
                    "rampart_rejections_total", "pattern" => pattern, "name" => name.clone(),
                    "reason" => rejection.reason()
                )
                .increment(1);
                // Only a timeout refuses what it has let in before.
                if event.pattern == Pattern::Timeout && matches!(rejection, Rejection::TimedOut { attempted: true, .. })
                {
                    ended();
                }
            }
            EventKind::Completed { verdict, elapsed } => {
                outcome(verdict.as_str());
                ended();
                if let Some(elapsed) = elapsed {
                    histogram!("rampart_call_duration_seconds", &labels()).record(elapsed.as_secs_f64());
                }
            }
            EventKind::Cancelled { admitted, elapsed } => {
                outcome("cancelled");
                if admitted {
                    ended();
                }
                if let Some(elapsed) = elapsed {
                    histogram!("rampart_call_duration_seconds", &labels()).record(elapsed.as_secs_f64());
                }
            }
            EventKind::StateChanged { from, to, cause, .. } => {
                counter!(
                    "rampart_transitions_total", "pattern" => pattern, "name" => name.clone(),
                    "from" => from.as_str(), "to" => to.as_str(), "cause" => cause.as_str()
                )
                .increment(1);
                gauge!("rampart_circuit_state", &labels()).set(match to {
                    CircuitState::Closed => 0.0,
                    CircuitState::HalfOpen => 1.0,
                    CircuitState::Open => 2.0,
                    CircuitState::ForcedOpen => 3.0,
                    CircuitState::Disabled => -1.0,
                });
            }
            EventKind::RetryScheduled { .. } => counter!("rampart_retries_total", &labels()).increment(1),
            EventKind::RetriesExhausted { .. } => {
                let limit = "attempts";
                counter!("rampart_retries_exhausted_total", "pattern" => pattern, "name" => name, "limit" => limit)
                    .increment(1);
            }
            EventKind::BudgetExhausted { .. } => {
                let limit = "budget";
                counter!("rampart_retries_exhausted_total", "pattern" => pattern, "name" => name, "limit" => limit)
                    .increment(1);
            }
            EventKind::PermitAwaited { waited } => {
                histogram!("rampart_permit_wait_seconds", &labels()).record(waited.as_secs_f64());
            }
            EventKind::FellBack { served } => {
                counter!(
                    "rampart_fallbacks_total", "pattern" => pattern, "name" => name, "served" => served.as_str()
                )
                .increment(1);
            }
        }
    }
}
