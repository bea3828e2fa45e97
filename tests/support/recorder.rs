//! An observer that records events.

use std::sync::{Arc, Mutex};

use tower_rampart::event::{Event, EventKind, Observer};

/// Records events as short lines. Clones share the record.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the events recorded so far, one line each: `admitted`, `rejected circuit_open`,
    /// `completed success`, ...
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Counts the recorded events whose line starts with `prefix`.
    pub fn count(&self, prefix: &str) -> usize {
        self.0.lock().unwrap().iter().filter(|line| line.starts_with(prefix)).count()
    }
}

impl Observer for Recorder {
    fn on_event(&self, event: &Event<'_>) {
        let line = match &event.kind {
            EventKind::Admitted => "admitted".to_owned(),
            EventKind::Rejected { rejection } => format!("rejected {}", rejection.reason()),
            EventKind::Completed { verdict, .. } => format!("completed {verdict}"),
            EventKind::Cancelled { admitted: true, .. } => "cancelled".to_owned(),
            EventKind::Cancelled { admitted: false, .. } => "cancelled waiting".to_owned(),
            EventKind::StateChanged { from, to, cause, .. } => format!("state {from} -> {to}: {cause}"),
            EventKind::RetryScheduled { attempt, delay } => format!("retry {attempt} in {delay:?}"),
            EventKind::RetriesExhausted { attempts } => format!("retries exhausted after {attempts}"),
            EventKind::BudgetExhausted { attempts, .. } => format!("budget exhausted after {attempts}"),
            EventKind::WaitCompleted { waited } => format!("waited {waited:?}"),
            EventKind::FallbackServed { served } => format!("fell back to {}", served.as_str()),
            other => format!("{other:?}"),
        };
        self.0.lock().unwrap().push(line);
    }
}
