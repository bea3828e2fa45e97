//! Panics, drops, configuration changes and concurrent calls: no token is lost, and the retry keeps
//! working.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_rampart::{
    event::{Event, EventKind},
    retry::{Backoff, RetryBudget, WhenNotReady},
};

use crate::{
    balance, budget, builder, error, failing, ms, now, recorded,
    support::{
        BoxError,
        probe::{Probe, Ready, Reply, Script},
        recorder::Recorder,
    },
};

// G9
#[tokio::test]
async fn dropping_an_unpolled_call_sends_nothing() {
    let (script, probe) = Script::new();
    let mut service = builder().build().unwrap().layer().layer(probe);
    drop(service.ready().await.unwrap().call("a"));
    assert_eq!((script.live(), script.finished()), (0, 0));
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap(), "ok");
}

// R17
#[tokio::test(start_paused = true)]
async fn dropping_a_call_during_the_delay_sends_nothing_more() {
    let (script, probe) = failing(1);
    let service = builder().build().unwrap().layer().layer(probe);
    let mut call = task::spawn(service.clone().oneshot("a"));
    assert_pending!(call.poll());
    drop(call);
    tokio::time::advance(ms(1000)).await;
    assert_eq!((script.calls(), script.live()), (1, 0));
    assert_eq!(service.oneshot("b").await.unwrap(), "ok");
}

// R18, G10
#[tokio::test(start_paused = true)]
async fn dropping_a_call_during_an_attempt_cancels_the_attempt() {
    for before in [0, 1] {
        let (script, probe) = failing(before);
        script.reply(Reply::Later);
        let service = builder().build().unwrap().layer().layer(probe);
        let mut call = task::spawn(service.oneshot("a"));
        for _ in 0..=before {
            assert_pending!(call.poll());
            tokio::time::advance(ms(11)).await;
        }
        assert_pending!(call.poll());
        assert_eq!(script.live(), 1);
        drop(call);
        assert_eq!(script.live(), 0);
    }
}

// R19, G30: the service panics in its first or second attempt, in `call` or in `poll`.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_fails_the_call_and_loses_no_token() {
    let panics: [fn() -> Reply; 2] = [|| Reply::PanicInCall, || Reply::PanicInPoll];
    for panic in panics {
        for before in [0, 1] {
            let (script, probe) = failing(before);
            script.reply(panic());
            let (builder, recorder) = recorded();
            let budget = budget(9);
            let service = builder.budget(&budget).build().unwrap().layer().layer(probe);
            let mut shared = service.clone();
            let call = async { shared.ready().await.unwrap().call("a").await };
            AssertUnwindSafe(call).catch_unwind().await.unwrap_err();
            let events = recorder.take();
            assert_eq!((events.len(), events.last().unwrap().as_str()), (2 + before, "completed failure"));
            assert_eq!(
                (script.live(), balance(&budget)),
                (0, 9.0 - before as f64),
                "the token of a sent retry is spent"
            );
            // This instance and its clones keep working.
            assert_eq!(shared.ready().await.unwrap().call("b").await.unwrap(), "ok");
            assert_eq!(service.oneshot("c").await.unwrap(), "ok");
        }
    }
}

// G24
#[tokio::test(start_paused = true)]
async fn a_panicking_observer_affects_only_its_own_call() {
    let matches_event: [fn(&EventKind<'_>) -> bool; 5] = [
        |kind| matches!(kind, EventKind::Admitted),
        |kind| matches!(kind, EventKind::RetryScheduled { .. }),
        |kind| matches!(kind, EventKind::RetriesExhausted { .. }),
        |kind| matches!(kind, EventKind::BudgetExhausted { .. }),
        |kind| matches!(kind, EventKind::Completed { .. }),
    ];
    for (n, panics_at) in matches_event.into_iter().enumerate() {
        let armed = Arc::new(AtomicUsize::new(1));
        let observer = {
            let armed = armed.clone();
            move |event: &Event<'_>| assert!(armed.load(SeqCst) == 0 || !panics_at(&event.kind), "deliberate panic")
        };
        let budget = budget(2);
        if n == 3 {
            assert!(budget.try_withdraw() && budget.try_withdraw());
        }
        let before = balance(&budget);
        let retry = builder().budget(&budget).observer(observer).build().unwrap();
        let (script, probe) = failing(3);
        let service = retry.layer().layer(probe);
        AssertUnwindSafe(service.clone().oneshot("a")).catch_unwind().await.unwrap_err();
        // Only the tokens of sent retries stay withdrawn.
        assert_eq!(balance(&budget), before - script.calls().saturating_sub(1) as f64);
        armed.store(0, SeqCst);
        let _ = service.oneshot("b").await;
        assert_eq!(script.live(), 0);
    }
}

// G24, R21: the token of the retry that is not sent is back when the observer learns of it.
#[tokio::test(start_paused = true)]
async fn a_retry_that_stops_settles_its_budget_before_its_observer_is_called() {
    for panics in [false, true] {
        let (budget, seen) = (budget(5), Arc::new(std::sync::Mutex::new(None)));
        let (observed, balances) = (budget.clone(), seen.clone());
        let observer = move |event: &Event<'_>| {
            if let EventKind::RetriesExhausted { .. } = event.kind {
                *balances.lock().unwrap() = Some(balance(&observed));
                assert!(!panics, "deliberate panic");
            }
        };
        let recorder = Recorder::new();
        let retry = builder().budget(&budget).deadline(ms(50)).observer((observer, recorder.clone())).build().unwrap();
        let (script, probe) = failing(1);
        let mut call = task::spawn(AssertUnwindSafe(retry.layer().layer(probe).oneshot("a")).catch_unwind());
        assert_pending!(call.poll());
        script.set_ready(Ready::No);
        assert_eq!(call.await.is_err(), panics);
        assert_eq!((*seen.lock().unwrap(), balance(&budget)), (Some(5.0), 5.0));
        let lines = ["admitted", "retry 2 in 10ms", "retries exhausted after 1", "completed failure"];
        assert_eq!(recorder.take(), lines);
    }
}

// G24: a second panic that escapes a destructor during unwinding would abort the process.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_at_every_event_does_not_abort() {
    let events = Arc::new(AtomicUsize::new(0));
    let observer = {
        let events = events.clone();
        move |event: &Event<'_>| {
            events.fetch_add(1, SeqCst);
            assert!(matches!(event.kind, EventKind::Admitted), "deliberate panic");
        }
    };
    let retry = builder().observer(observer).build().unwrap();
    let run = retry.run(|_| async { Err::<(), _>(error("down")) });
    AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert_eq!(events.load(SeqCst), 3, "admitted, retry scheduled, and cancelled during unwinding");
    let full = retry.budget().unwrap().snapshot();
    assert_eq!(full.balance, full.capacity, "the retry was not sent");
}

#[tokio::test(start_paused = true)]
async fn a_readiness_error_before_a_retry_loses_no_token() {
    let (script, probe) = failing(1);
    let budget = budget(5);
    let service = builder().budget(&budget).build().unwrap().layer().layer(probe);
    let mut call = task::spawn(service.clone().oneshot("a"));
    assert_pending!(call.poll());
    script.set_ready(Ready::Err("broken"));
    tokio::time::advance(ms(11)).await;
    assert_ready_err!(call.poll());
    script.set_ready(Ready::Yes);
    assert_eq!(service.oneshot("b").await.unwrap(), "ok");
    assert_eq!(balance(&budget), 5.0);
}

#[tokio::test(start_paused = true)]
async fn changing_the_attempts_applies_to_calls_in_flight() {
    // Lowered to one during the delay: the scheduled attempt is made, and none after it.
    let retry = builder().no_budget().build().unwrap();
    let (script, probe) = failing(9);
    let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    retry.set_max_attempts(1).unwrap();
    tokio::time::advance(ms(11)).await;
    assert_ready_err!(call.poll());
    assert_eq!(script.calls(), 2);

    // Raised during the first of two attempts: more attempts are made.
    retry.set_max_attempts(2).unwrap();
    let (script, probe) = failing(9);
    let mut call = task::spawn(retry.clone().layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    retry.set_max_attempts(5).unwrap();
    call.await.unwrap_err();
    assert_eq!(script.calls(), 5);

    // Raised during the last attempt, which kept no copy of the request: no more attempts are made.
    retry.set_max_attempts(1).unwrap();
    let (script, probe) = Script::new();
    script.reply(Reply::Later);
    let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    retry.set_max_attempts(5).unwrap();
    script.answer(Err(error("down")));
    assert_ready_err!(call.poll());
    assert_eq!((script.calls(), retry.snapshot().max_attempts), (1, 5));

    assert_eq!(retry.set_max_attempts(0).unwrap_err().field(), "max_attempts");
    assert_eq!(retry.snapshot().max_attempts, 5);
}

// The clock stands still, then jumps far.
#[tokio::test(start_paused = true)]
async fn a_far_clock_jump_causes_one_attempt() {
    let (script, probe) = failing(2);
    let mut call = task::spawn(builder().build().unwrap().layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    for _ in 0..3 {
        assert_pending!(call.poll());
    }
    assert_eq!(script.calls(), 1, "the clock stands still");
    tokio::time::advance(Duration::from_secs(86_400 * 365)).await;
    assert_pending!(call.poll());
    assert_eq!(script.calls(), 2);
    tokio::time::advance(ms(11)).await;
    assert_ready_ok!(call.poll());
}

#[tokio::test(start_paused = true)]
async fn a_call_moved_to_another_task_during_the_delay_wakes_that_task() {
    let (_, probe) = failing(1);
    let mut call = Box::pin(builder().build().unwrap().layer().layer(probe).oneshot("a"));
    assert!(crate::support::poll_once(call.as_mut()).is_pending());
    let start = now();
    assert_eq!(tokio::spawn(call).await.unwrap().unwrap(), "ok");
    assert_eq!(now() - start, ms(10));
}

// G26: one terminal event per call, no lost token, and no more load than the budget allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn concurrent_calls_stay_within_the_budget_and_end_once_each() {
    const CALLS: usize = 4000;
    let (admitted, ended, retried) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let observer = {
        let (admitted, ended, retried) = (admitted.clone(), ended.clone(), retried.clone());
        move |event: &Event<'_>| {
            let counter = match event.kind {
                EventKind::Admitted => &admitted,
                EventKind::Completed { .. } | EventKind::Cancelled { .. } => &ended,
                EventKind::RetryScheduled { .. } => &retried,
                _ => return,
            };
            counter.fetch_add(1, SeqCst);
        }
    };
    let budget = RetryBudget::builder().ratio(0.0).capacity(500).min_per_second(0).build().unwrap();
    let retry = builder()
        .backoff(Backoff::fixed(Duration::ZERO))
        .when_not_ready(WhenNotReady::GiveUp)
        .budget(&budget)
        .observer(observer)
        .build()
        .unwrap();
    let sent = Arc::new(AtomicUsize::new(0));
    let flaky = {
        let sent = sent.clone();
        service_fn(move |call: usize| {
            sent.fetch_add(1, SeqCst);
            async move {
                tokio::task::yield_now().await;
                match call % 3 {
                    0 => Ok::<_, BoxError>(call),
                    1 => Err(error("down")),
                    _ => std::future::pending().await,
                }
            }
        })
    };
    let service = retry.layer().layer(flaky);
    let calls = (0..CALLS).map(|call| {
        let service = service.clone();
        tokio::spawn(async move {
            let call = service.oneshot(call);
            tokio::pin!(call);
            // Calls that hang are dropped after a few polls.
            for _ in 0..20 {
                let polled = std::future::poll_fn(|cx| std::task::Poll::Ready(call.as_mut().poll(cx))).await;
                if let std::task::Poll::Ready(result) = polled {
                    return result.is_ok();
                }
                tokio::task::yield_now().await;
            }
            false
        })
    });
    let mut successes = 0;
    for call in calls.collect::<Vec<_>>() {
        successes += usize::from(call.await.unwrap());
    }
    let count = |counter: &AtomicUsize| counter.load(SeqCst);
    assert_eq!(successes, CALLS.div_ceil(3));
    assert_eq!((count(&admitted), count(&ended)), (CALLS, CALLS));
    let retries = count(&sent) - CALLS;
    assert!(retries <= 500 && retries <= count(&retried));
    assert_eq!(balance(&budget), 500.0 - retries as f64, "the tokens of unsent retries are returned");
}

/// A service whose clone polls another call.
struct Reentrant {
    probe: Probe,
    other: Arc<std::sync::Mutex<Option<Other>>>,
}

type Other = std::pin::Pin<Box<dyn Future<Output = Result<&'static str, BoxError>> + Send>>;

impl Clone for Reentrant {
    fn clone(&self) -> Self {
        let other = self.other.lock().unwrap().take();
        if let Some(mut other) = other {
            assert!(crate::support::poll_once(other.as_mut()).is_pending());
            *self.other.lock().unwrap() = Some(other);
        }
        Self { probe: self.probe.clone(), other: self.other.clone() }
    }
}

impl Service<&'static str> for Reentrant {
    type Response = &'static str;
    type Error = BoxError;
    type Future = crate::support::probe::ProbeFuture;

    fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), BoxError>> {
        self.probe.poll_ready(cx)
    }

    fn call(&mut self, request: &'static str) -> Self::Future {
        self.probe.call(request)
    }
}

// G29: no foreign code runs under a lock.
#[tokio::test(start_paused = true)]
async fn a_clone_of_the_service_may_use_the_retry_that_clones_it() {
    let (script, probe) = failing(2);
    let other = Arc::default();
    let service = builder().build().unwrap().layer().layer(Reentrant { probe, other: Arc::clone(&other) });
    let mut first = task::spawn(service.clone().oneshot("first"));
    let mut second: Other = Box::pin(service.oneshot("second"));
    assert_pending!(first.poll());
    assert!(crate::support::poll_once(second.as_mut()).is_pending());
    tokio::time::advance(ms(11)).await;
    *other.lock().unwrap() = Some(second);
    assert_ready_ok!(first.poll());
    let second = other.lock().unwrap().take().unwrap();
    assert_eq!((second.await.unwrap(), script.calls()), ("ok", 4));
}
