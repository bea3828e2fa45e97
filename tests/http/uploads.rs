//! Attempt timeouts that do not count the time for which an attempt waits for its caller.

use std::{
    convert::Infallible,
    error::Error as StdError,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use proptest::prelude::*;
use tokio::time::Sleep;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, BoxError, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    deadline,
    http::{HttpClassifier, UploadBody, UploadError, UploadTimeoutLayer},
    timeout::Timeout,
};

use crate::{
    response, secs,
    support::{self, poll_once, recorder::Recorder},
};

const LIMIT: Duration = secs(1);

/// A body whose caller sends one chunk after each of these times. It ends with the last one.
struct Paced {
    waits: std::vec::IntoIter<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

fn paced(waits: impl IntoIterator<Item = Duration>) -> Paced {
    Paced { waits: waits.into_iter().collect::<Vec<_>>().into_iter(), sleep: None }
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.sleep.is_none() {
            let Some(wait) = self.waits.next() else { return Poll::Ready(None) };
            self.sleep = (!wait.is_zero()).then(|| Box::pin(tokio::time::sleep(wait)));
        }
        if let Some(sleep) = &mut self.sleep {
            std::task::ready!(sleep.as_mut().poll(cx));
        }
        self.sleep = None;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"x")))))
    }
}

fn elapsed_since(start: tokio::time::Instant) -> Duration {
    now() - start
}

#[allow(clippy::disallowed_methods)] // the test reads the paused clock itself
fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Responded,
    TimedOut,
    Stalled,
    TooSlow,
}

fn outcome(result: Result<Response<()>, BoxError>) -> Outcome {
    let error = match result {
        Ok(_) => return Outcome::Responded,
        Err(error) => error,
    };
    match (error.as_rejection(), error.downcast_ref()) {
        (Some(Rejection::TimedOut { after, .. }), _) if *after == LIMIT => Outcome::TimedOut,
        (None, Some(UploadError::Stalled(_))) => Outcome::Stalled,
        (None, Some(UploadError::TooSlow(_))) => Outcome::TooSlow,
        _ => panic!("{error:?}"),
    }
}

/// Sends the body through the layer to a service that takes this long for each chunk. In `spawned`
/// form, another task reads the body, as an HTTP client's connection does. Returns the outcome, and
/// the time that it took.
async fn upload(
    layer: UploadTimeoutLayer,
    body: Paced,
    per_chunk: Vec<Duration>,
    spawned: bool,
) -> (Outcome, Duration) {
    let service = layer.layer(service_fn(|request: Request<UploadBody<Paced>>| {
        let (mut body, mut per_chunk) = (request.into_body(), per_chunk.clone().into_iter());
        let read = async move {
            while let Some(frame) = body.frame().await {
                frame?;
                tokio::time::sleep(per_chunk.next().unwrap_or_default()).await;
            }
            Ok::<_, BoxError>(response(200, &[]))
        };
        async move { if spawned { tokio::spawn(read).await.unwrap() } else { read.await } }
    }));
    let start = now();
    let result = service.oneshot(Request::new(body)).await;
    (outcome(result), elapsed_since(start))
}

fn layer() -> UploadTimeoutLayer {
    UploadTimeoutLayer::new(&Timeout::new("attempt", LIMIT))
}

/// Timers have a resolution of a millisecond, which adds up over the waits of a call.
const RESOLUTION: Duration = Duration::from_millis(25);

#[track_caller]
fn assert_took((outcome, took): (Outcome, Duration), expected: Outcome, after: Duration) {
    assert_eq!(outcome, expected, "after {took:?}");
    assert!(took >= after && took <= after + RESOLUTION, "{took:?} instead of {after:?}");
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_caller_does_not_count_and_the_services_time_does() {
    for spawned in [false, true] {
        let slow_caller = || paced([secs(3); 5]);
        let healthy = vec![Duration::from_millis(150); 5];
        assert_took(
            upload(layer(), slow_caller(), healthy, spawned).await,
            Outcome::Responded,
            Duration::from_millis(15_750),
        );
        let slow = vec![Duration::from_millis(300); 5];
        // Three chunks take 0.9 s and their waits 9 s; the fourth is cut off after 0.1 s.
        assert_took(upload(layer(), slow_caller(), slow, spawned).await, Outcome::TimedOut, secs(13));
        // A service that does not read the body at all.
        let hung = vec![secs(3600)];
        assert_took(upload(layer(), paced([secs(0), secs(5)]), hung, spawned).await, Outcome::TimedOut, LIMIT);
    }
}

#[tokio::test(start_paused = true)]
async fn a_callers_waits_are_limited_each_and_in_total() {
    for spawned in [false, true] {
        let stalls = paced([secs(9), secs(3600)]);
        assert_took(upload(layer(), stalls, vec![], spawned).await, Outcome::Stalled, secs(19));
        let drips = paced([secs(9); 1000]);
        assert_took(upload(layer(), drips, vec![], spawned).await, Outcome::TooSlow, secs(300));
        let strict = layer().idle(secs(2)).total(secs(5));
        assert_took(upload(strict.clone(), paced([secs(1); 4]), vec![], spawned).await, Outcome::Responded, secs(4));
        assert_took(upload(strict.clone(), paced([secs(3)]), vec![], spawned).await, Outcome::Stalled, secs(2));
        assert_took(upload(strict, paced([secs(1); 9]), vec![], spawned).await, Outcome::TooSlow, secs(5));
        let unlimited = layer().idle(Duration::MAX).total(Duration::MAX);
        assert_took(upload(unlimited, paced([secs(86_400)]), vec![], spawned).await, Outcome::Responded, secs(86_400));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_polled_no_more_stops_the_clock_no_longer_than_its_limits() {
    let kept = Mutex::new(None);
    let service = layer().layer(service_fn(|request: Request<UploadBody<Paced>>| {
        let mut body = request.into_body();
        // Polled once, as by a connection that then blocks.
        assert!(poll_once(body.frame()).is_pending());
        *kept.lock().unwrap() = Some(body);
        std::future::pending::<Result<Response<()>, BoxError>>()
    }));
    let start = now();
    let result = service.oneshot(Request::new(paced([secs(3600)]))).await;
    assert_took((outcome(result), elapsed_since(start)), Outcome::TimedOut, secs(11));
}

#[tokio::test(start_paused = true)]
async fn a_body_dropped_while_it_waits_lets_the_clock_run_on() {
    let service = layer().layer(service_fn(|request: Request<UploadBody<Paced>>| async move {
        let mut body = request.into_body();
        tokio::time::timeout(secs(4), body.frame()).await.unwrap_err();
        drop(body);
        std::future::pending::<Result<Response<()>, BoxError>>().await
    }));
    let start = now();
    let result = service.oneshot(Request::new(paced([secs(3600)]))).await;
    assert_took((outcome(result), elapsed_since(start)), Outcome::TimedOut, secs(5));
}

#[tokio::test(start_paused = true)]
async fn the_body_is_unchanged_and_its_own_error_is_the_callers() {
    let read = |body: UploadBody<_>| body.collect();
    let echo = layer().layer(service_fn(|request: Request<UploadBody<Full<Bytes>>>| async move {
        let body = request.into_body();
        assert_eq!(body.size_hint().exact(), Some(2));
        Ok::<_, BoxError>(Response::new(read(body).await?.to_bytes()))
    }));
    let sent = Request::new(Full::from("ab"));
    assert_eq!(echo.oneshot(sent).await.unwrap().into_body(), "ab");
    let broken = http_body_util::StreamBody::new(futures_util::stream::iter([Err::<Frame<Bytes>, _>("cut off")]));
    let service = layer().layer(service_fn(|request: Request<UploadBody<_>>| async move {
        let mut body = request.into_body();
        let error = body.frame().await.unwrap().map(|_: Frame<Bytes>| ()).unwrap_err();
        assert!(body.frame().await.is_none() && body.is_end_stream());
        Err::<Response<()>, BoxError>(error.into())
    }));
    let error = service.oneshot(Request::new(broken)).await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(UploadError::Body(_))));
    assert_eq!(error.source().unwrap().to_string(), "cut off");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_around_it_ends_the_attempt_and_it_sets_one_itself() {
    let seen = Mutex::new(Vec::new());
    let service = layer().layer(service_fn(|request: Request<UploadBody<Full<Bytes>>>| {
        seen.lock().unwrap().push(deadline::remaining().unwrap());
        drop(request);
        std::future::pending::<Result<Response<()>, BoxError>>()
    }));
    let call = async |body: &'static str, after: Option<Duration>| {
        let start = now();
        let call = || service.clone().oneshot(Request::new(Full::from(body)));
        let result = match after {
            Some(after) => deadline::scope(start + after, async { call().await }).await,
            None => call().await,
        };
        let rejection = result.unwrap_err().as_rejection().unwrap().clone();
        (rejection.was_attempted(), elapsed_since(start).as_millis() / 100)
    };
    assert_eq!(call("", None).await, (true, 10));
    assert_eq!(call("ab", None).await, (true, 10));
    assert_eq!(call("ab", Some(Duration::from_millis(300))).await, (true, 3));
    assert_eq!(call("ab", Some(Duration::ZERO)).await, (false, 0));
    // With a body, the service may work until the attempt ends at the latest.
    assert_eq!(*seen.lock().unwrap(), [LIMIT, LIMIT + secs(300), Duration::from_millis(300)]);
}

#[tokio::test(start_paused = true)]
async fn the_observer_receives_one_terminal_event_per_attempt() {
    let recorder = Recorder::new();
    let timeout = Timeout::builder("attempt", LIMIT).observer(recorder.clone()).build();
    let layer = UploadTimeoutLayer::new(&timeout);
    let service = layer.layer(service_fn(|request: Request<UploadBody<Paced>>| async move {
        match request.uri().path() {
            "/hang" => std::future::pending().await,
            "/fail" => Err(BoxError::from("failed")),
            _ => Ok(response(200, &[])),
        }
    }));
    let send = |path: &str| service.clone().oneshot(Request::builder().uri(path).body(paced([])).unwrap());
    send("/").await.unwrap();
    send("/fail").await.unwrap_err();
    send("/hang").await.unwrap_err();
    assert!(poll_once(send("/hang")).is_pending());
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed success",
            "admitted",
            "completed failure",
            "admitted",
            "rejected timed_out",
            "admitted",
            "cancelled"
        ]
    );
}

#[test]
fn a_call_that_is_ready_immediately_needs_no_runtime() {
    let service = layer().layer(service_fn(|request: Request<UploadBody<Full<Bytes>>>| {
        drop(request);
        std::future::ready(Ok::<_, BoxError>(response(200, &[])))
    }));
    assert!(poll_once(service.oneshot(Request::new(Full::from("ab")))).is_ready());
}

/// The outcome, by adding up the times.
fn expected(chunks: &[(u64, u64)], idle: u64, total: u64) -> (Outcome, u64) {
    let (mut clock, mut service, mut waited) = (0, 0, 0);
    let limit = LIMIT.as_millis() as u64;
    for (wait, work) in chunks {
        let allowed = idle.min(total - waited);
        if *wait > allowed {
            let outcome = if total - waited < idle { Outcome::TooSlow } else { Outcome::Stalled };
            return (outcome, clock + allowed);
        }
        (clock, waited) = (clock + wait, waited + wait);
        if service + work > limit {
            return (Outcome::TimedOut, clock + limit - service);
        }
        (clock, service) = (clock + work, service + work);
    }
    (Outcome::Responded, clock)
}

proptest! {
    /// Waits and work in any order.
    #[test]
    fn the_two_clocks_are_told_apart(
        chunks in prop::collection::vec((0..40_u64, 0..8_u64), 0..12),
        idle in 30..60_u64,
        total in 50..150_u64,
        spawned: bool,
    ) {
        // In steps that never meet a limit exactly.
        let (wait, work, limit) = (|n: u64| n * 50, |n: u64| n * 47, |n: u64| n * 50 + 25);
        let (idle, total) = (limit(idle), limit(total));
        let chunks: Vec<_> = chunks.into_iter().map(|(waits, works)| (wait(waits), work(works))).collect();
        let (outcome, after) = expected(&chunks, idle, total);
        let (result, took) = support::paused(async {
            let layer = layer().idle(Duration::from_millis(idle)).total(Duration::from_millis(total));
            let work = chunks.iter().map(|(_, work)| Duration::from_millis(*work)).collect();
            let body = paced(chunks.iter().map(|(wait, _)| Duration::from_millis(*wait)));
            upload(layer, body, work, spawned).await
        });
        prop_assert_eq!(result, outcome, "{:?} instead of {} ms", took, after);
        let after = Duration::from_millis(after);
        prop_assert!(took >= after && took <= after + RESOLUTION, "{:?} instead of {:?}", took, after);
    }
}

/// A hyper server that reads each request's body and responds with its length.
async fn server() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let service = hyper::service::service_fn(|request: Request<hyper::body::Incoming>| async move {
                    let length = request.into_body().collect().await.map(|body| body.to_bytes().len());
                    let text = length.map_or_else(|_| "broken".to_owned(), |length| length.to_string());
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(text)))
                });
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

/// Whether the error or one of its sources is that of a caller that stalled.
fn is_stalled(error: &(dyn StdError + 'static)) -> bool {
    matches!(error.downcast_ref(), Some(UploadError::Stalled(_))) || error.source().is_some_and(is_stalled)
}

#[tokio::test]
async fn a_slow_upload_over_a_socket_is_not_the_servers_fault() {
    let address = server().await;
    let attempt = Timeout::new("attempt", Duration::from_millis(150));
    for http2 in [false, true] {
        let bulkhead = Bulkhead::new("k", 1).unwrap();
        let breaker = CircuitBreaker::consecutive("b", 1).unwrap();
        let client = ServiceBuilder::new()
            .layer(breaker.layer().classify(HttpClassifier::new()))
            .layer(bulkhead.layer())
            .layer(UploadTimeoutLayer::new(&attempt).idle(Duration::from_millis(200)))
            .layer(tower_rampart::AdaptErrorLayer::new())
            .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<UploadBody<Paced>>());
        let post = |body| client.clone().oneshot(Request::post(format!("http://{address}/")).body(body).unwrap());
        let slow = paced([Duration::from_millis(60); 6]);
        let response = post(slow).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "6", "{http2}");
        let stalled = paced([Duration::ZERO, secs(3600)]);
        let error = post(stalled).await.unwrap_err();
        assert!(error.as_rejection().is_none(), "{error:?}");
        if !http2 {
            assert!(is_stalled(&error), "{error:?}");
        }
        assert_eq!(bulkhead.snapshot().in_flight, 0);
        assert_eq!(breaker.state(), CircuitState::Closed, "{error:?}");
    }
}
