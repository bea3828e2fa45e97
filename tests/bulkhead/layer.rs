//! The layer, in all three readiness modes.

use std::{panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures_util::FutureExt;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{AsRejection, Rejection, bulkhead::Bulkhead};

use crate::support::{
    BoxError, assert_shareable, call, on_threads, poll_ready,
    probe::{Ready, Reply, Script},
    recorder::Recorder,
    rejection_of,
};

fn bulkhead(limit: u32) -> (Bulkhead, Recorder) {
    let recorder = Recorder::new();
    let builder = Bulkhead::builder("db").max_concurrent(limit).max_wait(Duration::from_millis(100)).max_queue(2);
    (builder.observer(recorder.clone()).build().unwrap(), recorder)
}

// K2, K3, K4, K9, K10, G12, G13
#[tokio::test]
async fn a_full_bulkhead_rejects_immediately_and_queues_no_waiter() {
    let (bulkhead, recorder) = bulkhead(1);
    let (script, probe) = Script::new();
    let mut service = bulkhead.layer().layer(probe);
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    assert_eq!(bulkhead.snapshot().in_flight, 0, "readiness reserves nothing");
    script.reply(Reply::Later);
    let mut in_flight = task::spawn(service.ready().await.unwrap().call("in flight"));
    assert_pending!(in_flight.poll());
    for _ in 0..100 {
        assert!(rejection_of(&call(&mut idle).await).is_some());
    }
    assert_eq!(bulkhead.snapshot().waiting, 0);
    script.answer(Err("boom".into()));
    assert_eq!(assert_ready!(in_flight.poll()).unwrap_err().to_string(), "boom");
    assert!((0..100).all(|_| call(&mut idle).now_or_never().unwrap().is_ok()));
    assert_eq!(recorder.count("rejected bulkhead_full"), 100);
}

// K5, K6, K7, K8, G9, G10, G11, G23
#[tokio::test]
async fn the_permit_is_released_however_the_call_ends() {
    let (bulkhead, recorder) = bulkhead(1);
    let (script, probe) = Script::new();
    let mut service = bulkhead.layer().layer(probe);
    drop(service.ready().await.unwrap().call("unpolled"));
    script.reply(Reply::Later);
    let mut pending = task::spawn(service.ready().await.unwrap().call("pending"));
    assert_pending!(pending.poll());
    drop(pending);
    script.reply(Reply::PanicInPoll);
    assert!(AssertUnwindSafe(call(&mut service)).catch_unwind().await.is_err());
    script.reply(Reply::PanicInCall);
    assert!(AssertUnwindSafe(call(&mut service)).catch_unwind().await.is_err());
    let mut kept = pin!(service.ready().await.unwrap().call("kept"));
    assert!(kept.as_mut().await.is_ok());
    assert_eq!(bulkhead.snapshot().in_flight, 0, "even while its future is kept");
    assert_eq!((recorder.count("admitted"), recorder.count("cancelled"), recorder.count("completed")), (5, 2, 3));
}

// K11, K12, K13, G5
#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_sent_once_it_has_a_permit_or_never() {
    let (bulkhead, recorder) = bulkhead(1);
    let (script, probe) = Script::new();
    let mut service = bulkhead.layer().wait().layer(probe);
    assert!(call(&mut service).await.is_ok());
    assert_eq!(script.clones(), 0, "a call that does not wait clones nothing");
    script.reply(Reply::Later);
    let mut in_flight = task::spawn(service.ready().await.unwrap().call("in flight"));
    assert_pending!(in_flight.poll());
    let mut first = task::spawn(service.ready().await.unwrap().call("first"));
    let mut second = task::spawn(service.ready().await.unwrap().call("second"));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert!(
        matches!(rejection_of(&call(&mut service).await), Some(Rejection::BulkheadFull { .. })),
        "the queue is full"
    );
    assert_eq!(script.requests(), ["request", "in flight"]);
    drop(second);
    script.answer(Ok("done"));
    assert!(assert_ready!(in_flight.poll()).is_ok());
    assert!(first.is_woken());
    assert_eq!(assert_ready!(first.poll()).unwrap(), "ok");
    assert_eq!(script.requests(), ["first"]);
    script.reply(Reply::Later);
    let mut in_flight = task::spawn(service.ready().await.unwrap().call("in flight"));
    assert_pending!(in_flight.poll());
    let mut late = task::spawn(service.ready().await.unwrap().call("late"));
    assert_pending!(late.poll());
    advance(Duration::from_millis(101)).await;
    assert!(matches!(rejection_of(&assert_ready!(late.poll())), Some(Rejection::QueueTimeout { .. })));
    assert_eq!(script.requests(), ["in flight"]);
    drop(in_flight);
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed success",
            "admitted",
            "rejected bulkhead_full",
            "cancelled waiting",
            "completed success",
            "waited 0ns",
            "admitted",
            "completed success",
            "admitted",
            "rejected queue_timeout",
            "cancelled",
        ]
    );
}

// K16, K17, K18, G3, G6, G7, G8
#[tokio::test]
async fn with_backpressure_readiness_holds_a_permit() {
    let (bulkhead, _) = bulkhead(1);
    let (script, probe) = Script::new();
    let service = bulkhead.layer().backpressure().layer(probe);
    let mut first = task::spawn(service.clone());
    let mut second = task::spawn(service.clone());
    let mut third = task::spawn(service);
    assert!(assert_ready!(poll_ready(&mut first)).is_ok());
    assert!(assert_ready!(poll_ready(&mut first)).is_ok(), "readiness is stable");
    assert_pending!(poll_ready(&mut second));
    assert_pending!(poll_ready(&mut third));
    drop(first.enter(|_, service| service.clone()));
    assert!(!second.is_woken(), "a clone holds no permit");
    drop(first);
    assert!(second.is_woken() && !third.is_woken(), "exactly one waiter is woken");
    script.set_ready(Ready::No);
    assert_pending!(poll_ready(&mut second));
    assert!(third.is_woken(), "the permit is released while the inner service is not ready");
    script.set_ready(Ready::Yes);
    assert!(assert_ready!(poll_ready(&mut third)).is_ok());
    let call = third.enter(|_, mut service| service.call("a"));
    assert_eq!(bulkhead.snapshot().in_flight, 1);
    assert!(call.await.is_ok());
    assert!(assert_ready!(poll_ready(&mut second)).is_ok());
    script.set_ready(Ready::Err("dead"));
    assert_eq!(assert_ready!(poll_ready(&mut second)).unwrap_err().to_string(), "dead");
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}

// G1, G2, G14, G15
#[tokio::test]
async fn readiness_follows_the_inner_service() {
    let (bulkhead, _) = bulkhead(1);
    let (script, probe) = Script::new();
    let mut service = task::spawn(bulkhead.layer().layer(probe));
    script.set_ready(Ready::No);
    assert_pending!(poll_ready(&mut service));
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    assert!(assert_ready!(poll_ready(&mut service)).is_ok());
    script.set_ready(Ready::Err("dead"));
    assert!(assert_ready!(poll_ready(&mut service)).unwrap_err().as_rejection().is_none());
}

// K29
#[tokio::test]
async fn an_outer_breaker_ignores_rejections() {
    use tower_rampart::circuit_breaker::{CircuitBreaker, CircuitState};

    let (bulkhead, _) = bulkhead(1);
    let _permit = bulkhead.try_acquire().unwrap();
    let breaker = CircuitBreaker::consecutive("b", 1).unwrap();
    let mut service = ServiceBuilder::new().layer(breaker.layer()).layer(bulkhead.layer()).service(Script::new().1);
    assert!(rejection_of(&call(&mut service).await).is_some());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// K28
#[tokio::test(start_paused = true)]
async fn an_outer_timeout_covers_the_time_in_the_queue() {
    use tower_rampart::timeout::Timeout;

    let (bulkhead, _) = bulkhead(1);
    let _permit = bulkhead.try_acquire().unwrap();
    let layers = ServiceBuilder::new()
        .layer(Timeout::new("t", Duration::from_millis(50)).layer())
        .layer(bulkhead.layer().wait());
    let result = layers.service(Script::new().1).oneshot("a").await;
    assert!(matches!(rejection_of(&result), Some(Rejection::TimedOut { .. })));
    assert_eq!(bulkhead.snapshot().waiting, 0);
}

// G16, G17, G18, G20, G21, G22, G25, K32, K33
#[tokio::test]
async fn it_works_by_reference_boxed_buffered_optional_and_layered_per_request() {
    let (bulkhead, _) = bulkhead(1);
    assert_shareable(&bulkhead);
    assert_shareable(&bulkhead.layer().backpressure());
    assert!(format!("{:?}", bulkhead.layer()).contains("db"));
    let (_, probe) = Script::new();
    let layer = bulkhead.layer();
    let mut service = layer.layer(probe.clone());
    assert!(call(&mut (&mut service)).await.is_ok());
    let mut boxed: Box<dyn Service<&'static str, Response = _, Error = BoxError, Future = _> + Send> =
        Box::new(service.clone());
    assert!(call(&mut boxed).await.is_ok());
    let mut buffered = tower::buffer::Buffer::new(service.clone(), 4);
    assert!(call(&mut buffered).await.is_ok());
    for layer in [None, Some(bulkhead.layer())] {
        assert!(ServiceBuilder::new().option_layer(layer).service(probe.clone()).oneshot("a").await.is_ok());
    }
    let _permit = bulkhead.try_acquire().unwrap();
    assert!(rejection_of(&call(&mut buffered).await).is_some(), "the rejection is found through the buffer");
    for _ in 0..3 {
        assert!(rejection_of(&layer.layer(probe.clone()).oneshot("a").await).is_some(), "all requests share one limit");
    }
}

// G26, K24
#[test]
fn concurrent_calls_leave_no_permit_or_waiter_behind() {
    let (bulkhead, recorder) = bulkhead(3);
    let (script, probe) = Script::new();
    on_threads(8, |thread| {
        let (script, bulkhead, probe) = (script.clone(), bulkhead.clone(), probe.clone());
        async move {
            for round in 0..200 {
                script.reply(if (round + thread) % 4 == 0 { Reply::Later } else { Reply::Ok("ok") });
                let mut service = bulkhead.layer().wait().layer(probe.clone());
                let mut call = pin!(call(&mut service));
                for _ in 0..3 {
                    if futures_util::poll!(&mut call).is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting, script.live()), (0, 0, 0));
    let lines = recorder.take();
    let count = |text: &str| lines.iter().filter(|line| line.starts_with(text)).count();
    assert_eq!(count("completed") + count("cancelled") + count("rejected"), 1600, "each call has one terminal event");
}
