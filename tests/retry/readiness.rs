//! The inner service's readiness, for the first attempt and for retries.

use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{
    AsRejection,
    bulkhead::Bulkhead,
    retry::{RetryBuilder, RetryService, WhenNotReady},
};

use crate::{
    address, builder, by_text, error, failing, ms, recorded,
    support::probe::{Probe, Ready, Reply, Script},
};

fn retrying(probe: Probe) -> RetryService<Probe> {
    builder().build().unwrap().layer().layer(probe)
}

// G1, G2, G3
#[tokio::test]
async fn readiness_follows_the_inner_service() {
    let (script, probe) = Script::new();
    let mut service = retrying(probe);
    script.set_ready(Ready::No);
    let mut ready = task::spawn(async move {
        service.ready().await.unwrap();
        service
    });
    assert_pending!(ready.poll());
    script.set_ready(Ready::Yes);
    assert!(ready.is_woken());
    let mut service = ready.await;
    for _ in 0..3 {
        service.ready().await.unwrap();
    }
    assert_eq!(service.call("a").await.unwrap(), "ok");
}

// G14, G15
#[tokio::test]
async fn a_readiness_error_passes_and_is_not_retried() {
    let (script, probe) = Script::new();
    let mut service = retrying(probe);
    script.set_ready(Ready::Err("broken"));
    let error = service.ready().await.map(drop).unwrap_err();
    assert_eq!((error.to_string().as_str(), error.as_rejection()), ("broken", None));
    assert_eq!(script.ready_polls(), 1);
}

// G4
#[tokio::test]
#[should_panic(expected = "called an instance that was not polled ready")]
async fn one_readiness_pays_for_one_call() {
    let (_, probe) = Script::new();
    let mut service = retrying(probe);
    service.ready().await.unwrap().call("a").await.unwrap();
    drop(service.call("b"));
}

// G5, G7: the probe panics if an instance that was not polled ready is called.
#[tokio::test]
async fn the_polled_instance_is_called_even_if_it_was_cloned_in_between() {
    let (script, probe) = Script::new();
    let mut service = retrying(probe);
    service.ready().await.unwrap();
    let clone = service.clone();
    assert_eq!(service.call("a").await.unwrap(), "ok");
    assert_eq!(clone.oneshot("b").await.unwrap(), "ok");
    assert_eq!(script.requests(), ["a", "b"]);
}

// G6
#[tokio::test]
#[should_panic(expected = "called an instance that was not polled ready")]
async fn a_clone_starts_unready() {
    let (_, probe) = Script::new();
    let mut service = retrying(probe);
    service.ready().await.unwrap();
    drop(service.clone().call("a"));
}

// G8, G9: also when the call is never polled.
#[tokio::test]
async fn an_inner_reservation_is_released_with_the_service_or_the_future() {
    let bulkhead = Bulkhead::new("inner", 1).unwrap();
    let (_, probe) = Script::new();
    let mut service = builder().build().unwrap().layer().layer(bulkhead.layer().backpressure().layer(probe));
    let mut other = service.clone();
    service.ready().await.unwrap();
    assert_eq!(bulkhead.snapshot().in_flight, 1);
    let mut ready = task::spawn(other.ready());
    assert_pending!(ready.poll());
    drop(service);
    assert!(ready.is_woken());
    assert_ready_ok!(ready.poll());
    drop(ready);
    drop(other.call("a"));
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}

// R14: the probe panics if it is called unready.
#[tokio::test(start_paused = true)]
async fn the_service_for_the_next_attempt_is_polled_ready_after_the_delay() {
    let (script, probe) = failing(1);
    let mut call = task::spawn(retrying(probe).oneshot("a"));
    assert_pending!(call.poll());
    assert_eq!(script.ready_polls(), 1, "not during the delay: a reservation would be held");
    tokio::time::advance(ms(11)).await;
    assert_ready_ok!(call.poll());
    assert_eq!((script.ready_polls(), script.calls()), (2, 2));
}

// R14: one clone makes all retries of a call.
#[tokio::test(start_paused = true)]
async fn a_call_clones_the_service_at_most_once() {
    for (failures, clones) in [(0, 0), (1, 1), (2, 1), (3, 1)] {
        let (script, probe) = failing(failures);
        let service = retrying(probe);
        let before = script.clones();
        let _ = service.oneshot("a").await;
        assert_eq!(script.clones() - before, clones);
    }
}

/// A call whose first attempt fails with `reply` and that finds this readiness after the delay.
async fn unready(
    builder: RetryBuilder,
    reply: Reply,
    ready: Ready,
) -> (Script, task::Spawn<impl Future<Output = Result<&'static str, crate::support::BoxError>>>) {
    let (script, probe) = Script::new();
    script.reply(reply);
    let mut call = task::spawn(builder.build().unwrap().layer().classify_with(by_text).layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    script.set_ready(ready);
    tokio::time::advance(ms(11)).await;
    (script, call)
}

// R15
#[tokio::test(start_paused = true)]
async fn a_retry_waits_for_a_service_that_is_not_ready() {
    for reply in [Reply::Err("down".into()), Reply::Ok("bad")] {
        let (script, mut call) = unready(builder(), reply, Ready::No).await;
        assert_pending!(call.poll());
        tokio::time::advance(ms(100_000)).await;
        assert_pending!(call.poll());
        script.set_ready(Ready::Yes);
        assert!(call.is_woken());
        assert_eq!(assert_ready_ok!(call.poll()), "ok");
        assert_eq!(script.calls(), 2);
    }
}

// R15
#[tokio::test(start_paused = true)]
async fn give_up_returns_the_last_error_when_the_service_is_not_ready() {
    let (builder, recorder) = recorded();
    let down = error("down");
    let original = address(&down);
    let (script, mut call) = unready(builder.when_not_ready(WhenNotReady::GiveUp), Reply::Err(down), Ready::No).await;
    assert_eq!(address(&assert_ready_err!(call.poll())), original);
    assert_eq!(script.calls(), 1);
    let events = ["admitted", "retry 2 in 10ms", "retries exhausted after 1", "completed failure"];
    assert_eq!(recorder.take(), events);
}

// R15, R12: the failed response is dropped before the delay, so only another attempt can produce a
// result.
#[tokio::test(start_paused = true)]
async fn after_a_failed_response_even_give_up_waits_for_readiness() {
    let giving_up = builder().when_not_ready(WhenNotReady::GiveUp);
    let (script, mut call) = unready(giving_up, Reply::Ok("bad"), Ready::No).await;
    assert_pending!(call.poll());
    script.set_ready(Ready::Yes);
    assert_eq!(assert_ready_ok!(call.poll()), "ok");
}

// R16
#[tokio::test(start_paused = true)]
async fn a_readiness_error_before_a_retry_returns_the_last_error() {
    for then in [WhenNotReady::Wait, WhenNotReady::GiveUp] {
        let (builder, recorder) = recorded();
        let down = error("down");
        let original = address(&down);
        let (_, mut call) = unready(builder.when_not_ready(then), Reply::Err(down), Ready::Err("broken")).await;
        assert_eq!(address(&assert_ready_err!(call.poll())), original, "not the readiness error");
        let events = ["admitted", "retry 2 in 10ms", "retries exhausted after 1", "completed failure"];
        assert_eq!(recorder.take(), events);
    }
}

// R16: the exception, as for R15.
#[tokio::test(start_paused = true)]
async fn after_a_failed_response_the_readiness_error_is_returned() {
    let (builder, recorder) = recorded();
    let (_, mut call) = unready(builder, Reply::Ok("slow down"), Ready::Err("broken")).await;
    assert_eq!(assert_ready_err!(call.poll()).to_string(), "broken");
    assert_eq!(recorder.take().last().unwrap(), "completed throttled");
}

// G11: a queue slot taken by the second service does not outlive the call.
#[tokio::test(start_paused = true)]
async fn an_ended_call_keeps_no_second_service() {
    let bulkhead = Bulkhead::new("inner", 1).unwrap();
    let (_, probe) = failing(1);
    let layer = builder().when_not_ready(WhenNotReady::GiveUp).build().unwrap().layer();
    let mut service = layer.layer(bulkhead.layer().backpressure().layer(probe));
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    let permit = bulkhead.try_acquire().unwrap();
    tokio::time::advance(ms(11)).await;
    assert_ready_err!(call.poll());
    drop(permit);
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0), "while the future is still there");
}
