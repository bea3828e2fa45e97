use std::time::Duration;

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{CircuitState, Event, EventKind, Observer};
use crate::{error::Rejection, pattern::Pattern};

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
/// | `rampart_call_duration_seconds` | histogram | where the pattern knows the duration; a call that timed out lasted as long as it was allowed to |
/// | `rampart_permit_wait_seconds` | histogram | |
/// | `rampart_fallbacks_total` | counter | `served` |
///
/// Each event looks its metrics up by name and labels in the recorder that is installed then: an allocation and a look at
/// a map for each, two or three for a call's end. Handles are not kept, so that a recorder may be installed late, or for
/// the time of a test. If that is too much for a path of yours, give the observer to the breaker alone.
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
        let in_flight = || gauge!("rampart_in_flight", labels(event, []));
        let ended = |outcome, elapsed: Option<Duration>| {
            counter!("rampart_calls_total", labels(event, [("outcome", outcome)])).increment(1);
            if let Some(elapsed) = elapsed {
                histogram!("rampart_call_duration_seconds", labels(event, [])).record(elapsed.as_secs_f64());
            }
        };
        match event.kind {
            EventKind::Admitted => in_flight().increment(1.0),
            EventKind::Rejected { rejection } => {
                // Only a timeout refuses what it has let in before. Without those calls the durations would hide the
                // slowest.
                let given_up = match rejection {
                    Rejection::TimedOut { after, attempted: true, .. } if event.pattern == Pattern::Timeout => {
                        in_flight().decrement(1.0);
                        Some(*after)
                    }
                    _ => None,
                };
                ended("rejected", given_up);
                counter!("rampart_rejections_total", labels(event, [("reason", rejection.reason())])).increment(1);
            }
            EventKind::Completed { verdict, elapsed } => {
                ended(verdict.as_str(), elapsed);
                in_flight().decrement(1.0);
            }
            EventKind::Cancelled { admitted, elapsed } => {
                ended("cancelled", elapsed);
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
