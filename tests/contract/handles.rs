//! The same events from `run(future)` as from the layers.

use std::{
    future::{Future, pending},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
};

use tower_rampart::{BoxError, fallback::Fallback};

use super::{
    PanickingRecorder, breaker, bulkhead, limiter, retry,
    support::{poll_once, recorder::Recorder},
    timeout,
};

type Call = Pin<Box<dyn Future<Output = Result<&'static str, BoxError>>>>;

/// Pending, and panics when it is dropped.
struct PanicsWhenDropped;

impl Future for PanicsWhenDropped {
    type Output = Result<&'static str, BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::task::Poll::Pending
    }
}

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        assert!(std::thread::panicking(), "deliberate panic");
    }
}

/// Runs a call with a handle.
type Run = Box<dyn Fn(Call) -> Call>;

/// Runs `future` through each handle.
fn handles() -> Vec<(&'static str, Recorder, Run)> {
    fn handle(
        name: &'static str,
        make: impl FnOnce(PanickingRecorder) -> Box<dyn Fn(Call) -> Call>,
    ) -> (&'static str, Recorder, Box<dyn Fn(Call) -> Call>) {
        let recorder = PanickingRecorder::default();
        (name, recorder.events.clone(), make(recorder))
    }
    macro_rules! run {
        ($handle:expr, |$h:ident, $future:ident| $run:expr) => {
            |recorder| {
                let handle = $handle(recorder);
                Box::new(move |$future| {
                    let $h = handle.clone();
                    Box::pin(async move { $run.await })
                })
            }
        };
    }
    vec![
        handle("circuit breaker", run!(breaker, |handle, future| handle.run(future))),
        handle("bulkhead", run!(bulkhead, |handle, future| handle.run(future))),
        handle("rate limiter", run!(limiter, |handle, future| handle.run(future))),
        handle("timeout", run!(timeout, |handle, future| handle.run(future))),
        handle(
            "retry",
            run!(retry, |handle, future| {
                let mut future = Some(future);
                handle.run(move |_| future.take().unwrap())
            }),
        ),
        handle(
            "fallback",
            run!(|recorder| Fallback::value("f", "instead").observer(recorder), |handle, future| {
                handle.run(future, |result| async { result })
            }),
        ),
    ]
}

// G30
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_future_is_a_failure_and_any_other_a_cancellation() {
    for (name, recorder, run) in handles() {
        let mut panicking = run(Box::pin(async { panic!("deliberate panic") }));
        for _ in 0..2 {
            assert!(catch_unwind(AssertUnwindSafe(|| poll_once(panicking.as_mut()))).is_err());
        }
        drop(panicking);
        assert_eq!(recorder.take(), ["admitted", "completed failure"], "{name}");

        let sibling = AssertUnwindSafe(|| {
            let mut call = run(Box::pin(pending()));
            assert!(poll_once(call.as_mut()).is_pending());
            panic!("deliberate panic");
        });
        assert!(catch_unwind(sibling).is_err());
        assert_eq!(recorder.take(), ["admitted", "cancelled"], "{name}");

        let mut call = run(Box::pin(PanicsWhenDropped));
        assert!(poll_once(call.as_mut()).is_pending());
        assert!(catch_unwind(AssertUnwindSafe(|| drop(call))).is_err());
        assert_eq!(recorder.take(), ["admitted", "cancelled"], "{name}");
    }
}

// G30: a retry's closure is part of the attempt.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_closure_that_makes_an_attempt_is_a_failure() {
    let recorder = PanickingRecorder::default();
    let retry = retry(recorder.clone());
    let call = AssertUnwindSafe(|| poll_once(retry.run(|_| -> Call { panic!("deliberate panic") })));
    assert!(catch_unwind(call).is_err());
    assert_eq!(recorder.events.take(), ["admitted", "completed failure"]);
}
