//! Layers that cover the whole response.

use std::{convert::Infallible, io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Response};
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

type Piece = Result<Frame<Bytes>, io::Error>;

fn data(text: &'static str) -> Piece {
    Ok(Frame::data(Bytes::from_static(text.as_bytes())))
}

fn grpc_status(code: &str) -> Piece {
    Ok(Frame::trailers(HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())])))
}

/// A body that is fed by hand.
fn fed() -> (mpsc::UnboundedSender<Piece>, BoxBody<Bytes, io::Error>) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    (sender, BoxBody::new(body))
}

struct Parts {
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    recorder: Recorder,
}

impl Parts {
    fn new() -> Self {
        let recorder = Recorder::new();
        let breaker = CircuitBreaker::builder("b").observer(recorder.clone()).build().unwrap();
        Self { breaker, bulkhead: Bulkhead::new("k", 1).unwrap(), recorder }
    }

    fn in_flight(&self) -> u32 {
        self.bulkhead.snapshot().in_flight
    }

    /// What the breaker counted.
    fn counted(&self) -> Vec<String> {
        self.recorder.take().into_iter().filter(|event| event != "admitted").collect()
    }
}

/// All three around a service that answers with the response it is sent.
macro_rules! around {
    ($parts:expr, $classify:expr, $limit:expr) => {
        ServiceBuilder::new()
            .layer(FullResponseLayer::new(
                ServiceBuilder::new()
                    .layer($parts.breaker.layer().classify($classify))
                    .layer($parts.bulkhead.layer())
                    .layer(Timeout::new("t", $limit).layer())
                    .into_inner(),
            ))
            .service(service_fn(|response: Response<_>| std::future::ready(Ok::<_, BoxError>(response))))
    };
}

// K30
#[tokio::test(start_paused = true)]
async fn the_permit_is_held_until_the_body_ends_and_the_verdict_comes_then() {
    let parts = Parts::new();
    let mut service = around!(parts, HttpClassifier::new(), secs(60));
    let (feed, body) = fed();
    let mut response = service.ready().await.unwrap().call(response(200, &[]).map(|()| body)).await.unwrap();
    assert_eq!((parts.in_flight(), response.status().as_u16()), (1, 200), "the headers are there");
    feed.send(data("ab")).unwrap();
    assert_eq!(response.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    assert_eq!((parts.in_flight(), parts.counted()), (1, vec![]));
    let refused = service.call(crate::response(200, &[]).map(|()| fed().1)).await.unwrap_err();
    assert_eq!(refused.as_rejection().unwrap().name(), "k");
    assert_eq!(parts.counted(), ["completed ignored"]);
    drop(feed);
    assert!(response.frame().await.is_none());
    assert_eq!((parts.in_flight(), parts.counted()), (0, vec!["completed success".to_owned()]));
    assert!(response.frame().await.is_none(), "and it stays ended");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_is_a_failure() {
    let parts = Parts::new();
    let service = around!(parts, HttpClassifier::new(), secs(60));
    let (feed, body) = fed();
    let response = service.oneshot(response(200, &[]).map(|()| body)).await.unwrap();
    feed.send(data("ab")).unwrap();
    feed.send(Err(io::ErrorKind::ConnectionReset.into())).unwrap();
    let error = response.collect().await.unwrap_err();
    assert_eq!(error.downcast_ref::<io::Error>().unwrap().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!((parts.in_flight(), parts.counted()), (0, vec!["completed failure".to_owned()]));
}

// T28
#[tokio::test(start_paused = true)]
async fn a_timeout_breaks_off_a_body_that_takes_too_long_however_steadily_it_comes() {
    let parts = Parts::new();
    let service = around!(parts, HttpClassifier::new(), secs(10));
    let (feed, body) = fed();
    let mut response = service.oneshot(response(200, &[]).map(|()| body)).await.unwrap();
    let drip = tokio::spawn(async move {
        while feed.send(data("x")).is_ok() {
            tokio::time::sleep(secs(1)).await;
        }
    });
    let mut pieces = 0;
    let error = loop {
        match response.frame().await.unwrap() {
            Ok(_) => pieces += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error.as_rejection(), Some(Rejection::TimedOut { after, .. }) if *after == secs(10)));
    assert!((9..=11).contains(&pieces), "{pieces}");
    assert_eq!((parts.in_flight(), parts.counted()), (0, vec!["completed failure".to_owned()]));
    drop(response);
    drip.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn grpc_is_judged_by_its_trailers() {
    for (code, expected) in [("0", "completed success"), ("14", "completed failure"), ("8", "completed throttled")] {
        let parts = Parts::new();
        let service = around!(parts, GrpcClassifier, secs(60));
        let (feed, body) = fed();
        let response = service.oneshot(response(200, &[]).map(|()| body)).await.unwrap();
        feed.send(data("ab")).unwrap();
        feed.send(grpc_status(code)).unwrap();
        drop(feed);
        let whole = response.collect().await.unwrap();
        assert_eq!(whole.trailers().unwrap()["grpc-status"], code);
        assert_eq!((parts.in_flight(), parts.counted()), (0, vec![expected.to_owned()]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_body_cancels_the_call_unless_the_status_says_that_it_failed() {
    for (status, expected) in [(200, "cancelled"), (404, "cancelled"), (503, "completed failure")] {
        let parts = Parts::new();
        let service = around!(parts, HttpClassifier::new(), secs(60));
        let (_feed, body) = fed();
        let response = service.oneshot(response(status, &[]).map(|()| body)).await.unwrap();
        assert_eq!(parts.in_flight(), 1);
        drop(response);
        assert_eq!((parts.in_flight(), parts.counted()), (0, vec![expected.to_owned()]), "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_whose_end_is_known_ends_the_call_with_it() {
    let parts = Parts::new();
    let service = around!(parts, HttpClassifier::new(), secs(60));
    let empty = service.oneshot(response(204, &[]).map(|()| Empty::<Bytes>::new())).await.unwrap();
    assert_eq!((parts.in_flight(), parts.counted()), (0, vec!["completed success".to_owned()]));
    assert!(empty.body().is_end_stream());
    // One whose last piece is known to be that: a server does not ask for another.
    let service = around!(parts, HttpClassifier::new(), secs(60));
    let mut full = service.oneshot(response(200, &[]).map(|()| Full::<Bytes>::from("ab"))).await.unwrap();
    assert_eq!((parts.in_flight(), full.body().size_hint().exact()), (1, Some(2)));
    full.frame().await.unwrap().unwrap();
    assert_eq!((parts.in_flight(), parts.counted()), (0, vec!["completed success".to_owned()]));
}

// G9, G10, G13
#[tokio::test(start_paused = true)]
async fn errors_pass_and_dropped_calls_give_back() {
    let parts = Parts::new();
    let layer = FullResponseLayer::new(
        ServiceBuilder::new().layer(parts.breaker.layer()).layer(parts.bulkhead.layer()).into_inner(),
    );
    let failing = layer.layer(service_fn(|()| async { Err::<Response<Full<Bytes>>, BoxError>("down".into()) }));
    assert_eq!(failing.oneshot(()).await.unwrap_err().to_string(), "down");
    let hanging = service_fn(|()| std::future::pending::<Result<Response<Full<Bytes>>, BoxError>>());
    let mut hanging = layer.layer(hanging);
    drop(hanging.call(()));
    let mut polled = tokio_test::task::spawn(hanging.call(()));
    assert!(polled.poll().is_pending());
    assert_eq!(parts.in_flight(), 1);
    drop(polled);
    assert_eq!(parts.in_flight(), 0);
    assert_eq!(parts.counted(), ["completed failure", "cancelled", "cancelled"]);
}

// T28
#[tokio::test(start_paused = true)]
async fn a_body_timeout_gives_each_piece_its_time_and_runs_while_somebody_waits() {
    let recorder = Recorder::new();
    let timeout = Timeout::builder("idle", secs(5)).observer(recorder.clone()).build();
    let service = BodyTimeoutLayer::new(&timeout)
        .layer(service_fn(|response: Response<_>| std::future::ready(Ok::<_, Infallible>(response))));
    let (feed, body) = fed();
    let mut response = service.oneshot(response(200, &[]).map(|()| body)).await.unwrap();
    let late = async |after: Duration| {
        tokio::time::sleep(after).await;
        feed.send(data("x")).unwrap();
    };
    for _ in 0..3 {
        let (frame, ()) = tokio::join!(response.frame(), late(secs(4)));
        frame.unwrap().unwrap();
    }
    late(secs(60)).await;
    response.frame().await.unwrap().unwrap(); // nobody waited
    let (frame, ()) = tokio::join!(response.frame(), late(secs(6)));
    let error = frame.unwrap().unwrap_err();
    assert_eq!(error.as_rejection().unwrap().name(), "idle");
    assert_eq!(recorder.take(), ["rejected timed_out"]);
}
