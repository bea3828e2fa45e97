//! Checks for layers that report to an observer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use tower_rampart::event::{Event, Observer};

use super::{
    checks::{Checked, assert_responds},
    support::{
        poll_once,
        probe::{Reply, Script},
        recorder::Recorder,
    },
};

/// Records events, and panics once at the event kind set in `panic_at`.
#[derive(Clone, Default)]
pub(crate) struct PanickingRecorder {
    pub(crate) events: Recorder,
    panic_at: Arc<Mutex<Option<&'static str>>>,
}

impl Observer for PanickingRecorder {
    fn on_event(&self, event: &Event<'_>) {
        let mut panic_at = self.panic_at.lock().unwrap_or_else(PoisonError::into_inner);
        if panic_at.take_if(|kind| format!("{:?}", event.kind).starts_with(*kind)).is_some() {
            drop(panic_at);
            std::panic::resume_unwind(Box::new("deliberate panic"));
        }
        self.events.on_event(event);
    }
}

/// The ways a call can end, and the terminal event of each.
const OUTCOMES: [(&str, &str); 10] = [
    ("ok", "completed success"),
    ("polled again after it completed", "completed success"),
    ("err", "completed failure"),
    ("dropped unpolled", "cancelled"),
    ("dropped pending", "cancelled"),
    ("panics in call", "completed failure"),
    ("panics in poll", "completed failure"),
    // `CatchPanicLayer` catches the panic first and drops the future afterwards.
    ("panics in poll and is caught and polled again", "completed failure"),
    ("dropped by a sibling's panic", "cancelled"),
    ("panics when it is dropped", "cancelled"),
];

async fn run_call<S: Checked>(service: &mut S, script: &Script, outcome: &str) {
    tower::ServiceExt::ready(service).await.unwrap();
    script.reply(match outcome {
        "ok" => Reply::Ok("ok"),
        "polled again after it completed" => Reply::Again("ok"),
        "err" => Reply::Err("boom".into()),
        "panics in call" => Reply::PanicInCall,
        "panics in poll" | "panics in poll and is caught and polled again" => Reply::PanicInPoll,
        "panics when it is dropped" => Reply::PanicInDrop,
        _ => Reply::Later,
    });
    let result = catch_unwind(AssertUnwindSafe(|| {
        let mut call = Box::pin(service.call("request"));
        if outcome == "dropped unpolled" {
            return;
        }
        if outcome == "panics in poll and is caught and polled again" {
            for _ in 0..2 {
                assert!(catch_unwind(AssertUnwindSafe(|| poll_once(call.as_mut()))).is_err());
            }
            return;
        }
        let pending = poll_once(call.as_mut()).is_pending();
        if outcome == "polled again after it completed" {
            // It may panic, as tower's futures do.
            let _ = catch_unwind(AssertUnwindSafe(|| poll_once(call.as_mut())));
        }
        assert_eq!(pending, outcome.contains("dropped"), "{outcome}");
        assert!(!outcome.contains("sibling"), "the sibling panics");
    }));
    let panics = outcome.contains("panic") && !outcome.contains("caught");
    assert_eq!(result.is_err(), panics, "{outcome}");
}

/// G23, G30: each of `layers` layers reports one admission and one terminal event per call. A panic
/// of the inner service is a failure, whenever the call is dropped, and every other panic is a
/// cancellation.
pub(crate) async fn one_terminal_event<S: Checked>(
    mut service: S,
    script: &Script,
    recorder: &PanickingRecorder,
    layers: usize,
) {
    for (outcome, terminal) in OUTCOMES {
        run_call(&mut service, script, outcome).await;
        let events = recorder.events.take();
        let count = |prefix: &str| events.iter().filter(|line| line.starts_with(prefix)).count();
        // Layers that make the call at the first poll report nothing before it.
        let expected = if outcome == "dropped unpolled" && count("admitted") == 0 { 0 } else { layers };
        assert_eq!((count("admitted"), count(terminal)), (expected, expected), "{outcome}: {events:?}");
        assert_eq!(events.len(), 2 * expected, "{outcome}: {events:?}");
        // A request that never reached the probe leaves its reply behind.
        script.forget_replies();
    }
}

/// G24: a panicking observer affects only its own call.
pub(crate) async fn observer_panics<S: Checked>(
    mut service: S,
    script: &Script,
    recorder: &PanickingRecorder,
    layers: usize,
) {
    for (kind, reply) in [("Admitted", Reply::Ok("ok")), ("Completed", Reply::Ok("ok")), ("Cancelled", Reply::Later)] {
        tower::ServiceExt::ready(&mut service).await.unwrap();
        script.reply(reply);
        *recorder.panic_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
        let call = catch_unwind(AssertUnwindSafe(|| {
            let mut call = Box::pin(service.call("request"));
            let _ = poll_once(call.as_mut());
        }));
        assert_eq!(call.is_err(), layers > 0, "{kind}");
        *recorder.panic_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        assert_eq!(script.live(), 0, "{kind}");
        script.forget_replies();
        assert_responds(&mut service).await;
    }
}

/// Generates both tests for a layer constructed from an observer.
macro_rules! event_tests {
    ($layers:expr, $make:expr) => {
        use crate::observed::{self, PanickingRecorder};

        #[tokio::test(start_paused = true)]
        async fn every_call_has_one_terminal_event() {
            let (recorder, (script, probe)) = (PanickingRecorder::default(), Script::new());
            let service = tower::Layer::layer(&($make)(recorder.clone()), probe);
            observed::one_terminal_event(service, &script, &recorder, $layers).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_panicking_observer_affects_only_its_own_call() {
            let (recorder, (script, probe)) = (PanickingRecorder::default(), Script::new());
            let service = tower::Layer::layer(&($make)(recorder.clone()), probe);
            observed::observer_panics(service, &script, &recorder, $layers).await;
        }
    };
}

pub(crate) use event_tests;
