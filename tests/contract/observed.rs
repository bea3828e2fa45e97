//! What is asked of a layer that has an observer.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use tower_rampart::event::{Event, Observer};

use super::{
    checks::{Checked, answers},
    support::{
        poll_once,
        probe::{Reply, Script},
        recorder::Recorder,
    },
};

/// Writes down what it hears, and panics once if it is told to.
#[derive(Clone, Default)]
pub(crate) struct Ear {
    heard: Recorder,
    panic_at: Arc<Mutex<Option<&'static str>>>,
}

impl Observer for Ear {
    fn on_event(&self, event: &Event<'_>) {
        let mut panic_at = self.panic_at.lock().unwrap_or_else(PoisonError::into_inner);
        if panic_at.take_if(|kind| format!("{:?}", event.kind).starts_with(*kind)).is_some() {
            drop(panic_at);
            std::panic::resume_unwind(Box::new("told to"));
        }
        self.heard.on_event(event);
    }
}

impl Ear {
    /// Calls that were told to begin, and those that were told to end, since it was asked before.
    fn count(&self) -> (usize, usize) {
        let heard = self.heard.take();
        let count = |prefixes: &[&str]| {
            heard.iter().filter(|line| prefixes.iter().any(|prefix| line.starts_with(prefix))).count()
        };
        (count(&["admitted"]), count(&["completed", "cancelled", "rejected"]))
    }
}

/// How a call goes.
const ENDS: [&str; 6] = ["ok", "err", "dropped unpolled", "dropped pending", "panics in call", "panics in poll"];

async fn goes<S: Checked>(service: &mut S, script: &Script, how: &str) {
    tower::ServiceExt::ready(service).await.unwrap();
    script.reply(match how {
        "err" => Reply::Err("boom".into()),
        "dropped unpolled" | "dropped pending" => Reply::Later,
        "panics in call" => Reply::PanicInCall,
        "panics in poll" => Reply::PanicInPoll,
        _ => Reply::Ok("ok"),
    });
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut call = Box::pin(service.call("request"));
        if how != "dropped unpolled" {
            assert_eq!(poll_once(call.as_mut()).is_pending(), how == "dropped pending");
        }
    }));
    assert_eq!(outcome.is_err(), how.starts_with("panics"), "{how}");
}

/// G23: so many layers tell of each beginning and of each end, once.
pub(crate) async fn ends<S: Checked>(mut service: S, script: &Script, ear: &Ear, layers: usize) {
    for how in ENDS {
        goes(&mut service, script, how).await;
        let (begun, ended) = ear.count();
        assert_eq!(begun, ended, "{how}");
        // A layer that calls when its future is polled has not begun before.
        let expected = if how == "dropped unpolled" && begun == 0 { 0 } else { layers };
        assert_eq!(begun, expected, "{how}");
        // A request that was not taken up leaves what was to be the answer.
        script.forget_replies();
    }
}

/// G24: an observer that panics spoils its own call, and nothing else.
pub(crate) async fn panics<S: Checked>(mut service: S, script: &Script, ear: &Ear, layers: usize) {
    for (kind, reply) in [("Admitted", Reply::Ok("ok")), ("Completed", Reply::Ok("ok")), ("Cancelled", Reply::Later)] {
        tower::ServiceExt::ready(&mut service).await.unwrap();
        script.reply(reply);
        *ear.panic_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(kind);
        let call = catch_unwind(AssertUnwindSafe(|| {
            let mut call = Box::pin(service.call("request"));
            let _ = poll_once(call.as_mut());
        }));
        assert_eq!(call.is_err(), layers > 0, "{kind}");
        *ear.panic_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        assert_eq!(script.live(), 0, "{kind}");
        script.forget_replies();
        answers(&mut service).await;
    }
}

/// Both, for a layer that is made for an observer.
macro_rules! heard {
    ($layers:expr, $make:expr) => {
        use crate::observed::{self, Ear};

        #[tokio::test(start_paused = true)]
        async fn g23_each_call_has_one_end() {
            let (ear, (script, probe)) = (Ear::default(), Script::new());
            let service = tower::Layer::layer(&($make)(ear.clone()), probe);
            observed::ends(service, &script, &ear, $layers).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g24_an_observer_that_panics_spoils_its_own_call_only() {
            let (ear, (script, probe)) = (Ear::default(), Script::new());
            let service = tower::Layer::layer(&($make)(ear.clone()), probe);
            observed::panics(service, &script, &ear, $layers).await;
        }
    };
}

pub(crate) use heard;
