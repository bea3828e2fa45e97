//! The fallback, including items G of the contract.

mod support;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use support::{
    BoxError, address, assert_shareable, poll_ready,
    probe::{Probe, Ready, Reply, Script},
    recorder::Recorder,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    Event, Rejection,
    fallback::{Fallback, FallbackLayer, FallbackService, ServeValue},
};

fn open() -> Reply {
    Reply::Err(Rejection::circuit_open("db", None).into())
}

fn value() -> (Script, Recorder, FallbackService<Probe, ServeValue<&'static str>>) {
    let (script, probe) = Script::new();
    let recorder = Recorder::new();
    let layer: FallbackLayer<_> = Fallback::value("f", "instead").observer(recorder.clone());
    (script, recorder, layer.layer(probe))
}

#[tokio::test]
async fn rejections_are_replaced_and_other_errors_pass() {
    let (script, recorder, mut service) = value();
    script.reply(Reply::Ok("fine")).reply(open()).reply(Reply::Err("boom".into()));
    assert_eq!(service.ready().await.unwrap().call("a").await.unwrap(), "fine");
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap(), "instead");
    assert_eq!(service.ready().await.unwrap().call("c").await.unwrap_err().to_string(), "boom");
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed success",
            "admitted",
            "fell back to value",
            "completed success",
            "admitted",
            "completed failure",
        ]
    );
}

#[tokio::test]
async fn a_function_receives_the_request_and_the_result() {
    let (script, probe) = Script::new();
    let recorder = Recorder::new();
    let function = |request: &'static str, result: Result<&'static str, BoxError>| async move {
        assert_eq!((request, result.unwrap_err().to_string().as_str()), ("a", "boom"));
        Ok::<_, BoxError>("made")
    };
    let any_error = |result: Result<&&'static str, &BoxError>| result.is_err();
    let layer = Fallback::function("f", function).when(any_error).observer(recorder.clone());
    script.reply(Reply::Err("boom".into()));
    assert_eq!(layer.layer(probe).oneshot("a").await.unwrap(), "made");
    assert_eq!(recorder.take(), ["admitted", "fell back to function", "completed success"]);
}

#[tokio::test]
async fn a_fallback_service_is_polled_ready_and_its_error_is_returned() {
    let (script, probe) = Script::new();
    let (other, other_probe) = Script::new();
    let mut service = Fallback::service("f", other_probe).layer(probe);
    script.reply(open()).reply(open());
    other.set_ready(Ready::No);
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    other.set_ready(Ready::Yes);
    assert!(call.is_woken());
    assert_eq!(assert_ready!(call.poll()).unwrap(), "ok");
    drop(call);
    assert_eq!(other.requests(), ["a"]);
    other.reply(Reply::Err("down too".into()));
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap_err().to_string(), "down too");
}

#[tokio::test]
async fn responses_can_be_replaced() {
    let service = service_fn(|status: u16| async move { Ok::<_, BoxError>(status) });
    let bad = |result: Result<&u16, &BoxError>| result.is_ok_and(|status| *status >= 500);
    let service = Fallback::value("f", 200_u16).when(bad).layer(service);
    assert_eq!(service.clone().oneshot(503).await.unwrap(), 200);
    assert_eq!(service.oneshot(404).await.unwrap(), 404);
}

// G1, G5, G6, G14
#[tokio::test]
async fn readiness_follows_the_inner_service() {
    let (script, _, service) = value();
    let mut service = task::spawn(service);
    script.set_ready(Ready::No);
    assert_pending!(poll_ready(&mut service));
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    assert!(assert_ready!(poll_ready(&mut service)).is_ok());
    let mut clone = service.enter(|_, service| service.clone());
    assert!(service.enter(|_, mut service| service.call("a")).await.is_ok());
    assert!(clone.ready().await.unwrap().call("b").await.is_ok());
    script.set_ready(Ready::Err("dead"));
    assert!(assert_ready!(poll_ready(&mut service)).is_err());
}

// G9, G10, G23, G30
#[tokio::test]
async fn dropped_calls_are_cancelled_once_and_panicking_ones_fail_once() {
    let (script, recorder, mut service) = value();
    script.reply(Reply::Later);
    drop(service.ready().await.unwrap().call("unpolled"));
    script.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("pending"));
    assert_pending!(call.poll());
    drop(call);
    script.reply(Reply::PanicInPoll);
    let call = service.ready().await.unwrap().call("panics");
    assert!(AssertUnwindSafe(call).catch_unwind().await.is_err());
    script.reply(Reply::PanicInCall);
    service.ready().await.unwrap();
    assert!(std::panic::catch_unwind(AssertUnwindSafe(|| drop(service.call("panics")))).is_err());
    assert_eq!((recorder.count("admitted"), recorder.count("cancelled"), script.live()), (4, 2, 0));
    assert_eq!(recorder.count("completed failure"), 2);
    assert!(service.ready().await.unwrap().call("well").await.is_ok());
}

#[tokio::test]
async fn run_works_without_tower() {
    let layer: FallbackLayer<_> = Fallback::value("f", ());
    let failing = async { Err::<u8, BoxError>(Rejection::bulkhead_full("db", 1).into()) };
    assert_eq!(layer.run(failing, |_| async { Ok(7) }).await.unwrap(), 7);
    let other = async { Err::<u8, BoxError>("boom".into()) };
    assert!(layer.run(other, |_| async { Ok(7) }).await.is_err());
}

// G19: neither the request nor the response is `Clone`.
#[tokio::test]
async fn a_function_can_keep_part_of_a_request_that_is_not_clone() {
    struct Request(u32);
    #[derive(Debug, PartialEq)]
    struct Response(u32);

    let reject = |_: Request| async { Err::<Response, BoxError>(Rejection::bulkhead_full("db", 1).into()) };
    let keep = |request: &Request| request.0;
    let function = |kept: u32, _: Result<Response, BoxError>| async move { Ok::<_, BoxError>(Response(kept + 1)) };
    let service = Fallback::function_with("f", keep, function).layer(service_fn(reject));
    assert_eq!(service.oneshot(Request(6)).await.unwrap(), Response(7));
}

// G10, G23
#[tokio::test]
async fn a_call_dropped_while_the_fallback_serves_is_cancelled_once() {
    let (script, probe) = Script::new();
    let (other, other_probe) = Script::new();
    let recorder = Recorder::new();
    let mut service = Fallback::service("f", other_probe).observer(recorder.clone()).layer(probe);
    script.reply(open());
    other.reply(Reply::Later);
    let mut call = task::spawn(service.ready().await.unwrap().call("a"));
    assert_pending!(call.poll());
    assert_eq!((script.live(), other.live()), (0, 1), "the rejected call is dropped");
    drop(call);
    assert_eq!(other.live(), 0);
    assert_eq!(recorder.take(), ["admitted", "cancelled"]);
}

#[tokio::test]
async fn a_fallback_service_whose_readiness_fails_returns_that_error() {
    let (script, probe) = Script::new();
    let (other, other_probe) = Script::new();
    let recorder = Recorder::new();
    let service = Fallback::service("f", other_probe).observer(recorder.clone()).layer(probe);
    script.reply(open());
    other.set_ready(Ready::Err("closed"));
    assert_eq!(service.oneshot("a").await.unwrap_err().to_string(), "closed");
    assert_eq!(recorder.take(), ["admitted", "fell back to service", "completed failure"]);
}

// G24
#[tokio::test]
async fn a_panicking_observer_affects_only_its_own_call() {
    for when in ["Admitted", "FallbackServed", "Completed"] {
        let (script, probe) = Script::new();
        let observer =
            move |event: &Event<'_>| assert!(!format!("{:?}", event.kind).starts_with(when), "deliberate panic");
        let layer: FallbackLayer<_> = Fallback::value("f", "instead").observer(observer);
        let mut service = layer.layer(probe);
        script.reply(open());
        service.ready().await.unwrap();
        let call = AssertUnwindSafe(async { service.call("a").await }).catch_unwind().await;
        assert!(call.is_err(), "{when}");
        assert_eq!(script.live(), 0);
    }
}

// G12, G13
#[tokio::test]
async fn results_that_are_not_replaced_pass_by_value() {
    let (script, _, mut service) = value();
    let error: BoxError = "boom".into();
    let original = address(&error);
    script.reply(Reply::Err(error));
    let error = service.ready().await.unwrap().call("a").await.unwrap_err();
    assert_eq!(address(&error), original);
}

// G16, G17, G18, G20, G21, G22
#[test]
fn it_works_by_reference_boxed_buffered_and_optional() {
    fn send<T: Send + 'static>(future: T) -> T {
        future
    }

    let layer: FallbackLayer<_> = Fallback::value("f", "secret");
    assert_shareable(&layer);
    let (_, probe) = Script::new();
    let mut service = layer.layer(probe);
    assert!(!format!("{layer:?}").contains("secret"), "a fallback value is data, not configuration");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async move {
        let call = send(service.ready().await.unwrap().call("a"));
        assert!(call.await.is_ok());
        assert!((&mut service).oneshot("b").await.is_ok());
        let boxed: Box<dyn Service<&'static str, Response = _, Error = BoxError, Future = _> + Send> =
            Box::new(service.clone());
        assert!(boxed.oneshot("c").await.is_ok());
        assert!(tower::buffer::Buffer::new(service.clone(), 4).oneshot("d").await.is_ok());
        for layer in [None, Some(layer)] {
            assert!(ServiceBuilder::new().option_layer(layer).service(service.clone()).oneshot("e").await.is_ok());
        }
    });
}

// G25, G26
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_thousand_concurrent_calls_are_reported_once_each() {
    let recorder = Recorder::new();
    let layer: FallbackLayer<_> = Fallback::value("f", 0_u32).observer(recorder.clone());
    let reject_odd = |request: u32| async move {
        tokio::task::yield_now().await;
        if request % 2 == 1 { Err(BoxError::from(Rejection::bulkhead_full("db", 1))) } else { Ok(request) }
    };
    let calls: Vec<_> = (0..1_000).map(|i| tokio::spawn(layer.layer(service_fn(reject_odd)).oneshot(i))).collect();
    for (i, call) in (0..).zip(calls) {
        assert_eq!(call.await.unwrap().unwrap(), if i % 2 == 1 { 0 } else { i });
    }
    assert_eq!((recorder.count("admitted"), recorder.count("completed")), (1_000, 1_000));
    assert_eq!(recorder.count("fell back to value"), 500);
}

// G20: as a retry does.
#[tokio::test]
async fn a_fallback_to_a_boxed_service_is_send_and_sync() {
    let (script, probe) = Script::new();
    let other = tower::util::BoxCloneService::new(Script::new().1);
    let layer = Fallback::service("f", other);
    assert_shareable(&layer);
    script.reply(open());
    let service = layer.layer(probe);
    assert_eq!(tokio::spawn(service.oneshot("a")).await.unwrap().unwrap(), "ok");
}
