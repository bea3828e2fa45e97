//! The layer, in all three readiness modes.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AsRejection,
    rate_limit::{Rate, RateLimiter},
};

use super::limiter;
use crate::support::{
    BoxError, assert_shareable, call, on_threads, poll_ready,
    probe::{Ready, Reply, Script},
    rejection_of,
};

// L13, L14, L32, G25, G12, G13
#[tokio::test(start_paused = true)]
async fn layering_per_request_keeps_one_limit() {
    let (limiter, recorder) = limiter(2, 0);
    let (script, probe) = Script::new();
    script.reply(Reply::Ok("fine")).reply(Reply::Err("boom".into()));
    let layer = limiter.layer();
    assert_eq!(call(&mut layer.layer(probe.clone())).await.unwrap(), "fine");
    assert_eq!(call(&mut layer.layer(probe.clone())).await.unwrap_err().to_string(), "boom");
    let result = call(&mut layer.layer(probe)).await;
    assert_eq!(rejection_of(&result).unwrap().retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(script.calls(), 2);
    assert_eq!(
        recorder.take(),
        ["admitted", "completed success", "admitted", "completed failure", "rejected rate_limited",]
    );
}

// L19
#[tokio::test]
async fn requests_can_have_a_cost() {
    let (limiter, _) = limiter(5, 0);
    let (_, probe) = Script::new();
    let service = limiter.layer().cost(|request: &&'static str| request.len() as u32).layer(probe);
    assert!(service.clone().oneshot("abc").await.is_ok());
    assert!(rejection_of(&service.clone().oneshot("abc").await).unwrap().retry_after().is_some());
    assert!(rejection_of(&service.clone().oneshot("abcdef").await).unwrap().retry_after().is_none());
    assert!(service.oneshot("ab").await.is_ok());
}

// L30, G1, G2, G8, G14
#[tokio::test(start_paused = true)]
async fn no_token_is_taken_while_the_inner_service_is_not_ready() {
    let (limiter, _) = limiter(1, 0);
    let (script, probe) = Script::new();
    script.set_ready(Ready::No);
    let mut rejecting = task::spawn(limiter.layer().layer(probe.clone()));
    let mut waiting = task::spawn(limiter.layer().backpressure().layer(probe));
    assert_pending!(poll_ready(&mut rejecting));
    assert_pending!(poll_ready(&mut waiting));
    assert_eq!(limiter.snapshot().available, 1);
    script.set_ready(Ready::Yes);
    assert!(rejecting.is_woken() && waiting.is_woken());
    script.set_ready(Ready::Err("dead"));
    assert_eq!(assert_ready!(poll_ready(&mut waiting)).unwrap_err().to_string(), "dead");
    assert_eq!(limiter.snapshot().available, 1);
}

// L31, G3, G6, G7, G8
#[tokio::test(start_paused = true)]
async fn with_backpressure_readiness_reserves_a_token_and_releases_it_if_unused() {
    let (limiter, recorder) = limiter(1, 0);
    let (_, probe) = Script::new();
    let service = limiter.layer().backpressure().layer(probe);
    let mut first = task::spawn(service.clone());
    assert!(assert_ready!(poll_ready(&mut first)).is_ok());
    assert!(assert_ready!(poll_ready(&mut first)).is_ok(), "readiness is stable");
    assert_eq!(limiter.snapshot().available, 0);
    drop(first.enter(|_, service| service.clone()));
    let mut second = task::spawn(service);
    assert_pending!(poll_ready(&mut second));
    drop(first);
    drop(second);
    assert_eq!(limiter.snapshot().available, 1, "both tokens are released");
    let mut third = task::spawn(limiter.layer().backpressure().layer(Script::new().1));
    assert!(assert_ready!(poll_ready(&mut third)).is_ok());
    assert!(third.enter(|_, mut service| service.call("a")).await.is_ok());
    assert_pending!(poll_ready(&mut third));
    advance(Duration::from_secs(1) + Duration::from_millis(1)).await;
    assert!(third.is_woken());
    assert!(assert_ready!(poll_ready(&mut third)).is_ok());
    assert_eq!(recorder.take(), ["admitted", "completed success"]);
}

// L30
#[tokio::test(start_paused = true)]
async fn losing_inner_readiness_releases_the_reserved_token() {
    let (limiter, _) = limiter(1, 0);
    let (script, probe) = Script::new();
    let mut service = task::spawn(limiter.layer().backpressure().layer(probe));
    for unready in [Ready::No, Ready::Err("dead")] {
        assert!(assert_ready!(poll_ready(&mut service)).is_ok());
        assert_eq!(limiter.snapshot().available, 0);
        script.set_ready(unready);
        let _ = poll_ready(&mut service);
        assert_eq!(limiter.snapshot().available, 1);
        script.set_ready(Ready::Yes);
    }
    // Also while waiting for the token.
    limiter.check().unwrap();
    assert_pending!(poll_ready(&mut service));
    script.set_ready(Ready::No);
    assert_pending!(poll_ready(&mut service));
    assert!(limiter.snapshot().full_after <= Duration::from_secs(1), "only the used token is owed");
}

// L15, L17, L18, G5
#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_sent_when_due_on_the_instance_that_was_polled_ready() {
    let (limiter, recorder) = limiter(1, 1);
    let (script, probe) = Script::new();
    let mut service = limiter.layer().wait().layer(probe);
    assert!(call(&mut service).await.is_ok());
    assert_eq!(script.clones(), 0, "a call that does not wait clones nothing");
    let began = Instant::now();
    assert!(call(&mut service).await.is_ok());
    assert!(began.elapsed() >= Duration::from_secs(1));
    let mut waiting = task::spawn(service.ready().await.unwrap().call("waits"));
    assert_pending!(waiting.poll());
    assert!(rejection_of(&call(&mut service).await).is_some(), "a wait of two seconds is too long");
    drop(waiting);
    assert_eq!(script.requests(), ["request", "request"], "the dropped call was never sent");
    advance(Duration::from_secs(1)).await;
    assert!(limiter.check().is_ok(), "its token is released");
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed success",
            "waited 1s",
            "admitted",
            "completed success",
            "rejected rate_limited",
            "cancelled waiting",
            "admitted",
            "completed success",
        ]
    );
}

// L22
#[tokio::test]
async fn an_outer_breaker_ignores_rejections() {
    use tower_rampart::circuit_breaker::{CircuitBreaker, CircuitState};

    let (limiter, _) = limiter(1, 0);
    let breaker = CircuitBreaker::consecutive("b", 1).unwrap();
    let layers = ServiceBuilder::new().layer(breaker.layer()).layer(limiter.layer());
    let mut service = layers.service(Script::new().1);
    assert!(call(&mut service).await.is_ok());
    assert!(call(&mut service).await.is_err());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// G9, G10, G23, G30
#[tokio::test]
async fn dropped_calls_are_cancelled_once_and_panicking_ones_fail_once() {
    let (limiter, recorder) = limiter(10, 0);
    let (script, probe) = Script::new();
    let mut service = limiter.layer().layer(probe);
    drop(service.ready().await.unwrap().call("unpolled"));
    script.reply(Reply::Later);
    let mut pending = task::spawn(service.ready().await.unwrap().call("pending"));
    assert_pending!(pending.poll());
    drop(pending);
    script.reply(Reply::PanicInPoll);
    assert!(AssertUnwindSafe(call(&mut service)).catch_unwind().await.is_err());
    script.reply(Reply::PanicInCall);
    assert!(AssertUnwindSafe(call(&mut service)).catch_unwind().await.is_err());
    assert_eq!((recorder.count("admitted"), recorder.count("cancelled"), script.live()), (4, 2, 0));
    assert_eq!(recorder.count("completed failure"), 2);
}

// G16, G17, G18, G20, G21, G22
#[tokio::test]
async fn it_works_by_reference_boxed_buffered_and_optional() {
    let (limiter, _) = limiter(4, 0);
    assert_shareable(&limiter);
    assert_shareable(&limiter.layer().wait());
    assert!(format!("{:?}", limiter.layer()).contains("api"));
    let (_, probe) = Script::new();
    let mut service = limiter.layer().layer(probe.clone());
    assert!(call(&mut (&mut service)).await.is_ok());
    let mut boxed: Box<dyn Service<&'static str, Response = _, Error = BoxError, Future = _> + Send> =
        Box::new(service.clone());
    assert!(call(&mut boxed).await.is_ok());
    let mut buffered = tower::buffer::Buffer::new(service.clone(), 4);
    assert!(call(&mut buffered).await.is_ok());
    for layer in [None, Some(limiter.layer())] {
        assert!(ServiceBuilder::new().option_layer(layer).service(probe.clone()).oneshot("a").await.is_ok());
    }
    let error = call(&mut buffered).await.unwrap_err();
    assert_eq!(error.as_rejection().unwrap().name(), "api", "the rejection is found through the buffer");
}

// L31, G17
#[tokio::test(start_paused = true)]
async fn with_backpressure_load_shed_sheds_and_buffer_paces_calls() {
    let (limiter, recorder) = limiter(1, 0);
    let (_, probe) = Script::new();
    let mut shedding = ServiceBuilder::new().load_shed().layer(limiter.layer().backpressure()).service(probe.clone());
    assert!(call(&mut shedding).await.is_ok());
    let error = call(&mut shedding).await.unwrap_err();
    assert!(error.is::<tower::load_shed::error::Overloaded>(), "{error}");
    drop(shedding);
    assert_eq!(limiter.snapshot().full_after, Duration::from_secs(1), "the shed call left no reservation");
    let began = Instant::now();
    let buffered = tower::buffer::Buffer::new(limiter.layer().backpressure().layer(probe), 8);
    let calls = (0..3).map(|_| {
        let mut buffered = buffered.clone();
        async move { call(&mut buffered).await.map(drop) }
    });
    assert!(futures_util::future::join_all(calls).await.iter().all(Result::is_ok));
    let elapsed = began.elapsed();
    assert!(elapsed >= Duration::from_secs(3) && elapsed < Duration::from_millis(3010), "{elapsed:?}");
    assert_eq!(recorder.count("rejected"), 0);
}

// G20
#[tokio::test]
async fn futures_are_send_when_their_parts_are() {
    fn send<T: Send>(_: T) {}

    let (limiter, _) = limiter(9, 0);
    let (_, probe) = Script::new();
    send(limiter.layer().layer(probe.clone()).ready().await.unwrap().call("a"));
    send(limiter.layer().backpressure().layer(probe.clone()).ready().await.unwrap().call("a"));
    send(limiter.layer().wait().layer(probe).ready().await.unwrap().call("a"));
    send(limiter.run(async { Ok::<_, BoxError>(()) }));
    send(limiter.acquire(1));
}

// L11, G26
#[test]
fn eight_threads_get_exactly_the_burst() {
    let limiter = RateLimiter::new("api", Rate::per_hour(5)).unwrap();
    let (script, probe) = Script::new();
    let service = limiter.layer().layer(probe);
    on_threads(8, |_| {
        let service = service.clone();
        async move {
            for _ in 0..200 {
                let _ = call(&mut service.clone()).await;
            }
        }
    });
    assert_eq!(script.calls(), 5, "of 1600");
}
