//! Dropped calls, panics and configuration changes: none of them loses a token.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use futures_util::FutureExt;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{
    Rejection,
    event::{Event, EventKind},
    rate_limit::{Rate, RateLimiter},
};

use super::limiter;
use crate::support::{
    BoxError, call, on_threads, poll_once,
    probe::{Ready, Reply, Script},
    recorder::Recorder,
    rejection_of,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

// L18, G9, G10, G23
#[tokio::test(start_paused = true)]
async fn dropping_a_waiting_call_releases_its_token_at_any_time() {
    let (limiter, recorder) = limiter(1, 10);
    let (script, probe) = Script::new();
    let mut service = limiter.layer().wait().layer(probe);
    limiter.check().unwrap();
    recorder.take();
    drop(service.ready().await.unwrap().call("never polled"));
    let mut polled = task::spawn(service.ready().await.unwrap().call("polled"));
    assert_pending!(polled.poll());
    drop(polled);
    assert_eq!(recorder.take(), ["cancelled waiting", "cancelled waiting"]);
    // Dropped when due, before its task polls it.
    let mut due = task::spawn(service.ready().await.unwrap().call("due"));
    assert_pending!(due.poll());
    advance(SECOND + MS).await;
    assert!(due.is_woken());
    drop(due);
    assert_eq!(limiter.snapshot().available, 1);
    assert_eq!(recorder.take(), ["cancelled waiting"]);
    assert_eq!((script.calls(), script.live()), (0, 0));
    assert!(call(&mut service).await.is_ok());
}

// G23
#[tokio::test(start_paused = true)]
async fn a_rejected_call_reports_its_rejection_even_if_never_polled() {
    let (limiter, recorder) = limiter(1, 0);
    limiter.check().unwrap();
    recorder.take();
    let mut service = limiter.layer().layer(Script::new().1);
    drop(service.ready().await.unwrap().call("never polled"));
    let kept = service.ready().await.unwrap().call("polled later");
    advance(SECOND).await;
    assert!(rejection_of(&kept.await).is_some());
    assert_eq!(recorder.take(), ["rejected rate_limited"; 2]);
    assert_eq!(limiter.snapshot().available, 1);
}

// G23, G30
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_ends_the_call_once() {
    for reply in [|| Reply::PanicInCall, || Reply::PanicInPoll] {
        let (limiter, recorder) = limiter(1, 10);
        let (script, probe) = Script::new();
        let mut waiting = limiter.layer().wait().layer(probe.clone());
        let mut reserving = limiter.layer().backpressure().layer(probe);
        // Immediately, after a wait, and with a reservation.
        script.reply(reply()).reply(reply()).reply(reply());
        assert!(AssertUnwindSafe(call(&mut waiting)).catch_unwind().await.is_err());
        assert!(AssertUnwindSafe(call(&mut waiting)).catch_unwind().await.is_err());
        assert!(AssertUnwindSafe(call(&mut reserving)).catch_unwind().await.is_err());
        assert!(call(&mut waiting).await.is_ok());
        assert!(call(&mut reserving).await.is_ok());
        assert_eq!(
            recorder.take(),
            [
                "admitted",
                "completed failure",
                "waited 1s",
                "admitted",
                "completed failure",
                "admitted",
                "completed failure",
                "waited 1s",
                "admitted",
                "completed success",
                "admitted",
                "completed success",
            ]
        );
        assert_eq!(script.live(), 0);
    }
}

// G4, G7
#[tokio::test(start_paused = true)]
async fn cloning_between_readiness_and_call_changes_nothing() {
    let (limiter, _) = limiter(1, 0);
    let (_, probe) = Script::new();
    let mut service = limiter.layer().backpressure().layer(probe);
    let mut unready = service.ready().await.unwrap().clone();
    assert_eq!(service.call("a").await.unwrap(), "ok");
    assert_eq!(limiter.snapshot().available, 0);
    // Called without being polled ready: the limit holds, and the inner service, not this layer,
    // panics.
    assert!(rejection_of(&unready.call("b").await).is_some());
    advance(SECOND).await;
    let panic = AssertUnwindSafe(async { unready.call("c").await }).catch_unwind().await.unwrap_err();
    assert!(panic.downcast_ref::<&str>().unwrap().contains("not polled ready"));
}

// G14, G15
#[tokio::test(start_paused = true)]
async fn an_inner_readiness_error_passes_unchanged() {
    let (limiter, recorder) = limiter(1, 0);
    let (script, probe) = Script::new();
    limiter.check().unwrap();
    recorder.take();
    let mut rejecting = limiter.layer().layer(probe.clone());
    let mut waiting = limiter.layer().wait().layer(probe);
    assert!(rejecting.ready().await.is_ok() && waiting.ready().await.is_ok(), "ready even without a token");
    script.set_ready(Ready::Err("dead"));
    for error in [rejecting.ready().await.err(), waiting.ready().await.err()] {
        assert_eq!(error.unwrap().to_string(), "dead");
    }
    assert!(recorder.take().is_empty());
}

// G24
#[tokio::test(start_paused = true)]
async fn a_panicking_observer_loses_only_its_own_calls_token() {
    let is_terminal = |kind: &EventKind<'_>| !matches!(kind, EventKind::Admitted | EventKind::WaitCompleted { .. });
    for at_the_end in [false, true] {
        let limiter = RateLimiter::builder("api", Rate::per_second(1))
            .max_wait(10 * SECOND)
            .observer(move |event: &Event<'_>| {
                assert!(std::thread::panicking() || is_terminal(&event.kind) != at_the_end, "deliberate panic");
            })
            .build()
            .unwrap();
        let (script, probe) = Script::new();
        let mut service = limiter.layer().wait().layer(probe);
        for _ in 0..2 {
            assert!(AssertUnwindSafe(call(&mut service)).catch_unwind().await.is_err());
        }
        if at_the_end {
            let mut waits = task::spawn(service.ready().await.unwrap().call("waits"));
            assert_pending!(waits.poll());
            assert!(catch_unwind(AssertUnwindSafe(|| drop(waits))).is_err());
        }
        assert_eq!(script.live(), 0);
        advance(SECOND).await;
        assert_eq!((limiter.snapshot().available, limiter.snapshot().full_after), (1, Duration::ZERO));
    }
}

// L9, L10, G28
#[tokio::test(start_paused = true)]
async fn after_a_far_clock_jump_the_waiters_do_not_start_all_at_once() {
    let (limiter, _) = limiter(2, 100);
    let mut waiting: Vec<_> = (0..20).map(|_| task::spawn(limiter.acquire(1))).collect();
    let passed = waiting.iter_mut().map(|call| call.poll()).filter(|poll| poll.is_ready()).count();
    assert_eq!(passed, 2, "while the clock stands still");
    advance(Duration::from_secs(400 * 86_400)).await;
    let results: Vec<_> = waiting.iter_mut().skip(2).map(|call| assert_ready!(call.poll())).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 2, "the burst");
    advance(2 * SECOND).await;
    assert_eq!((limiter.snapshot().available, limiter.snapshot().full_after), (2, Duration::ZERO));
}

// L33
#[tokio::test(start_paused = true)]
async fn changing_the_rate_applies_to_waiters_and_loses_no_token() {
    let (limiter, recorder) = limiter(1, 10);
    limiter.check().unwrap();
    let mut stays = task::spawn(limiter.acquire(1));
    let mut leaves = task::spawn(limiter.acquire(1));
    assert_pending!(stays.poll());
    assert_pending!(leaves.poll());
    limiter.set_rate(Rate::per_second(10), 5).unwrap();
    // A debt of three tokens, with a burst of five.
    assert_eq!(limiter.snapshot().available, 2);
    assert!(limiter.check().is_err(), "the waiters come first");
    drop(leaves);
    assert!(stays.is_woken());
    assert!(assert_ready!(stays.poll()).is_ok());
    assert!((0..3).all(|_| limiter.check().is_ok()) && limiter.check().is_err());
    // A lower rate holds for waiters too, but none waits for longer than it may.
    let mut slow = task::spawn(limiter.acquire(1));
    let mut costly = task::spawn(limiter.acquire(5));
    assert_pending!(slow.poll());
    assert_pending!(costly.poll());
    limiter.set_rate(Rate::per_hour(1), 4).unwrap();
    assert!(slow.is_woken());
    assert_pending!(slow.poll());
    advance(10 * SECOND + 20 * MS).await;
    for (waiter, retry_after) in [(slow, Some(Duration::from_secs(2 * 3600 - 10))), (costly, None)] {
        let mut waiter = waiter;
        assert!(waiter.is_woken());
        let Err(Rejection::RateLimited { retry_after: after, .. }) = assert_ready!(waiter.poll()) else { panic!() };
        assert_eq!(
            after.map(|after| after.get().as_secs().div_ceil(10)),
            retry_after.map(|after| after.as_secs() / 10)
        );
    }
    assert_eq!(recorder.count("cancelled waiting"), 1);
    assert_eq!(recorder.count("rejected"), 4);
}

// G26, G23
#[test]
fn thousands_of_concurrent_calls_lose_no_token() {
    let recorder = Recorder::new();
    let limiter = RateLimiter::builder("api", Rate::per_hour(100))
        .max_wait(Duration::from_secs(100 * 3600))
        .observer(recorder.clone())
        .build()
        .unwrap();
    let (script, probe) = Script::new();
    let service = limiter.layer().wait().layer(probe);
    on_threads(8, |_| {
        let service = service.clone();
        async move {
            let calls = (0..500).map(|_| {
                let mut service = service.clone();
                async move { drop(poll_once(call(&mut service))) }
            });
            futures_util::future::join_all(calls).await;
        }
    });
    // A call that finds a token is made at its first poll; all others are dropped while they wait.
    assert_eq!(script.calls(), recorder.count("admitted"));
    assert_eq!(recorder.count("completed"), script.calls());
    assert_eq!(recorder.count("cancelled waiting") + script.calls(), 4000);
    assert!(script.calls() >= 100, "at least the burst");
    let hours = script.calls() as u64 * 3600 / 100;
    assert!(limiter.snapshot().full_after <= Duration::from_secs(hours), "the others left no debt");
}

// L18
#[tokio::test(start_paused = true)]
async fn dropping_run_cancels_it_while_waiting_and_while_admitted() {
    let (limiter, recorder) = limiter(1, 10);
    let never = || std::future::pending::<Result<(), BoxError>>();
    let mut works = task::spawn(limiter.run(never()));
    let mut waits = task::spawn(limiter.run(never()));
    assert_pending!(works.poll());
    assert_pending!(waits.poll());
    drop((works, waits));
    assert_eq!(recorder.take(), ["admitted", "cancelled", "cancelled waiting"]);
    assert_eq!(limiter.snapshot().full_after, SECOND, "the admitted call used its token");
}

// G22
#[test]
fn outside_a_runtime_only_waiting_panics_and_it_takes_no_token() {
    let (limiter, recorder) = limiter(1, 10);
    let (_, probe) = Script::new();
    let mut rejecting = limiter.layer().layer(probe.clone());
    let mut waiting = limiter.layer().wait().layer(probe.clone());
    let mut reserving = limiter.layer().backpressure().layer(probe);
    assert!(poll_once(call(&mut waiting)).is_ready());
    let debt = limiter.snapshot().full_after;
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(call(&mut waiting)))).is_err());
    assert!(catch_unwind(AssertUnwindSafe(|| poll_once(call(&mut reserving)))).is_err());
    assert!(limiter.snapshot().full_after <= debt, "both tokens are released");
    assert!(poll_once(call(&mut rejecting)).is_ready(), "rejected without a timer");
    assert_eq!(
        recorder.take(),
        ["admitted", "completed success", "cancelled waiting", "rejected rate_limited"],
        "a failed readiness is not a call"
    );
}
