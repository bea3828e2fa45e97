use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{CircuitState, Event, EventKind, Observer};
use crate::{error::Rejection, pattern::Pattern};

/// Records events through the `metrics` facade.
///
/// | metric | kind | labels besides `pattern` and `name` |
/// |---|---|---|
/// | `rampart_calls_total` | counter | `outcome`: a verdict, `rejected` or `cancelled` |
/// | `rampart_rejections_total` | counter | `reason`: `circuit_open`, `timed_out`, ... |
/// | `rampart_retries_total` | counter | |
/// | `rampart_retries_exhausted_total` | counter | `limit`: `attempts` (also if time ran out), `budget` |
/// | `rampart_transitions_total` | counter | `from`, `to`, `cause` |
/// | `rampart_circuit_state` | gauge | 0 closed, 1 half-open, 2 open, 3 forced open, -1 disabled; from the first transition on |
/// | `rampart_in_flight` | gauge | |
/// | `rampart_call_duration_seconds` | histogram | where the pattern knows the duration; for a call that timed out, the limit |
/// | `rampart_permit_wait_seconds` | histogram | |
/// | `rampart_evictions_total` | counter | |
/// | `rampart_fallbacks_total` | counter | `served` |
///
/// Each event looks up its metrics by name and labels in the recorder that is installed at that
/// time: an allocation and a map lookup for each metric, and two or three metrics when a call
/// completes. Metric handles are not cached, so a recorder may be installed late, or for the
/// duration of a test. If that costs too much on a hot path, give the observer to the breaker only.
///
/// The name is a label, so keep the number of different names small.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct MetricsObserver {}

impl Default for MetricsObserver {
    fn default() -> Self {
        Self::new()
    }
}

impl MetricsObserver {
    /// Creates the observer and describes its metrics to the currently installed recorder.
    pub fn new() -> Self {
        describe_counter!("rampart_calls_total", Unit::Count, "Calls by outcome");
        describe_counter!("rampart_rejections_total", Unit::Count, "Calls rejected or timed out, by reason");
        describe_counter!("rampart_retries_total", Unit::Count, "Retries scheduled");
        describe_counter!(
            "rampart_retries_exhausted_total",
            Unit::Count,
            "Calls that were not retried because a limit was reached"
        );
        describe_counter!("rampart_transitions_total", Unit::Count, "State transitions of a circuit breaker");
        describe_gauge!(
            "rampart_circuit_state",
            "State of a circuit breaker: 0 closed, 1 half-open, 2 open, 3 forced open, -1 disabled"
        );
        describe_gauge!("rampart_in_flight", Unit::Count, "Calls in flight");
        describe_histogram!("rampart_call_duration_seconds", Unit::Seconds, "Duration of calls");
        describe_histogram!("rampart_permit_wait_seconds", Unit::Seconds, "Time waited for a permit or a token");
        describe_counter!("rampart_evictions_total", Unit::Count, "Handles evicted with the history of their calls");
        describe_counter!("rampart_fallbacks_total", Unit::Count, "Fallbacks served");
        Self {}
    }
}

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        let in_flight = || gauge!("rampart_in_flight", labels(event, []));
        let count_call = |outcome, elapsed: Option<Duration>| {
            counter!("rampart_calls_total", labels(event, [("outcome", outcome)])).increment(1);
            if let Some(elapsed) = elapsed {
                histogram!("rampart_call_duration_seconds", labels(event, [])).record(elapsed.as_secs_f64());
            }
        };
        match event.kind {
            EventKind::Admitted => in_flight().increment(1.0),
            EventKind::Rejected { rejection } => {
                // Only a timeout rejects a call that it has admitted. Without these calls the
                // durations would hide the slowest.
                let timed_out_after = match rejection {
                    Rejection::TimedOut { after, attempted: true, .. } if event.pattern == Pattern::Timeout => {
                        in_flight().decrement(1.0);
                        Some(*after)
                    }
                    _ => None,
                };
                count_call("rejected", timed_out_after);
                counter!("rampart_rejections_total", labels(event, [("reason", rejection.reason())])).increment(1);
            }
            EventKind::Completed { verdict, elapsed } => {
                count_call(verdict.as_str(), elapsed);
                in_flight().decrement(1.0);
            }
            EventKind::Cancelled { admitted, elapsed } => {
                count_call("cancelled", elapsed);
                if admitted {
                    in_flight().decrement(1.0);
                }
            }
            EventKind::StateChanged { from, to, cause, .. } => {
                let labelled = labels(event, [("from", from.as_str()), ("to", to.as_str()), ("cause", cause.as_str())]);
                counter!("rampart_transitions_total", labelled).increment(1);
                gauge!("rampart_circuit_state", labels(event, [])).set(match to {
                    CircuitState::Closed => 0.0,
                    CircuitState::HalfOpen => 1.0,
                    CircuitState::Open => 2.0,
                    CircuitState::ForcedOpen => 3.0,
                    CircuitState::Disabled => -1.0,
                });
            }
            EventKind::RetryScheduled { .. } => counter!("rampart_retries_total", labels(event, [])).increment(1),
            EventKind::RetriesExhausted { .. } => {
                counter!("rampart_retries_exhausted_total", labels(event, [("limit", "attempts")])).increment(1);
            }
            EventKind::BudgetExhausted { .. } => {
                counter!("rampart_retries_exhausted_total", labels(event, [("limit", "budget")])).increment(1);
            }
            EventKind::WaitCompleted { waited } => {
                histogram!("rampart_permit_wait_seconds", labels(event, [])).record(waited.as_secs_f64());
            }
            EventKind::Evicted => counter!("rampart_evictions_total", labels(event, [])).increment(1),
            EventKind::FallbackServed { served } => {
                counter!("rampart_fallbacks_total", labels(event, [("served", served.as_str())])).increment(1);
            }
        }
    }
}

/// One allocation, and one more for a name that is not static.
fn labels<const N: usize>(event: &Event<'_>, more: [(&'static str, &'static str); N]) -> Vec<Label> {
    let name = match event.name.as_static() {
        Some(name) => Label::from_static_parts("name", name),
        None => Label::new("name", event.name.as_str().to_owned()),
    };
    let mut labels = Vec::with_capacity(2 + N);
    labels.extend([Label::from_static_parts("pattern", event.pattern.as_str()), name]);
    labels.extend(more.map(|(key, value)| Label::from_static_parts(key, value)));
    labels
}
