//! Panics, drops, changes in flight, and many calls at once: nothing is lost, and the retry works afterwards.

use std::{
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
    budget, builder, error, failing, ms, now, recorded,
    support::{
        BoxError,
        probe::{Ready, Reply, Script},
    },
};

fn balance(budget: &RetryBudget) -> f64 {
    budget.snapshot().balance
}

// G9: dropped before the first poll.
#[tokio::test]
async fn a_call_that_is_never_polled_does_nothing() {
    let (script, probe) = Script::new();
    let mut service = builder().build().unwrap().layer().layer(probe);
    drop(service.ready().await.unwrap().call("a"));
    assert_eq!((script.live(), script.finished()), (0, 0));
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap(), "ok");
}

// R17
#[tokio::test(start_paused = true)]
async fn nothing_more_is_sent_by_a_call_dropped_during_the_delay() {
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
async fn a_call_dropped_during_an_attempt_cancels_it() {
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

// The service panics in the first or in the second attempt, in `call` or in `poll`.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_service_cancels_the_call_and_loses_no_token() {
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
            assert_eq!((events.len(), events.last().unwrap().as_str()), (2 + before, "cancelled"));
            assert_eq!(
                (script.live(), balance(&budget)),
                (0, 9.0 - before as f64),
                "a retry that was sent is paid for"
            );
            // Neither this instance nor its clones are the worse for it.
            assert_eq!(shared.ready().await.unwrap().call("b").await.unwrap(), "ok");
            assert_eq!(service.oneshot("c").await.unwrap(), "ok");
        }
    }
}

// G24
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_spoils_its_own_call_only() {
    let tells: [fn(&EventKind<'_>) -> bool; 5] = [
        |kind| matches!(kind, EventKind::Admitted),
        |kind| matches!(kind, EventKind::RetryScheduled { .. }),
        |kind| matches!(kind, EventKind::RetriesExhausted { .. }),
        |kind| matches!(kind, EventKind::BudgetExhausted { .. }),
        |kind| matches!(kind, EventKind::Completed { .. }),
    ];
    for (n, panics_at) in tells.into_iter().enumerate() {
        let armed = Arc::new(AtomicUsize::new(1));
        let observer = {
            let armed = armed.clone();
            move |event: &Event<'_>| assert!(armed.load(SeqCst) == 0 || !panics_at(&event.kind), "told to panic")
        };
        let budget = budget(2);
        if n == 3 {
            assert!(budget.try_withdraw() && budget.try_withdraw());
        }
        let there = balance(&budget);
        let retry = builder().budget(&budget).observer(observer).build().unwrap();
        let (script, probe) = failing(3);
        let service = retry.layer().layer(probe);
        AssertUnwindSafe(service.clone().oneshot("a")).catch_unwind().await.unwrap_err();
        // What was committed before the panic stays: the tokens of retries that were sent, and only those.
        assert_eq!(balance(&budget), there - script.calls().saturating_sub(1) as f64);
        armed.store(0, SeqCst);
        let _ = service.oneshot("b").await;
        assert_eq!(script.live(), 0);
    }
}

// G24: in a destructor too, while the first panic unwinds, where another one that got out would abort the process.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_at_every_event_does_not_abort() {
    let told = Arc::new(AtomicUsize::new(0));
    let observer = {
        let told = told.clone();
        move |event: &Event<'_>| {
            told.fetch_add(1, SeqCst);
            assert!(matches!(event.kind, EventKind::Admitted), "told to panic");
        }
    };
    let retry = builder().observer(observer).build().unwrap();
    let run = retry.run(|_| async { Err::<(), _>(error("down")) });
    AssertUnwindSafe(run).catch_unwind().await.unwrap_err();
    assert_eq!(told.load(SeqCst), 3, "admitted, retry scheduled, and cancelled as the panic unwinds");
    let full = retry.budget().unwrap().snapshot();
    assert_eq!(full.balance, full.capacity, "the retry was not sent");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_fails_to_become_ready_leaves_the_retry_whole() {
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

// Configuration changes while calls are in flight.
#[tokio::test(start_paused = true)]
async fn a_call_in_flight_follows_a_change_of_attempts() {
    // Switched off during the delay: the attempt that was scheduled is made, and none after it.
    let retry = builder().no_budget().build().unwrap();
    let (script, probe) = failing(9);
    let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    retry.set_max_attempts(1).unwrap();
    tokio::time::advance(ms(11)).await;
    assert_ready_err!(call.poll());
    assert_eq!(script.calls(), 2);

    // Raised during the first of two attempts: more of them.
    retry.set_max_attempts(2).unwrap();
    let (script, probe) = failing(9);
    let mut call = task::spawn(retry.clone().layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    retry.set_max_attempts(5).unwrap();
    call.await.unwrap_err();
    assert_eq!(script.calls(), 5);

    // Raised during the last attempt, of which there is no copy: this call has no more.
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

// The clock stands still, and jumps far.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_far_makes_one_attempt_of_it() {
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

// A call moved to another task is woken there.
#[tokio::test(start_paused = true)]
async fn a_call_polled_by_another_task_during_the_delay_wakes_that_one() {
    let (_, probe) = failing(1);
    let mut call = Box::pin(builder().build().unwrap().layer().layer(probe).oneshot("a"));
    assert!(crate::support::poll_once(call.as_mut()).is_pending());
    let start = now();
    assert_eq!(tokio::spawn(call).await.unwrap().unwrap(), "ok");
    assert_eq!(now() - start, ms(10));
}

// G26: every call ends once, no token is lost, and the load is what the budget allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn thousands_of_calls_on_many_threads() {
    const CALLS: usize = 4000;
    let (started, ended, retried) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
    let observer = {
        let (started, ended, retried) = (started.clone(), ended.clone(), retried.clone());
        move |event: &Event<'_>| {
            let counter = match event.kind {
                EventKind::Admitted => &started,
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
            // Those that hang are given up after a few polls.
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
    assert_eq!((count(&started), count(&ended)), (CALLS, CALLS));
    let retries = count(&sent) - CALLS;
    assert!(retries <= 500 && retries <= count(&retried));
    assert_eq!(balance(&budget), 500.0 - retries as f64, "tokens of retries that were not sent came back");
}
