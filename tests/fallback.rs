//! What a fallback promises.

mod support;

use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use support::{
    BoxError,
    probe::{Probe, Ready, Reply, Script},
    recorder::Recorder,
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_rampart::{
    Rejection,
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
async fn rejections_are_replaced_and_other_errors_are_not() {
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
async fn a_function_gets_the_request_and_the_result() {
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
async fn another_service_is_polled_ready_and_its_error_is_the_answer() {
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
async fn responses_can_be_replaced_too() {
    let service = service_fn(|status: u16| async move { Ok::<_, BoxError>(status) });
    let bad = |result: Result<&u16, &BoxError>| result.is_ok_and(|status| *status >= 500);
    let service = Fallback::value("f", 200_u16).when(bad).layer(service);
    assert_eq!(service.clone().oneshot(503).await.unwrap(), 200);
    assert_eq!(service.oneshot(404).await.unwrap(), 404);
}

// G1, G5, G6, G14
#[tokio::test]
async fn readiness_is_the_services_own() {
    let (script, _, service) = value();
    let mut service = task::spawn(service);
    script.set_ready(Ready::No);
    assert_pending!(service.enter(|cx, mut service| service.poll_ready(cx)));
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    assert!(assert_ready!(service.enter(|cx, mut service| service.poll_ready(cx))).is_ok());
    let mut clone = service.enter(|_, service| service.clone());
    assert!(service.enter(|_, mut service| service.call("a")).await.is_ok());
    assert!(clone.ready().await.unwrap().call("b").await.is_ok());
    script.set_ready(Ready::Err("dead"));
    assert!(assert_ready!(service.enter(|cx, mut service| service.poll_ready(cx))).is_err());
}

// G9, G10, G23
#[tokio::test]
async fn a_dropped_call_and_a_panic_are_cancelled_once() {
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
    assert_eq!((recorder.count("admitted"), recorder.count("cancelled"), script.live()), (4, 4, 0));
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
