//! The exact sequence of events for every way a call can go. G23: exactly one terminal event, the
//! last one.

use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{
    AsRejection, Pattern, Rejection,
    event::{Event, EventKind},
    retry::Retry,
};

use crate::{
    budget, builder, by_text, error, ms, recorded,
    support::{
        BoxError,
        probe::{Ready, Reply, Script},
    },
};

/// The events of a call whose attempts have these results.
async fn events_of<const N: usize>(replies: [Reply; N]) -> Vec<String> {
    let (builder, recorder) = recorded();
    let (script, probe) = Script::new();
    for reply in replies {
        script.reply(reply);
    }
    let _ = builder.build().unwrap().layer().classify_with(by_text).layer(probe).oneshot("a").await;
    recorder.take()
}

fn down() -> Reply {
    Reply::Err("down".into())
}

// G23, R33
#[tokio::test(start_paused = true)]
async fn completed_calls_report_their_retries_and_their_verdict() {
    assert_eq!(events_of([Reply::Ok("fine")]).await, ["admitted", "completed success"]);
    assert_eq!(events_of([Reply::Err("ignore me".into())]).await, ["admitted", "completed ignored"]);
    assert_eq!(events_of([down(), Reply::Ok("fine")]).await, ["admitted", "retry 2 in 10ms", "completed success"]);
    let ignored = events_of([down(), Reply::Err("ignore me".into())]).await;
    assert_eq!(ignored, ["admitted", "retry 2 in 10ms", "completed ignored"]);
    let exhausted = ["admitted", "retry 2 in 10ms", "retry 3 in 10ms", "retries exhausted after 3"];
    let failed = events_of([down(), Reply::Ok("bad"), down()]).await;
    assert_eq!(failed, [&exhausted[..], &["completed failure"]].concat());
    let throttled = events_of([down(), down(), Reply::Ok("slow down")]).await;
    assert_eq!(throttled, [&exhausted[..], &["completed throttled"]].concat());
}

// G23
#[tokio::test(start_paused = true)]
async fn calls_that_are_not_retried_report_the_reason() {
    let call = async |change: &dyn Fn(tower_rampart::retry::RetryBuilder) -> tower_rampart::retry::RetryBuilder,
                      reply| {
        let (builder, recorder) = recorded();
        let (script, probe) = Script::new();
        script.reply(reply);
        let _ = change(builder).build().unwrap().layer().layer(probe).oneshot("a").await;
        recorder.take()
    };
    // The budget is empty.
    let none = budget(1);
    assert!(none.try_withdraw());
    let events = call(&|builder| builder.budget(&none), down()).await;
    assert_eq!(events, ["admitted", "budget exhausted after 1", "completed failure"]);
    // The deadline is too close.
    let events = call(&|builder| builder.deadline(ms(5)), down()).await;
    assert_eq!(events, ["admitted", "retries exhausted after 1", "completed failure"]);
    // The limiter's retry time is above the cap.
    let limited = || Reply::Err(Rejection::rate_limited("inner", Some(ms(10_000)), 1).into());
    let events = call(&|builder| builder, limited()).await;
    assert_eq!(events, ["admitted", "retries exhausted after 1", "completed ignored"]);
    // An open circuit would reject a retry too, and a limit of one attempt allows no retry.
    let open = Reply::Err(Rejection::circuit_open("inner", None).into());
    assert_eq!(call(&|builder| builder, open).await, ["admitted", "completed ignored"]);
    assert_eq!(call(&|builder| builder.max_attempts(1), down()).await, ["admitted", "completed failure"]);
}

// G23
#[tokio::test(start_paused = true)]
async fn a_call_dropped_at_any_point_is_cancelled_once() {
    let (builder, recorder) = recorded();
    let (script, probe) = Script::new();
    let mut service = builder.build().unwrap().layer().layer(probe);
    // Before its first poll.
    drop(service.ready().await.unwrap().call("a"));
    assert_eq!(recorder.take(), ["admitted", "cancelled"]);
    // During an attempt.
    script.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!(recorder.take(), ["admitted", "cancelled"]);
    // During the delay.
    script.reply(down());
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!(recorder.take(), ["admitted", "retry 2 in 10ms", "cancelled"]);
    // While the service is not ready, and during the second attempt.
    script.reply(down());
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    script.set_ready(Ready::No);
    tokio::time::advance(ms(11)).await;
    assert_pending!(call.poll());
    drop(call);
    assert_eq!(recorder.take(), ["admitted", "retry 2 in 10ms", "cancelled"]);
    script.set_ready(Ready::Yes);
    script.reply(down()).reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    tokio::time::advance(ms(11)).await;
    assert_pending!(call.poll());
    assert_eq!(script.live(), 1);
    drop(call);
    assert_eq!(recorder.take(), ["admitted", "retry 2 in 10ms", "cancelled"]);
    // After completion.
    drop(service.ready().await.unwrap().call("a").await);
    assert_eq!(recorder.take(), ["admitted", "completed success"]);
}

// G23
#[tokio::test(start_paused = true)]
async fn run_reports_the_same_events() {
    let (builder, recorder) = recorded();
    let retry = builder.no_budget().build().unwrap();
    let flaky = |attempt| async move { if attempt < 3 { Err(error("down")) } else { Ok(attempt) } };
    assert_eq!(retry.run(flaky).await.unwrap(), 3);
    let scheduled = ["admitted", "retry 2 in 10ms", "retry 3 in 10ms"];
    assert_eq!(recorder.take(), [&scheduled[..], &["completed success"]].concat());
    retry.run(|_| async { Err::<(), _>(error("down")) }).await.unwrap_err();
    assert_eq!(recorder.take(), [&scheduled[..], &["retries exhausted after 3", "completed failure"]].concat());
    drop(retry.run(flaky));
    assert!(recorder.take().is_empty(), "the call starts with its first poll");
    let mut call = task::spawn(retry.run(flaky));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!(recorder.take(), ["admitted", "retry 2 in 10ms", "cancelled"]);
}

#[tokio::test]
async fn every_event_has_pattern_and_name_and_no_elapsed_time() {
    let check = |event: &Event<'_>| {
        assert_eq!((event.pattern, event.name.as_str()), (Pattern::Retry, "inventory"));
        if let EventKind::Completed { elapsed, .. } | EventKind::Cancelled { elapsed, .. } = event.kind {
            assert_eq!(elapsed, None, "that would take a clock read per call");
        }
    };
    let retry = Retry::builder("inventory").observer(check).max_attempts(1).build().unwrap();
    let (script, probe) = Script::new();
    script.reply(down());
    let service = retry.layer().layer(probe);
    service.clone().oneshot("a").await.unwrap_err();
    service.oneshot("a").await.unwrap();
    assert_eq!((retry.name().as_str(), builder().build().unwrap().name().as_str()), ("inventory", "test"));
}

#[tokio::test(start_paused = true)]
async fn a_retry_never_rejects() {
    let empty = budget(1);
    assert!(empty.try_withdraw());
    for builder in [builder(), builder().budget(&empty), builder().deadline(ms(1))] {
        let (script, probe) = Script::new();
        (0..3).for_each(|_| _ = script.reply(down()));
        let error: BoxError = builder.build().unwrap().layer().layer(probe).oneshot("a").await.unwrap_err();
        assert!(error.as_rejection().is_none());
    }
}
