//! The layer in its default readiness mode, which rejects.

use std::{future::Future, panic::AssertUnwindSafe, pin::pin, task::Poll, time::Duration};

use futures_util::FutureExt;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AsRejection, Rejection, Verdict,
    circuit_breaker::{CircuitBreaker, CircuitBreakerService, CircuitState},
};

use super::{OPEN, consecutive, failure};
use crate::support::{
    BoxError, address, assert_shareable, call, on_threads, poll_ready,
    probe::{Probe, Ready, Reply, Script},
    recorder::Recorder,
    rejection_of,
};

fn service(failures: u32) -> (Script, CircuitBreaker, CircuitBreakerService<Probe>, Recorder) {
    let (script, probe) = Script::new();
    let recorder = Recorder::new();
    let breaker = consecutive(failures).observer(recorder.clone()).build().unwrap();
    let service = breaker.layer().layer(probe);
    (script, breaker, service, recorder)
}

// B11, B12, B13
#[tokio::test(start_paused = true)]
async fn an_open_circuit_neither_polls_nor_calls_the_inner_service() {
    let (script, breaker, mut service, _) = service(1);
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    script.set_ready(Ready::No);
    let (polls, calls) = (script.ready_polls(), script.calls());
    let result = call(&mut service).await;
    assert_eq!(rejection_of(&result).unwrap().name(), "db");
    assert_eq!((script.ready_polls(), script.calls()), (polls, calls), "a stuck inner service delays nothing");
    assert_eq!(breaker.state(), CircuitState::Open);
}

// B17
#[tokio::test(start_paused = true)]
async fn it_closes_when_the_service_recovers() {
    let (script, breaker, mut service, recorder) = service(2);
    for _ in 0..2 {
        script.reply(failure());
        assert!(call(&mut service).await.is_err());
    }
    assert!(rejection_of(&call(&mut service).await).is_some());
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

// G23: the exact sequence of every event.
#[tokio::test(start_paused = true)]
async fn the_observer_receives_every_event_once_and_in_order() {
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

// B20, B21, G9, G10
#[tokio::test(start_paused = true)]
async fn dropping_a_probe_releases_its_slot() {
    let (script, breaker, mut service, recorder) = service(1);
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    tokio::time::advance(OPEN).await;
    drop(service.ready().await.unwrap().call("unpolled"));
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
    script.reply(Reply::Later);
    let mut probe = task::spawn(service.ready().await.unwrap().call("pending"));
    assert_pending!(probe.poll());
    assert!(rejection_of(&call(&mut service.clone()).await).is_some(), "the only probe slot is taken");
    drop(probe);
    assert_eq!((breaker.state(), script.live()), (CircuitState::HalfOpen, 0));
    assert!(call(&mut service).await.is_ok());
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert_eq!(recorder.count("cancelled"), 2);
}

// B22
#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_fails_and_releases_its_slot() {
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

/// Catches panics before it drops the future that panicked, as `CatchPanicLayer` does.
async fn catch<F: Future>(future: F) -> Result<F::Output, ()> {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| {
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.map_or(Poll::Ready(Err(())), |polled| polled.map(Ok))
    })
    .await
}

// G30
#[tokio::test]
async fn panics_that_are_caught_outside_trip_the_circuit() {
    let (script, breaker, mut service, recorder) = service(5);
    for _ in 0..5 {
        script.reply(Reply::PanicInPoll);
        assert!(catch(call(&mut service)).await.is_err());
    }
    assert_eq!((breaker.state(), recorder.count("completed failure")), (CircuitState::Open, 5));
}

// G30
#[tokio::test]
async fn healthy_calls_that_a_siblings_panic_drops_do_not_count() {
    let (script, breaker, service, recorder) = service(1);
    for _ in 0..30 {
        script.reply(Reply::Later);
        let mut healthy = service.clone();
        let joined = async {
            tokio::join!(call(&mut healthy), async { panic!("deliberate panic") });
        };
        assert!(AssertUnwindSafe(joined).catch_unwind().await.is_err());
    }
    assert_eq!((breaker.state(), recorder.count("cancelled")), (CircuitState::Closed, 30));
    // A call that is dropped by the destructor of another value, while a panic unwinds.
    struct Owner<T>(Option<T>);
    impl<T> Drop for Owner<T> {
        fn drop(&mut self) {
            drop(self.0.take());
        }
    }
    script.reply(Reply::Later);
    let mut owner = Owner(Some(task::spawn(service.clone().oneshot("owned"))));
    assert_pending!(owner.0.as_mut().unwrap().poll());
    let unwinds = AssertUnwindSafe(move || {
        let _owner = owner;
        panic!("deliberate panic");
    });
    assert!(std::panic::catch_unwind(unwinds).is_err());
    assert_eq!((breaker.state(), recorder.count("cancelled")), (CircuitState::Closed, 31));
}

// B28, B29
#[tokio::test]
async fn rejections_by_inner_layers_are_ignored_and_inner_timeouts_are_failures() {
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
async fn a_classifier_counts_responses_as_failures() {
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
        assert_eq!(call(&mut service).await.unwrap(), reply, "the response passes by value");
    }
    assert_eq!(breaker.snapshot().consecutive_failures, 2, "429 is not a consecutive failure");
    assert_eq!(breaker.snapshot().time_window.unwrap().failed, 3, "but counts in the failure rate");
    script.reply(Reply::Ok("503"));
    assert!(call(&mut service).await.is_ok());
    assert_eq!(breaker.state(), CircuitState::Open, "and does not reset the consecutive failures");
}

// B28, B29
#[tokio::test]
async fn rejections_by_inner_layers_keep_their_verdict_under_any_classifier() {
    let classify = |result: Result<&&'static str, &BoxError>| match result {
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Failure,
    };
    for (rejection, failed) in [
        (Rejection::circuit_open("inner", None), 0),
        (Rejection::bulkhead_full("inner", 5), 0),
        (Rejection::queue_timeout("inner", Duration::ZERO), 0),
        (Rejection::rate_limited("inner", None, 5), 0),
        (Rejection::timed_out("inner", Duration::ZERO, true), 1),
    ] {
        let (script, probe) = Script::new();
        let breaker = consecutive(100).build().unwrap();
        script.reply(Reply::Err(rejection.clone().into()));
        assert!(call(&mut breaker.layer().classify(classify).layer(probe)).await.is_err());
        assert_eq!(breaker.snapshot().consecutive_failures, failed, "{rejection}");
        let result = breaker.run_with(classify, std::future::ready(Err(BoxError::from(rejection)))).await;
        assert!(result.is_err());
        assert_eq!(breaker.snapshot().consecutive_failures, 2 * failed);
    }
}

// B35
#[tokio::test]
async fn a_call_is_rejected_if_the_circuit_opens_after_readiness() {
    let (script, breaker, mut service, _) = service(1);
    service.ready().await.unwrap();
    breaker.force_open();
    assert!(service.call("late").await.unwrap_err().as_rejection().is_some());
    assert_eq!(script.calls(), 0);
}

#[tokio::test]
async fn a_call_is_rejected_if_the_circuit_closes_after_readiness_since_the_service_was_not_polled() {
    let (script, breaker, mut service, _) = service(1);
    breaker.force_open();
    service.ready().await.unwrap();
    breaker.close();
    let error = service.call("early").await.unwrap_err();
    assert_eq!(error.as_rejection().unwrap().retry_after(), Some(Duration::ZERO));
    assert_eq!(script.calls(), 0);
    assert!(call(&mut service).await.is_ok());
}

// B14, B16: the probe timeout is not the time until the circuit admits calls.
#[tokio::test(start_paused = true)]
async fn there_is_no_retry_after_while_probes_are_in_flight() {
    let (script, breaker, mut service, _) = service(1);
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    assert!(rejection_of(&call(&mut service).await).unwrap().retry_after().unwrap() <= OPEN);
    tokio::time::advance(OPEN).await;
    script.reply(Reply::Later);
    let mut probe = task::spawn(service.clone().ready().await.unwrap().call("probe"));
    assert_pending!(probe.poll());
    assert_eq!(breaker.try_acquire().unwrap_err().retry_after(), None);
    assert_eq!(
        rejection_of(&call(&mut service).await).unwrap().retry_after(),
        None,
        "the layer agrees with the handle"
    );
}

// B13: also for callers that already wait for the inner service.
#[tokio::test]
async fn callers_waiting_for_a_stuck_service_are_rejected_when_the_circuit_opens() {
    let (script, breaker, service, _) = service(1);
    script.set_ready(Ready::No);
    let mut waiting: Vec<_> = (0..3).map(|_| task::spawn(service.clone())).collect();
    for service in &mut waiting {
        assert_pending!(poll_ready(service));
    }
    breaker.force_open();
    for service in &mut waiting {
        assert!(service.is_woken());
        assert!(assert_ready!(poll_ready(service)).is_ok());
        let error = service.enter(|_, mut service| service.call("request")).await.unwrap_err();
        assert!(error.as_rejection().is_some());
    }
    assert_eq!(script.calls(), 0);
}

// B13, G17: requests queued behind a stuck service are rejected when the circuit opens.
#[tokio::test]
async fn a_buffer_before_a_stuck_service_drains_when_the_circuit_opens() {
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
    assert!(queued.await.iter().all(|result| rejection_of(result).is_some()));
    assert_eq!(script.calls(), 0);
}

// G1, G2, G3, G14, G15
#[tokio::test]
async fn readiness_follows_the_inner_service() {
    let (script, _, service, _) = service(1);
    let mut service = task::spawn(service);
    script.set_ready(Ready::No);
    assert_pending!(poll_ready(&mut service));
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    for _ in 0..3 {
        assert!(assert_ready!(poll_ready(&mut service)).is_ok());
    }
    script.set_ready(Ready::Err("dead"));
    let error = assert_ready!(poll_ready(&mut service)).unwrap_err();
    assert_eq!(error.to_string(), "dead");
    assert!(error.as_rejection().is_none());
}

// G5, G6
#[tokio::test]
async fn the_polled_instance_is_called_and_a_clone_starts_unready() {
    let (script, _, mut service, _) = service(1);
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert!(service.call("first").await.is_ok());
    assert!(call(&mut clone).await.is_ok(), "the probe panics when it is called unready");
    assert_eq!(script.requests(), ["first", "request"]);
}

// G11
#[tokio::test(start_paused = true)]
async fn a_completed_call_is_counted_while_its_future_is_kept() {
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
    let original = address(&error);
    script.reply(Reply::Err(error));
    assert_eq!(address(&call(&mut service).await.unwrap_err()), original);
    assert_eq!(call(&mut service).await.unwrap(), "ok");
}

// G16, G17, G18
#[tokio::test]
async fn it_works_by_reference_boxed_buffered_and_optional() {
    let (_, breaker, mut service, _) = service(1);
    assert!(call(&mut (&mut service)).await.is_ok());
    let mut boxed: Box<dyn Service<&'static str, Response = _, Error = BoxError, Future = _> + Send> =
        Box::new(service.clone());
    assert!(call(&mut boxed).await.is_ok());
    let mut buffered = tower::buffer::Buffer::new(service.clone(), 4);
    assert!(call(&mut buffered).await.is_ok());
    breaker.force_open();
    let result = call(&mut buffered).await;
    assert_eq!(rejection_of(&result).unwrap().name(), "db", "the rejection is found through the buffer");
    assert!(rejection_of(&call(&mut buffered).await).is_some(), "the buffer still works");
    for layer in [None, Some(breaker.layer())] {
        let rejects = layer.is_some();
        let (_, probe) = Script::new();
        let mut service = ServiceBuilder::new().option_layer(layer).service(probe);
        assert_eq!(service.ready().await.unwrap().call("optional").await.is_err(), rejects);
    }
}

// G20, G22, G28
#[test]
fn it_is_constructed_outside_a_runtime_and_its_parts_are_send() {
    fn send<T: Send + 'static>(_: &T) {}

    let (_, breaker, mut service, _) = service(1);
    assert_shareable(&breaker);
    assert_shareable(&breaker.layer());
    assert_shareable(&breaker.layer().backpressure());
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut future = pin!(service.call("outside"));
    send(&*future);
    assert!(matches!(future.as_mut().poll(&mut cx), Poll::Ready(Ok("ok"))));
}

// G21
#[test]
fn debug_shows_the_name_and_state() {
    let (_, breaker, _, _) = service(1);
    let text = format!("{breaker:?} {:?}", breaker.layer());
    assert!(text.contains("db") && text.contains("Closed"), "{text}");
    // A closure that is not `Debug` does not prevent `Debug`.
    let layer = breaker.layer().classify_with(|_: Result<&(), &BoxError>| Verdict::Success);
    assert!(format!("{layer:?}").contains("db"));
}

// G25
#[tokio::test]
async fn all_services_of_a_handle_share_its_state() {
    let (script, probe) = Script::new();
    let breaker = consecutive(2).build().unwrap();
    let layer = breaker.layer();
    for _ in 0..2 {
        script.reply(failure());
        assert!(call(&mut layer.layer(probe.clone())).await.is_err());
    }
    assert!(rejection_of(&call(&mut breaker.layer().layer(probe)).await).is_some());
}

// G23, G26
#[test]
fn concurrent_calls_have_one_terminal_event_each_and_leave_no_probe_behind() {
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
    assert_eq!(count("admitted"), count("completed") + count("cancelled"), "each call has one terminal event");
    assert_eq!(count("admitted") + count("rejected"), 2000);
}

#[tokio::test]
async fn run_returns_a_flat_error_and_counts_the_result() {
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
