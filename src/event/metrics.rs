use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
    time::Duration,
};

use metrics::{Label, Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{CircuitState, Event, EventKind, Observer, metric_names::MetricNames};
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
/// # Names
///
/// The name is a label, and a recorder keeps a series per label for as long as it lives. Names may
/// come from outside: from the keys of a [`PerKey`](crate::per_key::PerKey), which evicts handles
/// and builds others. So the first 200 names have series of their own, and the events of all
/// further names count under the name `other`. A name has about 30 series if its observer is set on
/// every pattern: 200 names are 6,000 series, as much as a scrape of one process should hold. All
/// observers made by [`new`](Self::new) share this limit, wherever they are made;
/// [`max_names`](Self::max_names) sets another one. Names made from a `&'static str` do not count,
/// and are never `other`: their number is fixed by the program.
///
/// Labels hold names as they are [shown](crate::Name): escaped and at most 256 bytes long.
#[derive(Clone, Debug)]
pub struct MetricsObserver {
    names: Arc<MetricNames>,
}

const MAX_NAMES: usize = 200;
const MAX_MAX_NAMES: usize = 65_536;

/// The label of names beyond the limit.
const OTHER: &str = "other";

static SHARED_NAMES: LazyLock<Arc<MetricNames>> = LazyLock::new(|| Arc::new(MetricNames::new(MAX_NAMES)));

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
        Self { names: SHARED_NAMES.clone() }
    }

    /// Sets the number of names with series of their own, at most 65,536, for this observer and its
    /// clones only: make one observer and clone it, rather than one per handle. The memory for the
    /// names, 16 to 32 bytes each, is allocated here.
    pub fn max_names(self, names: usize) -> Self {
        Self { names: Arc::new(MetricNames::new(names.min(MAX_MAX_NAMES))) }
    }

    /// One allocation, and one more for a name that is not static.
    fn labels<const N: usize>(&self, event: &Event<'_>, more: [(&'static str, &'static str); N]) -> Vec<Label> {
        let name = match (event.name.as_static(), event.name.printable()) {
            (Some(name), Cow::Borrowed(_)) => Label::from_static_parts("name", name),
            (None, name) if !self.names.admits(&name) => Label::from_static_parts("name", OTHER),
            (_, name) => Label::new("name", name.into_owned()),
        };
        let mut labels = Vec::with_capacity(2 + N);
        labels.extend([Label::from_static_parts("pattern", event.pattern.as_str()), name]);
        labels.extend(more.map(|(key, value)| Label::from_static_parts(key, value)));
        labels
    }
}

impl Observer for MetricsObserver {
    fn on_event(&self, event: &Event<'_>) {
        let in_flight = || gauge!("rampart_in_flight", self.labels(event, []));
        let count_call = |outcome, elapsed: Option<Duration>| {
            counter!("rampart_calls_total", self.labels(event, [("outcome", outcome)])).increment(1);
            if let Some(elapsed) = elapsed {
                histogram!("rampart_call_duration_seconds", self.labels(event, [])).record(elapsed.as_secs_f64());
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
                        Some(after.get())
                    }
                    _ => None,
                };
                count_call("rejected", timed_out_after);
                counter!("rampart_rejections_total", self.labels(event, [("reason", rejection.reason())])).increment(1);
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
                let labelled =
                    self.labels(event, [("from", from.as_str()), ("to", to.as_str()), ("cause", cause.as_str())]);
                counter!("rampart_transitions_total", labelled).increment(1);
                gauge!("rampart_circuit_state", self.labels(event, [])).set(match to {
                    CircuitState::Closed => 0.0,
                    CircuitState::HalfOpen => 1.0,
                    CircuitState::Open => 2.0,
                    CircuitState::ForcedOpen => 3.0,
                    CircuitState::Disabled => -1.0,
                });
            }
            EventKind::RetryScheduled { .. } => counter!("rampart_retries_total", self.labels(event, [])).increment(1),
            EventKind::RetriesExhausted { .. } => {
                counter!("rampart_retries_exhausted_total", self.labels(event, [("limit", "attempts")])).increment(1);
            }
            EventKind::BudgetExhausted { .. } => {
                counter!("rampart_retries_exhausted_total", self.labels(event, [("limit", "budget")])).increment(1);
            }
            EventKind::BudgetRecovered => {}
            EventKind::WaitCompleted { waited } => {
                histogram!("rampart_permit_wait_seconds", self.labels(event, [])).record(waited.as_secs_f64());
            }
            EventKind::Evicted => counter!("rampart_evictions_total", self.labels(event, [])).increment(1),
            EventKind::FallbackServed { served } => {
                counter!("rampart_fallbacks_total", self.labels(event, [("served", served.as_str())])).increment(1);
            }
        }
    }
}
