//! Around a service, refusing.

use std::{future::Future, panic::AssertUnwindSafe, pin::pin, task::Poll, time::Duration};

use futures_util::FutureExt;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AsRejection, Verdict,
    circuit_breaker::{CircuitBreaker, CircuitBreakerService, CircuitState},
};

use super::{OPEN, call, consecutive, failure, recorder, refused};
use crate::support::{
    BoxError, on_threads,
    probe::{Probe, Ready, Reply, Script},
    recorder::Recorder,
};

fn service(failures: u32) -> (Script, CircuitBreaker, CircuitBreakerService<Probe>, Recorder) {
    let (script, probe) = Script::new();
    let recorder = recorder();
    let breaker = consecutive(failures).observer(recorder.clone()).build().unwrap();
    let service = breaker.layer().layer(probe);
    (script, breaker, service, recorder)
}

// B11, B12, B13
#[tokio::test(start_paused = true)]
async fn while_open_the_service_is_neither_polled_nor_called() {
    let (script, breaker, mut service, _) = service(1);
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    script.set_ready(Ready::No);
    let (polls, calls) = (script.ready_polls(), script.calls());
    let result = call(&mut service).await;
    assert_eq!(refused(&result).unwrap().name(), "db");
    assert_eq!((script.ready_polls(), script.calls()), (polls, calls), "a service that is stuck delays nothing");
    assert_eq!(breaker.state(), CircuitState::Open);
}

// B17
#[tokio::test(start_paused = true)]
async fn it_closes_when_the_service_is_well_again() {
    let (script, breaker, mut service, recorder) = service(2);
    for _ in 0..2 {
        script.reply(failure());
        assert!(call(&mut service).await.is_err());
    }
    assert!(refused(&call(&mut service).await).is_some());
    tokio::time::advance(OPEN).await;
    assert_eq!(call(&mut service).await.unwrap(), "ok");
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed failure",
            "admitted",
            "state closed -> open: consecutive_failures",
            "completed failure",
            "rejected circuit_open",
            "state open -> half_open: open_timeout",
            "admitted",
            "state half_open -> closed: probe_succeeded",
            "completed success",
        ]
    );
}

// G23: the exact sequence through every event.
#[tokio::test(start_paused = true)]
async fn the_observer_hears_everything_once_and_in_order() {
    let (script, breaker, mut service, recorder) = service(1);
    drop(service.ready().await.unwrap().call("dropped"));
    assert!(call(&mut service).await.is_ok());
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    assert!(call(&mut service).await.is_err());
    tokio::time::advance(OPEN).await;
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    breaker.disable();
    script.reply(Reply::Err(tower_rampart::Rejection::bulkhead_full("x", 1).into()));
    assert!(call(&mut service).await.is_err());
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "cancelled",
            "admitted",
            "completed success",
            "admitted",
            "state closed -> open: consecutive_failures",
            "completed failure",
            "rejected circuit_open",
            "state open -> half_open: open_timeout",
            "admitted",
            "state half_open -> open: probe_failed",
            "completed failure",
            "state open -> disabled: manual",
            "admitted",
            "completed ignored",
        ]
    );
}

// B20, B21, G9, G10: unpolled, and while pending.
#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_place_back() {
    let (script, breaker, mut service, recorder) = service(1);
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    tokio::time::advance(OPEN).await;
    drop(service.ready().await.unwrap().call("unpolled"));
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
    script.reply(Reply::Later);
    let mut probe = task::spawn(service.ready().await.unwrap().call("pending"));
    assert_pending!(probe.poll());
    assert!(refused(&call(&mut service.clone()).await).is_some(), "the one place is taken");
    drop(probe);
    assert_eq!((breaker.state(), script.live()), (CircuitState::HalfOpen, 0));
    assert!(call(&mut service).await.is_ok());
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(recorder.count("cancelled"), 2);
}

// B22
#[tokio::test(start_paused = true)]
async fn panics_in_call_and_in_poll_are_failures_and_lose_no_place() {
    for reply in [Reply::PanicInCall, Reply::PanicInPoll] {
        let (script, breaker, mut service, _) = service(1);
        script.reply(failure());
        assert!(call(&mut service).await.is_err());
        tokio::time::advance(OPEN).await;
        script.reply(reply);
        let mut broken = service.clone();
        assert!(AssertUnwindSafe(call(&mut broken)).catch_unwind().await.is_err());
        assert_eq!((breaker.state(), breaker.snapshot().probes_in_flight), (CircuitState::Open, 0));
        tokio::time::advance(OPEN).await;
        assert!(call(&mut service).await.is_ok());
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}

// B28, B29
#[tokio::test]
async fn rejections_by_layers_inside_are_ignored_and_their_timeouts_are_failures() {
    use tower_rampart::Rejection;

    let (script, breaker, mut service, _) = service(1);
    let ignored = [
        Rejection::bulkhead_full("x", 1),
        Rejection::queue_timeout("x", OPEN),
        Rejection::rate_limited("x", Some(OPEN), 1),
        Rejection::circuit_open("x", None),
    ];
    for rejection in ignored {
        script.reply(Reply::Err(rejection.into()));
        assert!(call(&mut service).await.is_err());
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
    script.reply(Reply::Err(Rejection::timed_out("x", OPEN, true).into()));
    assert!(call(&mut service).await.is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

// B30
#[tokio::test]
async fn a_classifier_finds_failures_among_responses() {
    let (script, probe) = Script::new();
    let breaker = CircuitBreaker::builder("db").consecutive_failures(3).min_calls(5).failure_rate(1.0).build().unwrap();
    let layer = breaker.layer().classify_with(|result: Result<&&'static str, &BoxError>| match result {
        Ok(&"503") => Verdict::Failure,
        Ok(&"429") => Verdict::Throttled,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Ignored,
    });
    let mut service = layer.layer(probe);
    for reply in ["503", "503", "429"] {
        script.reply(Reply::Ok(reply));
        assert_eq!(call(&mut service).await.unwrap(), reply, "passes by value");
    }
    assert_eq!(breaker.snapshot().consecutive_failures, 2, "429 does not extend the run");
    assert_eq!(breaker.snapshot().time_window.unwrap().failed, 3, "but degrades the rate");
    script.reply(Reply::Ok("503"));
    assert!(call(&mut service).await.is_ok());
    assert_eq!(breaker.state(), CircuitState::Open, "and does not reset it");
}

// B35
#[tokio::test]
async fn ready_while_closed_and_tripped_before_the_call_is_refused() {
    let (script, breaker, mut service, _) = service(1);
    service.ready().await.unwrap();
    breaker.force_open();
    assert!(service.call("late").await.unwrap_err().as_rejection().is_some());
    assert_eq!(script.calls(), 0);
}

#[tokio::test]
async fn ready_while_open_and_closed_before_the_call_is_refused_since_the_service_was_not_polled() {
    let (script, breaker, mut service, _) = service(1);
    breaker.force_open();
    service.ready().await.unwrap();
    breaker.close();
    let error = service.call("early").await.unwrap_err();
    assert_eq!(error.as_rejection().unwrap().retry_after(), Some(Duration::ZERO));
    assert_eq!(script.calls(), 0);
    assert!(call(&mut service).await.is_ok());
}

// B14, B16: the time after which a probe is given up is not the time left.
#[tokio::test(start_paused = true)]
async fn while_probes_are_out_the_layer_knows_no_time_left() {
    let (script, breaker, mut service, _) = service(1);
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    assert!(refused(&call(&mut service).await).unwrap().retry_after().unwrap() <= OPEN);
    tokio::time::advance(OPEN).await;
    script.reply(Reply::Later);
    let mut probe = task::spawn(service.clone().ready().await.unwrap().call("probe"));
    assert_pending!(probe.poll());
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), None);
    assert_eq!(refused(&call(&mut service).await).unwrap().retry_after(), None, "the layer says what the handle says");
}

// B13: also one that was waiting for the service already.
#[tokio::test]
async fn who_waits_for_a_stuck_service_is_refused_when_the_circuit_opens() {
    let (script, breaker, service, _) = service(1);
    script.set_ready(Ready::No);
    let mut waiting: Vec<_> = (0..3).map(|_| task::spawn(service.clone())).collect();
    for service in &mut waiting {
        assert_pending!(service.enter(|cx, mut service| service.poll_ready(cx)));
    }
    breaker.force_open();
    for service in &mut waiting {
        assert!(service.is_woken());
        assert!(assert_ready!(service.enter(|cx, mut service| service.poll_ready(cx))).is_ok());
        let error = service.enter(|_, mut service| service.call("request")).await.unwrap_err();
        assert!(error.as_rejection().is_some());
    }
    assert_eq!(script.calls(), 0);
}

// B13, G17: what is queued behind a stuck service is refused when the circuit opens.
#[tokio::test]
async fn a_buffer_before_a_stuck_service_is_emptied_when_the_circuit_opens() {
    let (script, breaker, service, _) = service(1);
    script.set_ready(Ready::No);
    let buffered = tower::buffer::Buffer::new(service, 4);
    let queued = (0..3).map(|_| {
        let mut buffered = buffered.clone();
        async move { call(&mut buffered).await }
    });
    let mut queued = task::spawn(futures_util::future::join_all(queued));
    assert_pending!(queued.poll());
    tokio::task::yield_now().await;
    assert_pending!(queued.poll());
    breaker.force_open();
    assert!(queued.await.iter().all(|result| refused(result).is_some()));
    assert_eq!(script.calls(), 0);
}

// G1, G2, G3, G14, G15
#[tokio::test]
async fn readiness_is_the_services_own() {
    let (script, _, service, _) = service(1);
    let mut service = task::spawn(service);
    script.set_ready(Ready::No);
    assert_pending!(service.enter(|cx, mut service| service.poll_ready(cx)));
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    for _ in 0..3 {
        assert!(assert_ready!(service.enter(|cx, mut service| service.poll_ready(cx))).is_ok());
    }
    script.set_ready(Ready::Err("dead"));
    let error = assert_ready!(service.enter(|cx, mut service| service.poll_ready(cx))).unwrap_err();
    assert_eq!(error.to_string(), "dead");
    assert!(error.as_rejection().is_none());
}

// G5, G6
#[tokio::test]
async fn the_instance_that_was_polled_is_called_and_a_clone_starts_unready() {
    let (script, _, mut service, _) = service(1);
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert!(service.call("first").await.is_ok());
    assert!(call(&mut clone).await.is_ok(), "the probe panics when it is called unready");
    assert_eq!(script.requests(), ["first", "request"]);
}

// G11
#[tokio::test(start_paused = true)]
async fn the_end_of_a_call_counts_though_its_future_is_kept() {
    let (script, breaker, mut service, _) = service(1);
    script.reply(failure());
    let mut future = pin!(service.ready().await.unwrap().call("kept"));
    assert!(future.as_mut().await.is_err());
    assert_eq!(breaker.state(), CircuitState::Open);
}

// G12, G13
#[tokio::test]
async fn results_pass_by_value() {
    let (script, _, mut service, _) = service(9);
    let error: BoxError = "boom".into();
    let address = std::ptr::from_ref(&*error).cast::<()>();
    script.reply(Reply::Err(error));
    assert_eq!(std::ptr::from_ref(&*call(&mut service).await.unwrap_err()).cast::<()>(), address);
    assert_eq!(call(&mut service).await.unwrap(), "ok");
}

// G16, G17, G18
#[tokio::test]
async fn it_works_borrowed_boxed_buffered_and_optional() {
    let (_, breaker, mut service, _) = service(1);
    assert!(call(&mut (&mut service)).await.is_ok());
    let mut boxed: Box<dyn Service<&'static str, Response = _, Error = BoxError, Future = _> + Send> =
        Box::new(service.clone());
    assert!(call(&mut boxed).await.is_ok());
    let mut buffered = tower::buffer::Buffer::new(service.clone(), 4);
    assert!(call(&mut buffered).await.is_ok());
    breaker.force_open();
    let result = call(&mut buffered).await;
    assert_eq!(refused(&result).unwrap().name(), "db", "found through the buffer");
    assert!(refused(&call(&mut buffered).await).is_some(), "and the buffer is not dead");
    for layer in [None, Some(breaker.layer())] {
        let refuses = layer.is_some();
        let (_, probe) = Script::new();
        let mut service = ServiceBuilder::new().option_layer(layer).service(probe);
        assert_eq!(service.ready().await.unwrap().call("optional").await.is_err(), refuses);
    }
}

// G20, G22, G28
#[test]
fn it_is_made_outside_a_runtime_and_its_parts_can_be_sent() {
    fn send_sync<T: Send + Sync + Clone + 'static>(_: &T) {}
    fn send<T: Send + 'static>(_: &T) {}

    let (_, breaker, mut service, _) = service(1);
    send_sync(&breaker);
    send_sync(&breaker.layer());
    send_sync(&breaker.layer().backpressure());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = pin!(service.call("outside"));
    send(&*future);
    assert!(matches!(future.as_mut().poll(&mut cx), Poll::Ready(Ok("ok"))));
}

// G21
#[test]
fn debug_shows_the_configuration() {
    let (_, breaker, _, _) = service(1);
    let text = format!("{breaker:?} {:?}", breaker.layer());
    assert!(text.contains("db") && text.contains("Closed"), "{text}");
    // Closures cannot be shown, and must not be in the way.
    let layer = breaker.layer().classify_with(|_: Result<&(), &BoxError>| Verdict::Success);
    assert!(format!("{layer:?}").contains("db"));
}

// G25
#[tokio::test]
async fn services_of_one_handle_share_its_state_however_often_the_layer_is_used() {
    let (script, probe) = Script::new();
    let breaker = consecutive(2).build().unwrap();
    let layer = breaker.layer();
    for _ in 0..2 {
        script.reply(failure());
        assert!(call(&mut layer.layer(probe.clone())).await.is_err());
    }
    assert!(refused(&call(&mut breaker.layer().layer(probe)).await).is_some());
}

// G23, G26
#[test]
fn thousands_of_calls_on_many_threads_leave_nothing_behind() {
    let (script, breaker, service, recorder) = service(3);
    on_threads(8, |thread| {
        let (script, service) = (script.clone(), service.clone());
        async move {
            for round in 0..250 {
                script.reply(match (round + thread) % 5 {
                    0 => failure(),
                    1 => Reply::Later,
                    _ => Reply::Ok("ok"),
                });
                let mut service = service.clone();
                let mut future = pin!(call(&mut service));
                for _ in 0..3 {
                    if futures_util::poll!(&mut future).is_ready() {
                        break;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    });
    assert_eq!((script.live(), breaker.snapshot().probes_in_flight), (0, 0));
    let lines = recorder.take();
    let count = |prefix: &str| lines.iter().filter(|line| line.starts_with(prefix)).count();
    assert_eq!(count("admitted"), count("completed") + count("cancelled"), "each has one end");
    assert_eq!(count("admitted") + count("rejected"), 2000);
}

#[tokio::test]
async fn run_keeps_the_error_flat_and_counts() {
    let breaker = consecutive(1).build().unwrap();
    let error = breaker.run(async { Err::<(), BoxError>("boom".into()) }).await.unwrap_err();
    assert!(error.as_rejection().is_none());
    let error = breaker.run(async { Ok::<_, BoxError>(()) }).await.unwrap_err();
    assert!(error.as_rejection().is_some());
    breaker.close();
    let verdict = |_: Result<&u8, &BoxError>| Verdict::Failure;
    assert_eq!(breaker.run_with(verdict, async { Ok::<u8, BoxError>(1) }).await.unwrap(), 1);
    assert_eq!(breaker.state(), CircuitState::Open);
}
