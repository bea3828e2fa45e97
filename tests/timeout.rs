//! The timeout: items T and G of the contract.
#![allow(clippy::disallowed_methods)] // the time is paused

mod support;

use std::{
    future::{Future, pending, ready},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::FutureExt;
use support::{
    BoxError, address, assert_shareable, poll_once, poll_ready,
    probe::{Probe, Ready, Reply, Script},
    recorder::Recorder,
};
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, Event, EventKind, Rejection, deadline,
    timeout::{Timeout, TimeoutService},
};

const LIMIT: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(1);

fn service(limit: Duration) -> (Script, TimeoutService<Probe>) {
    let (script, probe) = Script::new();
    (script, Timeout::new("t", limit).layer().layer(probe))
}

fn timed_out<T>(result: &Result<T, BoxError>) -> Option<(&str, Duration, bool)> {
    match result.as_ref().err()?.as_rejection()? {
        Rejection::TimedOut { name, after, attempted, .. } => Some((name.as_str(), after.get(), *attempted)),
        _ => None,
    }
}

// T1, T32, G22: outside a runtime a timer could not be registered.
#[test]
fn a_service_that_is_ready_at_once_registers_no_timer() {
    let (_, mut service) = service(LIMIT);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    assert!(matches!(pin!(service.call("a")).poll(&mut cx), Poll::Ready(Ok("ok"))));
}

// T32
#[test]
fn a_pending_call_outside_a_runtime_panics_with_a_clear_message() {
    let (script, mut service) = service(LIMIT);
    script.reply(Reply::Later);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = Box::pin(service.call("a"));
    let panic = std::panic::catch_unwind(AssertUnwindSafe(|| drop(future.as_mut().poll(&mut cx)))).unwrap_err();
    let message = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    let message = message.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap();
    assert!(message.contains("runtime"), "{message}");
}

// T2, T3, T5, T27
#[tokio::test(start_paused = true)]
async fn a_slow_call_times_out_at_the_limit_and_not_before() {
    let (script, mut service) = service(LIMIT);
    script.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    advance(LIMIT - TICK).await;
    assert_pending!(call.poll());
    advance(TICK * 2).await;
    assert!(call.is_woken());
    let result = assert_ready!(call.poll());
    assert_eq!(script.live(), 0, "the inner future is dropped before the error is returned");
    assert_eq!(timed_out(&result), Some(("t", LIMIT, true)));
    assert_eq!(result.unwrap_err().to_string(), "timeout `t` fired after 100ms");
}

// T4
#[tokio::test(start_paused = true)]
async fn on_a_tie_the_response_wins() {
    let (script, mut service) = service(LIMIT);
    script.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    advance(LIMIT * 2).await;
    script.answer(Ok("late"));
    assert_eq!(assert_ready!(call.poll()).unwrap(), "late");
}

// T6
#[tokio::test]
async fn an_inner_future_that_exhausts_the_cooperative_budget_does_not_starve_the_timer() {
    let hog = std::future::poll_fn(|cx| {
        while tokio::task::coop::has_budget_remaining() {
            // Each receive that is ready consumes budget.
            let (sender, receiver) = tokio::sync::oneshot::channel();
            sender.send(()).unwrap();
            let _ = pin!(receiver).poll(cx);
        }
        cx.waker().wake_by_ref();
        Poll::<Result<(), BoxError>>::Pending
    });
    let result = Timeout::new("t", Duration::from_millis(20)).run(hog).await;
    assert!(timed_out(&result).is_some());
}

// T7
#[tokio::test(start_paused = true)]
async fn the_longest_limits_never_fire() {
    let centuries = Duration::from_secs(86_400 * 365 * 500);
    for limit in [Duration::MAX, Duration::from_secs(u64::MAX / 2), centuries] {
        let (script, mut service) = service(limit);
        script.reply(Reply::Later);
        let mut call = task::spawn(service.ready().await.unwrap().call("a"));
        assert_pending!(call.poll());
        advance(Duration::from_secs(86_400 * 365)).await;
        assert_pending!(call.poll());
        script.answer(Ok("ok"));
        assert!(assert_ready!(call.poll()).is_ok());
    }
}

// T8
#[tokio::test(start_paused = true)]
async fn a_zero_limit_passes_a_ready_call_and_times_out_a_pending_one_at_its_first_poll() {
    let (script, mut service) = service(Duration::ZERO);
    assert!(service.ready().await.unwrap().call("a").await.is_ok());
    script.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("b"));
    assert_eq!(timed_out(&assert_ready!(call.poll())), Some(("t", Duration::ZERO, true)));
}

// T9
#[tokio::test(start_paused = true)]
async fn the_clock_starts_at_the_first_poll() {
    let (script, mut service) = service(LIMIT);
    script.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    advance(LIMIT * 5).await;
    assert_pending!(call.poll());
    advance(LIMIT - TICK).await;
    assert_pending!(call.poll());
    advance(TICK * 2).await;
    assert!(assert_ready!(call.poll()).is_err());
}

// T10, G1, G2, G14
#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_is_not_limited() {
    let (script, service) = service(LIMIT);
    script.set_ready(Ready::No);
    let mut service = task::spawn(service);
    assert_pending!(poll_ready(&mut service));
    advance(LIMIT * 10).await;
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    assert!(assert_ready!(poll_ready(&mut service)).is_ok());
    assert!(service.enter(|_, mut service| service.call("a")).await.is_ok());
    script.set_ready(Ready::Err("dead"));
    let error = assert_ready!(poll_ready(&mut service)).unwrap_err();
    assert_eq!(error.to_string(), "dead");
}

// T12
#[tokio::test(start_paused = true)]
async fn a_request_can_set_its_own_limit() {
    let (script, probe) = Script::new();
    let own = |request: &&'static str| (*request == "short").then_some(LIMIT / 10);
    let mut service = Timeout::new("t", LIMIT).layer().per_request(own).layer(probe);
    for (request, limit) in [("short", LIMIT / 10), ("other", LIMIT)] {
        script.reply(Reply::Later);
        let result = service.ready().await.unwrap().call(request).await;
        assert_eq!(timed_out(&result), Some(("t", limit, true)));
    }
}

// T13
#[tokio::test(start_paused = true)]
async fn of_two_timeouts_the_shorter_fires_and_is_named() {
    for (outer, inner, name) in [(LIMIT, LIMIT * 2, "outer"), (LIMIT * 2, LIMIT, "inner")] {
        let (script, probe) = Script::new();
        script.reply(Reply::Later);
        let layers = ServiceBuilder::new()
            .layer(Timeout::new("outer", outer).layer())
            .layer(Timeout::new("inner", inner).layer());
        let result = layers.service(probe).oneshot("a").await;
        assert_eq!(timed_out(&result), Some((name, LIMIT, true)));
    }
}

// T14
#[tokio::test(start_paused = true)]
async fn the_inner_service_sees_the_time_left_which_only_shrinks() {
    let seen = async |outer: Duration, inner: Duration| {
        let observe = service_fn(|(): ()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Ok::<_, BoxError>(deadline::remaining())
        });
        let layers = ServiceBuilder::new()
            .layer(Timeout::new("outer", outer).layer())
            .layer(Timeout::new("inner", inner).layer());
        layers.service(observe).oneshot(()).await.unwrap().unwrap()
    };
    let about = |left: Duration, expected: u64| left.abs_diff(Duration::from_millis(expected)) <= TICK * 2;
    assert!(about(seen(LIMIT, LIMIT * 2).await, 90));
    assert!(about(seen(LIMIT * 2, LIMIT).await, 90));
    assert_eq!(deadline::remaining(), None, "there is no deadline outside");
}

// T14: in `call` and at the first poll.
#[tokio::test(start_paused = true)]
async fn the_deadline_is_visible_in_call_and_at_the_first_poll() {
    let inner = service_fn(|(): ()| ready(Ok::<_, BoxError>(deadline::remaining())));
    let service = Timeout::new("t", LIMIT).layer().layer(inner);
    assert_eq!(service.oneshot(()).await.unwrap(), Some(LIMIT));
    let at_first_poll = async { Ok::<_, BoxError>((deadline::current(), deadline::current())) };
    let (first, second) = Timeout::new("t", LIMIT).run(at_first_poll).await.unwrap();
    assert_eq!(first, second, "the clock starts once");
}

// T15
#[tokio::test(start_paused = true)]
async fn a_passed_deadline_is_rejected_without_a_call() {
    let (script, service) = service(LIMIT);
    let result = deadline::scope(Instant::now(), service.oneshot("a")).await;
    assert_eq!(timed_out(&result), Some(("t", LIMIT, false)));
    assert!(!result.unwrap_err().as_rejection().unwrap().was_attempted());
    assert_eq!(script.calls(), 0);
}

// T17
#[tokio::test(start_paused = true)]
async fn a_first_poll_after_the_deadline_polls_the_service_once() {
    for (reply, served) in [(Reply::Ok("ok"), true), (Reply::Later, false)] {
        let (script, mut service) = service(LIMIT);
        script.reply(reply);
        service.ready().await.unwrap();
        let at = Instant::now() + LIMIT / 2;
        // The call is made in time and polled too late.
        let mut made = task::spawn(deadline::scope(at, async { Ok::<_, BoxError>(service.call("a")) }));
        let mut call = task::spawn(assert_ready!(made.poll()).unwrap());
        advance(LIMIT).await;
        let result = assert_ready!(call.poll());
        assert_eq!(result.is_ok(), served);
        drop(call);
        assert_eq!((script.calls(), script.live()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_enforces_the_deadline_around_it() {
    let (script, service) = service(LIMIT);
    script.reply(Reply::Later);
    let began = Instant::now();
    let result = deadline::scope(began + LIMIT / 2, service.oneshot("a")).await;
    assert!(timed_out(&result).is_some());
    assert!(began.elapsed() <= LIMIT / 2 + TICK);
}

// T14, T15: the deadline is set around a call that already exists.
#[tokio::test(start_paused = true)]
async fn a_deadline_set_around_an_existing_call_is_enforced() {
    for limit in [LIMIT, Duration::MAX] {
        let (script, mut service) = service(limit);
        script.reply(Reply::Later);
        let call = service.ready().await.unwrap().call("a");
        let began = Instant::now();
        let result = tokio::time::timeout(LIMIT * 5, deadline::scope(began + LIMIT / 2, call)).await.unwrap();
        assert_eq!(timed_out(&result), Some(("t", LIMIT / 2, true)));
        assert!(began.elapsed() <= LIMIT / 2 + TICK);
    }
    let (script, mut service) = service(LIMIT);
    script.reply(Reply::Later);
    let call = service.ready().await.unwrap().call("a");
    let later = deadline::scope(Instant::now() + LIMIT * 2, call).await;
    assert_eq!(timed_out(&later), Some(("t", LIMIT, true)), "a later deadline changes nothing");
}

// T18
#[tokio::test(start_paused = true)]
async fn a_call_moved_to_another_task_wakes_that_task() {
    let (script, mut service) = service(LIMIT);
    script.reply(Reply::Later);
    let mut call = Box::pin(service.ready().await.unwrap().call("a"));
    let mut first = task::spawn(());
    assert!(first.enter(|cx, _| call.as_mut().poll(cx)).is_pending());
    let mut second = task::spawn(());
    assert!(second.enter(|cx, _| call.as_mut().poll(cx)).is_pending());
    advance(LIMIT + TICK).await;
    assert!(second.is_woken() && !first.is_woken());
}

// G36
#[tokio::test(start_paused = true)]
async fn a_completed_call_that_is_kept_keeps_neither_a_timer_nor_its_task() {
    struct Task;

    impl std::task::Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    let slow = service_fn(|()| {
        let mut polls = 0;
        std::future::poll_fn(move |_| {
            polls += 1;
            if polls > 1 { Poll::Ready(Ok::<_, BoxError>(())) } else { Poll::Pending }
        })
    });
    let mut layers = ServiceBuilder::new()
        .layer(Timeout::new("total", 2 * LIMIT).layer())
        .layer(Timeout::new("attempt", LIMIT).layer())
        .service(slow);
    for _ in 0..2 {
        let task = Arc::new(Task);
        let waker = Waker::from(Arc::clone(&task));
        let mut kept = Box::pin(layers.ready().await.unwrap().call(()));
        assert!(kept.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        assert!(Arc::strong_count(&task) > 2, "its timers know the task");
        assert!(kept.as_mut().poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!(Arc::strong_count(&task), 2);
    }
}

// T16, T19, T31, G9, G10
#[tokio::test(start_paused = true)]
async fn dropping_a_call_cancels_it_and_dropping_the_service_does_not() {
    let (script, mut service) = service(LIMIT);
    drop(service.ready().await.unwrap().call("unpolled"));
    script.reply(Reply::Later).reply(Reply::Later);
    let mut dropped = task::spawn(service.ready().await.unwrap().call("pending"));
    assert_pending!(dropped.poll());
    drop(dropped);
    assert_eq!(script.live(), 0);
    let call = service.ready().await.unwrap().call("in flight");
    drop(service);
    script.answer(Ok("from the dropped service"));
    assert_eq!(call.await.unwrap(), "from the dropped service");
}

// T20, G12, G13
#[tokio::test]
async fn results_pass_by_value() {
    let (script, mut service) = service(LIMIT);
    let error: BoxError = "boom".into();
    let original = address(&error);
    script.reply(Reply::Err(error));
    let error = service.ready().await.unwrap().call("a").await.unwrap_err();
    assert_eq!(address(&error), original);
}

// T25, G6, G5
#[tokio::test]
async fn a_clone_starts_unready_and_shares_nothing_but_the_limit() {
    let (script, mut service) = service(LIMIT);
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert!(service.call("first").await.is_ok());
    assert!(clone.ready().await.unwrap().call("second").await.is_ok());
    assert_eq!(script.requests(), ["first", "second"]);
}

// T26
#[tokio::test(start_paused = true)]
async fn ten_thousand_concurrent_timeouts_fire() {
    let timeout = Timeout::new("t", LIMIT);
    let calls = (0..10_000).map(|_| timeout.run(pending::<Result<(), BoxError>>()));
    let results = futures_util::future::join_all(calls).await;
    assert!(results.iter().all(|result| timed_out(result).is_some()));
}

#[tokio::test(start_paused = true)]
async fn changing_the_limit_affects_only_later_calls() {
    let timeout = Timeout::new("t", LIMIT);
    let (script, probe) = Script::new();
    let mut service = timeout.layer().layer(probe);
    script.reply(Reply::Later).reply(Reply::Later);
    let before = service.ready().await.unwrap().call("before");
    timeout.set_limit(LIMIT * 3);
    assert_eq!(timeout.snapshot().limit, LIMIT * 3);
    assert_eq!(timed_out(&before.await).unwrap().1, LIMIT);
    assert_eq!(timed_out(&service.ready().await.unwrap().call("after").await).unwrap().1, LIMIT * 3);
}

// T29, G23
#[tokio::test(start_paused = true)]
async fn the_observer_receives_each_outcome_with_its_elapsed_time() {
    let recorder = Recorder::new();
    let elapsed = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let times = elapsed.clone();
    let observer = move |event: &Event<'_>| {
        if let EventKind::Completed { elapsed, .. } | EventKind::Cancelled { elapsed, .. } = event.kind {
            times.lock().unwrap().push(elapsed.unwrap());
        }
    };
    let timeout = Timeout::builder("t", LIMIT).observer((recorder.clone(), observer)).build();
    let (script, probe) = Script::new();
    let mut service = timeout.layer().layer(probe);
    let half = || async {
        tokio::time::sleep(LIMIT / 2).await;
        Ok::<_, BoxError>(())
    };
    timeout.run(half()).await.unwrap();
    assert!(timeout.run(async { Err::<(), BoxError>("boom".into()) }).await.is_err());
    script.reply(Reply::Later);
    assert!(service.ready().await.unwrap().call("slow").await.is_err());
    drop(service.ready().await.unwrap().call("dropped"));
    script.reply(Reply::PanicInPoll).reply(Reply::PanicInCall);
    let call = service.ready().await.unwrap().call("panics");
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    service.ready().await.unwrap();
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| drop(service.call("panics")))).is_err());
    let passed = deadline::scope(Instant::now(), timeout.run(half())).await;
    assert!(passed.is_err());
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed success",
            "admitted",
            "completed failure",
            "admitted",
            "rejected timed_out",
            "admitted",
            "cancelled",
            "admitted",
            "completed failure",
            "admitted",
            "completed failure",
            "rejected timed_out",
        ]
    );
    assert_eq!(elapsed.lock().unwrap()[0], LIMIT / 2);
}

// T30
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_works_on_the_multi_thread_runtime() {
    let timeout = Timeout::new(format!("t-{}", 1), Duration::from_millis(5));
    let result = tokio::spawn(async move { timeout.run(pending::<Result<(), BoxError>>()).await }).await.unwrap();
    assert_eq!(timed_out(&result).unwrap().0, "t-1");
}

// G16, G17, G18, G20, G21
#[tokio::test]
async fn it_works_by_reference_boxed_buffered_and_optional() {
    let timeout = Timeout::new("t", LIMIT);
    assert_shareable(&timeout.layer());
    assert!(format!("{timeout:?}").contains("100ms"));
    let (script, mut service) = service(LIMIT);
    assert!((&mut service).oneshot("a").await.is_ok());
    let boxed: Box<dyn Service<&'static str, Response = _, Error = BoxError, Future = _> + Send> =
        Box::new(service.clone());
    assert!(boxed.oneshot("b").await.is_ok());
    script.reply(Reply::Later);
    let result = tower::buffer::Buffer::new(service.clone(), 4).oneshot("c").await;
    assert!(timed_out(&result).is_some(), "the rejection is found through the buffer");
    for layer in [None, Some(timeout.layer())] {
        assert!(ServiceBuilder::new().option_layer(layer).service(service.clone()).oneshot("d").await.is_ok());
    }
}

// G24: the inner future is dropped before the observer learns of the timeout.
#[tokio::test(start_paused = true)]
async fn a_panicking_observer_affects_only_its_own_call() {
    for when in ["Admitted", "Rejected", "Completed", "Cancelled"] {
        let (script, probe) = Script::new();
        let seen = script.clone();
        let observer = move |event: &Event<'_>| {
            let kind = format!("{:?}", event.kind);
            assert!(!kind.starts_with("Rejected") || seen.live() == 0, "the inner future is dropped first");
            assert!(!kind.starts_with(when), "deliberate panic");
        };
        let mut service = Timeout::builder("t", LIMIT).observer(observer).build().layer().layer(probe);
        script.reply(if when == "Completed" { Reply::Ok("ok") } else { Reply::Later });
        service.ready().await.unwrap();
        let call = AssertUnwindSafe(async {
            let call = service.call("a");
            if when != "Cancelled" {
                let _ = call.await;
            }
        });
        let panic = call.catch_unwind().await.unwrap_err();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"deliberate panic"), "{when}");
        assert_eq!(script.live(), 0, "{when}");
        assert_eq!(deadline::current(), None, "no deadline is left behind");
    }
}

// T26, G26, G23
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_calls_have_one_terminal_event_each() {
    let recorder = Recorder::new();
    let timeout = Timeout::builder("t", Duration::from_millis(5)).observer(recorder.clone()).build();
    let calls: Vec<_> = (0..1_000)
        .map(|i| {
            let timeout = timeout.clone();
            tokio::spawn(async move {
                match i % 4 {
                    0 => timeout.run(ready(Ok::<_, BoxError>(()))).await.is_ok(),
                    1 => timeout.run(pending::<Result<(), BoxError>>()).await.is_err(),
                    2 => timeout.run(async { Err::<(), BoxError>("boom".into()) }).await.is_err(),
                    _ => poll_once(timeout.run(pending::<Result<(), BoxError>>())).is_pending(),
                }
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
    let ends = ["completed success", "rejected timed_out", "completed failure", "cancelled"];
    assert_eq!(ends.map(|end| recorder.count(end)), [250; 4]);
    assert_eq!(recorder.count("admitted"), 1_000);
}

// T14, G28
#[tokio::test(start_paused = true)]
async fn no_deadline_is_left_behind_by_a_panic() {
    let (script, mut service) = service(LIMIT);
    for reply in [Reply::PanicInPoll, Reply::PanicInCall] {
        script.reply(reply);
        service.ready().await.unwrap();
        assert!(AssertUnwindSafe(async { service.call("a").await }).catch_unwind().await.is_err());
        assert_eq!(deadline::current(), None);
    }
    script.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("b"));
    assert_pending!(call.poll());
    assert_eq!(deadline::current(), None, "a pending call leaves no deadline behind");
    advance(Duration::from_secs(86_400 * 365 * 3)).await;
    assert!(timed_out(&assert_ready!(call.poll())).is_some());
}

// T14: a spawned task does not see the deadline unless a scope carries it over.
#[tokio::test(start_paused = true)]
async fn a_deadline_is_carried_to_another_task_by_a_scope() {
    let spawned = async {
        let bare = tokio::spawn(async { deadline::remaining() }).await.unwrap();
        let at = deadline::current().unwrap();
        let carried = tokio::spawn(deadline::scope(at, async { deadline::remaining() })).await.unwrap();
        Ok::<_, BoxError>((bare, carried))
    };
    assert_eq!(Timeout::new("t", LIMIT).run(spawned).await.unwrap(), (None, Some(LIMIT)));
}

// T9, T13: an inner timeout's clock starts with its own first poll, not with an outer timeout's.
#[tokio::test(start_paused = true)]
async fn an_inner_timeout_has_its_full_time_from_its_own_start() {
    let (began, outer, inner) = (Instant::now(), Timeout::new("outer", LIMIT * 10), Timeout::new("inner", LIMIT));
    let call = outer.run(async {
        assert_eq!(deadline::current(), Some(began + LIMIT * 10));
        // The clock moves within this poll.
        assert!(poll_once(advance(LIMIT / 2)).is_pending());
        let seen = inner.run(async { Ok::<_, BoxError>(deadline::current()) }).await?;
        Ok::<_, BoxError>((seen, deadline::current()))
    });
    let (inside, after) = call.await.unwrap();
    assert_eq!(inside, Some(began + LIMIT / 2 + LIMIT));
    assert_eq!(after, Some(began + LIMIT * 10), "the inner timeout leaves no deadline behind");
    assert_eq!(deadline::current(), None);
}

// T13: the first reading of the clock serves all timeouts that are in their first poll.
#[tokio::test(start_paused = true)]
async fn nested_timeouts_in_their_first_poll_share_one_clock_reading() {
    let (began, outer, inner) = (Instant::now(), Timeout::new("outer", LIMIT * 2), Timeout::new("inner", LIMIT * 3));
    let call = outer.run(async {
        let inner = inner.run(async {
            let seen = deadline::current();
            assert!(poll_once(advance(LIMIT / 2)).is_pending());
            Ok::<_, BoxError>((seen, deadline::current()))
        });
        let seen = inner.await?;
        Ok::<_, BoxError>((seen, deadline::current()))
    });
    let at = Some(began + LIMIT * 2);
    assert_eq!(call.await.unwrap(), ((at, at), at));
}
