//! Layers that cover the whole response.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, BoxError, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    http::{
        GrpcClassifier, HttpClassifier,
        full_response::{BodyTimeoutLayer, FullResponseLayer},
    },
    timeout::Timeout,
};

use crate::{response, secs, support::recorder::Recorder};

pub(crate) type BodyFrame = Result<Frame<Bytes>, io::Error>;
pub(crate) type Frames = mpsc::UnboundedSender<BodyFrame>;

pub(crate) fn data(text: &'static str) -> BodyFrame {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

pub(crate) fn grpc_status(code: &str) -> BodyFrame {
    Ok(Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())])))
}

/// A body whose frames the test sends.
pub(crate) fn channel_body() -> (mpsc::UnboundedSender<BodyFrame>, BoxBody<Bytes, io::Error>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    (sender, BoxBody::new(body))
}

pub(crate) struct Fixture {
    pub(crate) breaker: CircuitBreaker,
    pub(crate) bulkhead: Bulkhead,
    recorder: Recorder,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        let recorder = Recorder::new();
        let breaker = CircuitBreaker::builder("b").observer(recorder.clone()).build().unwrap();
        Self { breaker, bulkhead: Bulkhead::new("k", 1).unwrap(), recorder }
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.bulkhead.snapshot().in_flight
    }

    /// The results that the breaker recorded since the last call.
    pub(crate) fn recorded(&self) -> Vec<String> {
        self.recorder.take().into_iter().filter(|event| event != "admitted").collect()
    }
}

/// All three patterns around a service that returns the response it is sent.
macro_rules! covered {
    ($fixture:expr, $classify:expr, $limit:expr) => {
        ServiceBuilder::new()
            .layer(FullResponseLayer::new(
                ServiceBuilder::new()
                    .layer($fixture.breaker.layer().classify($classify))
                    .layer($fixture.bulkhead.layer())
                    .layer(Timeout::new("t", $limit).layer())
                    .into_inner(),
            ))
            .service(service_fn(|request: Request<Response<_>>| {
                std::future::ready(Ok::<_, BoxError>(request.into_body()))
            }))
    };
}

/// A request that the service answers with this response.
pub(crate) fn answered<B>(response: Response<B>) -> Request<Response<B>> {
    Request::new(response)
}

// K30
#[tokio::test(start_paused = true)]
async fn the_permit_is_held_and_the_verdict_deferred_until_the_body_ends() {
    let fixture = Fixture::new();
    let mut service = covered!(fixture, HttpClassifier::new(), secs(60));
    let (sender, body) = channel_body();
    let mut response = service.ready().await.unwrap().call(answered(response(200, &[]).map(|()| body))).await.unwrap();
    assert_eq!((fixture.in_flight(), response.status().as_u16()), (1, 200), "the headers have arrived");
    sender.send(data("ab")).unwrap();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    assert_eq!((fixture.in_flight(), fixture.recorded()), (1, vec![]));
    let rejected = service.call(answered(crate::response(200, &[]).map(|()| channel_body().1))).await.unwrap_err();
    assert_eq!(rejected.as_rejection().unwrap().name(), "k");
    assert_eq!(fixture.recorded(), ["completed ignored"]);
    drop(sender);
    assert!(response.frame().await.is_none());
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec!["completed success".to_owned()]));
    assert!(response.frame().await.is_none(), "it stays ended");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_a_failure() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(60));
    let (sender, body) = channel_body();
    let response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
    sender.send(data("ab")).unwrap();
    sender.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    let error = response.collect().await.unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec!["completed failure".to_owned()]));
}

// T28
#[tokio::test(start_paused = true)]
async fn a_timeout_breaks_off_a_slow_body_even_if_it_never_stalls() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(10));
    let (sender, body) = channel_body();
    let mut response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
    let drip = tokio::spawn(async move {
        while sender.send(data("x")).is_ok() {
            tokio::time::sleep(secs(1)).await;
        }
    });
    let mut frames = 0;
    let error = loop {
        match response.frame().await.unwrap() {
            Ok(_) => frames += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error.as_rejection(), Some(Rejection::TimedOut { after, .. }) if *after == secs(10)));
    assert!((9..=11).contains(&frames), "{frames}");
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec!["completed failure".to_owned()]));
    drop(response);
    drip.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn grpc_is_classified_by_its_trailers() {
    for (code, expected) in [("0", "completed success"), ("14", "completed failure"), ("8", "completed throttled")] {
        let fixture = Fixture::new();
        let service = covered!(fixture, GrpcClassifier, secs(60));
        let (sender, body) = channel_body();
        let response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
        sender.send(data("ab")).unwrap();
        sender.send(grpc_status(code)).unwrap();
        drop(sender);
        let collected = response.collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], code);
        assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![expected.to_owned()]));
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_body_cancels_the_call_unless_the_status_is_a_failure() {
    for (status, expected) in [(200, "cancelled"), (404, "cancelled"), (503, "completed failure")] {
        let fixture = Fixture::new();
        let service = covered!(fixture, HttpClassifier::new(), secs(60));
        let (_sender, body) = channel_body();
        let response = service.oneshot(answered(response(status, &[]).map(|()| body))).await.unwrap();
        assert_eq!(fixture.in_flight(), 1);
        drop(response);
        assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![expected.to_owned()]), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_call_completes_as_soon_as_the_end_of_the_body_is_known() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(60));
    let empty = service.oneshot(answered(response(204, &[]).map(|()| Empty::<Bytes>::new()))).await.unwrap();
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec!["completed success".to_owned()]));
    assert!(empty.body().is_end_stream());
    // A body whose last frame is known to be the last: a server does not poll again.
    let service = covered!(fixture, HttpClassifier::new(), secs(60));
    let mut full = service.oneshot(answered(response(200, &[]).map(|()| Full::<Bytes>::from("ab")))).await.unwrap();
    assert_eq!((fixture.in_flight(), full.body().size_hint().exact()), (1, Some(2)));
    full.frame().await.unwrap().unwrap();
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec!["completed success".to_owned()]));
}

// G9, G10, G13
#[tokio::test(start_paused = true)]
async fn errors_pass_through_and_dropped_calls_release_their_permits() {
    let fixture = Fixture::new();
    let layer = FullResponseLayer::new(
        ServiceBuilder::new().layer(fixture.breaker.layer()).layer(fixture.bulkhead.layer()).into_inner(),
    );
    let failing =
        layer.layer(service_fn(|_: Request<()>| async { Err::<Response<Full<Bytes>>, BoxError>("down".into()) }));
    assert_eq!(failing.oneshot(Request::new(())).await.unwrap_err().to_string(), "down");
    let hanging = service_fn(|_: Request<()>| std::future::pending::<Result<Response<Full<Bytes>>, BoxError>>());
    let mut hanging = layer.layer(hanging);
    drop(hanging.call(Request::new(())));
    let mut polled = tokio_test::task::spawn(hanging.call(Request::new(())));
    assert!(polled.poll().is_pending());
    assert_eq!(fixture.in_flight(), 1);
    drop(polled);
    assert_eq!(fixture.in_flight(), 0);
    assert_eq!(fixture.recorded(), ["completed failure", "cancelled", "cancelled"]);
}

// T28
#[tokio::test(start_paused = true)]
async fn a_body_timeout_applies_to_each_frame_and_runs_only_while_the_reader_waits() {
    let recorder = Recorder::new();
    let timeout = Timeout::builder("idle", secs(5)).observer(recorder.clone()).build();
    let service = BodyTimeoutLayer::new(&timeout)
        .layer(service_fn(|response: Response<_>| std::future::ready(Ok::<_, Infallible>(response))));
    let (sender, body) = channel_body();
    let mut response = service.oneshot(response(200, &[]).map(|()| body)).await.unwrap();
    let late = async |after: Duration| {
        tokio::time::sleep(after).await;
        sender.send(data("x")).unwrap();
    };
    for _ in 0..3 {
        let (frame, ()) = tokio::join!(response.frame(), late(secs(4)));
        frame.unwrap().unwrap();
    }
    late(secs(60)).await;
    response.frame().await.unwrap().unwrap(); // the reader did not wait
    let (frame, ()) = tokio::join!(response.frame(), late(secs(6)));
    let error = frame.unwrap().unwrap_err();
    assert_eq!(error.as_rejection().unwrap().name(), "idle");
    assert_eq!(recorder.take(), ["rejected timed_out"]);
}
