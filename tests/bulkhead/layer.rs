//! Around a service, in all three modes.

use std::{panic::AssertUnwindSafe, pin::pin, time::Duration};

use futures_util::FutureExt;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{AsRejection, Rejection, bulkhead::Bulkhead};

use super::{call, refused};
use crate::support::{
    BoxError, on_threads,
    probe::{Ready, Reply, Script},
    recorder::Recorder,
};

fn bulkhead(limit: u32) -> (Bulkhead, Recorder) {
    let recorder = Recorder::new();
    let builder = Bulkhead::builder("db").max_concurrent(limit).max_wait(Duration::from_millis(100)).max_queue(2);
    (builder.observer(recorder.clone()).build().unwrap(), recorder)
}

macro_rules! poll_ready {
    ($task:expr) => {
        $task.enter(|cx, mut service| service.poll_ready(cx))
    };
}

// K2, K3, K4, K9, K10, G12, G13
#[tokio::test]
async fn it_refuses_at_once_and_leaves_nobody_in_the_queue() {
    let (bulkhead, recorder) = bulkhead(1);
    let (script, probe) = Script::new();
    let mut service = bulkhead.layer().layer(probe);
    let mut idle = service.clone();
    idle.ready().await.unwrap();
    assert_eq!(bulkhead.snapshot().in_flight, 0, "readiness holds nothing");
    script.reply(Reply::Later);
    let mut held = task::spawn(service.ready().await.unwrap().call("held"));
    assert_pending!(held.poll());
    for _ in 0..100 {
        assert!(refused(&call(&mut idle).await).is_some());
    }
    assert_eq!(bulkhead.snapshot().waiting, 0);
    script.answer(Err("boom".into()));
    assert_eq!(assert_ready!(held.poll()).unwrap_err().to_string(), "boom");
    assert!((0..100).all(|_| call(&mut idle).now_or_never().unwrap().is_ok()));
    assert_eq!(recorder.count("rejected bulkhead_full"), 100);
}

// K5, K6, K7, K8, G9, G10, G11, G23
#[tokio::test]
async fn the_permit_comes_home_from_every_kind_of_end() {
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
    assert_eq!(bulkhead.snapshot().in_flight, 0, "though its future is kept");
    assert_eq!((recorder.count("admitted"), recorder.count("cancelled"), recorder.count("completed")), (5, 4, 1));
}

// K11, K12, K13, G5: the request is never sent.
#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_sent_when_there_is_a_permit_or_never() {
    let (bulkhead, recorder) = bulkhead(1);
    let (script, probe) = Script::new();
    let mut service = bulkhead.layer().wait().layer(probe);
    assert!(call(&mut service).await.is_ok());
    assert_eq!(script.clones(), 0, "a call that does not wait clones nothing");
    script.reply(Reply::Later);
    let mut held = task::spawn(service.ready().await.unwrap().call("held"));
    assert_pending!(held.poll());
    let mut first = task::spawn(service.ready().await.unwrap().call("first"));
    let mut second = task::spawn(service.ready().await.unwrap().call("second"));
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    assert!(matches!(refused(&call(&mut service).await), Some(Rejection::BulkheadFull { .. })), "the queue is full");
    assert_eq!(script.requests(), ["request", "held"]);
    drop(second);
    script.answer(Ok("done"));
    assert!(assert_ready!(held.poll()).is_ok());
    assert!(first.is_woken());
    assert_eq!(assert_ready!(first.poll()).unwrap(), "ok");
    assert_eq!(script.requests(), ["first"]);
    script.reply(Reply::Later);
    let mut held = task::spawn(service.ready().await.unwrap().call("held"));
    assert_pending!(held.poll());
    let mut late = task::spawn(service.ready().await.unwrap().call("late"));
    assert_pending!(late.poll());
    advance(Duration::from_millis(101)).await;
    assert!(matches!(refused(&assert_ready!(late.poll())), Some(Rejection::QueueTimeout { .. })));
    assert_eq!(script.requests(), ["held"]);
    drop(held);
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
async fn with_backpressure_readiness_is_a_permit() {
    let (bulkhead, _) = bulkhead(1);
    let (script, probe) = Script::new();
    let service = bulkhead.layer().backpressure().layer(probe);
    let mut first = task::spawn(service.clone());
    let mut second = task::spawn(service.clone());
    let mut third = task::spawn(service);
    assert!(assert_ready!(poll_ready!(first)).is_ok());
    assert!(assert_ready!(poll_ready!(first)).is_ok(), "stays ready");
    assert_pending!(poll_ready!(second));
    assert_pending!(poll_ready!(third));
    drop(first.enter(|_, service| service.clone()));
    assert!(!second.is_woken(), "a clone has nothing to give back");
    drop(first);
    assert!(second.is_woken() && !third.is_woken(), "one is woken");
    script.set_ready(Ready::No);
    assert_pending!(poll_ready!(second));
    assert!(third.is_woken(), "the permit is not kept while the service is not ready");
    script.set_ready(Ready::Yes);
    assert!(assert_ready!(poll_ready!(third)).is_ok());
    let call = third.enter(|_, mut service| service.call("a"));
    assert_eq!(bulkhead.snapshot().in_flight, 1);
    assert!(call.await.is_ok());
    assert!(assert_ready!(poll_ready!(second)).is_ok());
    script.set_ready(Ready::Err("dead"));
    assert_eq!(assert_ready!(poll_ready!(second)).unwrap_err().to_string(), "dead");
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}

// G1, G2, G14, G15
#[tokio::test]
async fn readiness_is_the_services_own() {
    let (bulkhead, _) = bulkhead(1);
    let (script, probe) = Script::new();
    let mut service = task::spawn(bulkhead.layer().layer(probe));
    script.set_ready(Ready::No);
    assert_pending!(poll_ready!(service));
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    assert!(assert_ready!(poll_ready!(service)).is_ok());
    script.set_ready(Ready::Err("dead"));
    assert!(assert_ready!(poll_ready!(service)).unwrap_err().as_rejection().is_none());
}

// K29
#[tokio::test]
async fn a_breaker_outside_does_not_count_refusals() {
    use tower_rampart::circuit_breaker::{CircuitBreaker, CircuitState};

    let (bulkhead, _) = bulkhead(1);
    let _held = bulkhead.try_acquire().unwrap();
    let breaker = CircuitBreaker::consecutive("b", 1).unwrap();
    let mut service = ServiceBuilder::new().layer(breaker.layer()).layer(bulkhead.layer()).service(Script::new().1);
    assert!(refused(&call(&mut service).await).is_some());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// K28
#[tokio::test(start_paused = true)]
async fn a_timeout_outside_covers_the_queue() {
    use tower_rampart::timeout::Timeout;

    let (bulkhead, _) = bulkhead(1);
    let _held = bulkhead.try_acquire().unwrap();
    let layers = ServiceBuilder::new()
        .layer(Timeout::new("t", Duration::from_millis(50)).layer())
        .layer(bulkhead.layer().wait());
    let result = layers.service(Script::new().1).oneshot("a").await;
    assert!(matches!(refused(&result), Some(Rejection::TimedOut { .. })));
    assert_eq!(bulkhead.snapshot().waiting, 0);
}

// G16, G17, G18, G20, G21, G22, G25, K32, K33
#[tokio::test]
async fn it_works_borrowed_boxed_buffered_optional_and_per_request() {
    fn send_sync<T: Send + Sync + Clone + 'static>(_: &T) {}

    let (bulkhead, _) = bulkhead(1);
    send_sync(&bulkhead);
    send_sync(&bulkhead.layer().backpressure());
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
    let _held = bulkhead.try_acquire().unwrap();
    assert!(refused(&call(&mut buffered).await).is_some(), "found through the buffer");
    for _ in 0..3 {
        assert!(refused(&layer.layer(probe.clone()).oneshot("a").await).is_some(), "one limit for all requests");
    }
}

// G26, K24
#[test]
fn many_threads_leave_nothing_behind() {
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
    assert_eq!(count("completed") + count("cancelled") + count("rejected"), 1600, "each has one end");
}
