//! How a covered call ends: by the body's end, which a reader need not see, by its drop, or by a
//! time limit, whether or not the body is read.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, combinators::BoxBody};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, BoxError, Rejection,
    bulkhead::Bulkhead,
    event::{Event, EventKind},
    http::{
        GrpcClassifier, HttpClassifier,
        full_response::{FullResponseBody, FullResponseLayer, SlowReader},
    },
    timeout::Timeout,
};

use crate::{
    full_response::{Fixture, answered, channel_body, data, grpc_status},
    response, secs,
    support::{paused, poll_once},
};

const SUCCESS: &str = "completed success";
const FAILURE: &str = "completed failure";
const CANCELLED: &str = "cancelled";

/// A response with this `Content-Length`, and a body that does not know its own.
fn sized(length: &str) -> (crate::full_response::Frames, Response<BoxBody<Bytes, io::Error>>) {
    let (sender, body) = channel_body();
    (sender, response(200, &[("content-length", length)]).map(|()| body))
}

/// Reads one frame of data.
async fn read<B: Body<Data = Bytes> + Unpin>(body: &mut B) -> Bytes
where
    B::Error: std::fmt::Debug,
{
    body.frame().await.unwrap().unwrap().into_data().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_body_dropped_after_its_announced_length_is_complete() {
    for (length, frames, expected) in [
        ("4", 2, SUCCESS),
        ("4", 1, CANCELLED),
        ("4", 0, CANCELLED),
        ("3", 2, SUCCESS), // A server cuts the rest off.
        ("5", 2, CANCELLED),
        ("0", 0, SUCCESS),
        ("nonsense", 2, CANCELLED),
    ] {
        let fixture = Fixture::new();
        let service = covered!(fixture, HttpClassifier::new(), secs(60));
        let (sender, response) = sized(length);
        let mut response = service.oneshot(answered(response)).await.unwrap();
        for _ in 0..frames {
            sender.send(data("ab")).unwrap();
            assert_eq!(read(response.body_mut()).await, "ab");
        }
        assert_eq!(fixture.in_flight(), 1, "{length}: trailers may follow");
        drop(response);
        assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![expected.to_owned()]), "{length}, {frames}");
    }
}

/// A body of an exact length that does not say when it has ended.
struct Exact {
    left: u64,
}

impl Body for Exact {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                Poll::Ready(Some(data("x")))
            }
            None => Poll::Pending,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[tokio::test(start_paused = true)]
async fn the_bodys_own_length_counts_where_no_header_announces_one() {
    for (frames, expected) in [(2, CANCELLED), (3, SUCCESS)] {
        let fixture = Fixture::new();
        let service = covered!(fixture, HttpClassifier::new(), secs(60));
        let exact = response(200, &[]).map(|()| Exact { left: 3 });
        let mut response = service.oneshot(answered(exact)).await.unwrap();
        for _ in 0..frames {
            read(response.body_mut()).await;
        }
        drop(response);
        assert_eq!(fixture.recorded(), [expected]);
    }
}

#[tokio::test(start_paused = true)]
async fn at_its_announced_length_a_body_that_has_ended_holds_nothing_even_if_it_is_kept() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(60));
    let (sender, response) = sized("4");
    let mut response = service.oneshot(answered(response)).await.unwrap();
    sender.send(data("abcd")).unwrap();
    drop(sender);
    assert_eq!(read(response.body_mut()).await, "abcd");
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![SUCCESS.to_owned()]));
    assert!(response.body().is_end_stream());
    assert!(response.frame().await.is_none());
    assert!(response.frame().await.is_none(), "it stays ended");
}

#[tokio::test(start_paused = true)]
async fn trailers_after_the_announced_length_decide() {
    for is_read in [true, false] {
        let fixture = Fixture::new();
        let service = covered!(fixture, GrpcClassifier, secs(60));
        let (sender, response) = sized("4");
        let mut response = service.oneshot(answered(response)).await.unwrap();
        sender.send(data("abcd")).unwrap();
        sender.send(grpc_status("14")).unwrap();
        assert_eq!(read(response.body_mut()).await, "abcd");
        assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![FAILURE.to_owned()]));
        assert!(!response.body().is_end_stream());
        if is_read {
            let trailers = response.frame().await.unwrap().unwrap().into_trailers().unwrap();
            assert_eq!(trailers["grpc-status"], "14");
            drop(sender);
            assert!(response.frame().await.is_none());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_another_length_than_announced_reaches_the_reader_unchanged() {
    for (length, text) in [("2", "ab"), ("100", "abcdef")] {
        let fixture = Fixture::new();
        let service = covered!(fixture, HttpClassifier::new(), secs(60));
        let (sender, response) = sized(length);
        let response = service.oneshot(answered(response)).await.unwrap();
        for part in ["ab", "cd", "ef"] {
            sender.send(data(part)).unwrap();
        }
        drop(sender);
        let read = response.collect().await.unwrap().to_bytes();
        assert_eq!(read, "abcdef", "announced {length}, starts with {text}");
        assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![SUCCESS.to_owned()]));
    }
}

#[tokio::test(start_paused = true)]
async fn a_response_without_a_body_on_the_wire_is_complete_with_its_head() {
    let cases =
        [(Method::HEAD, 200), (Method::CONNECT, 200), (Method::GET, 204), (Method::GET, 304), (Method::GET, 101)];
    for (method, status) in cases {
        let fixture = Fixture::new();
        let service = covered!(fixture, HttpClassifier::new(), secs(60));
        let (_sender, body) = channel_body();
        let mut request = answered(response(status, &[("content-length", "5")]).map(|()| body));
        *request.method_mut() = method.clone();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![SUCCESS.to_owned()]), "{method} {status}");
        drop(response);
        assert_eq!(fixture.recorded(), Vec::<String>::new());
    }
}

// T33
#[tokio::test(start_paused = true)]
async fn a_time_limit_ends_the_call_of_a_body_that_is_never_read() {
    for is_polled_later in [true, false] {
        let fixture = Fixture::new();
        let service = covered!(fixture, HttpClassifier::new(), secs(10));
        let (sender, body) = channel_body();
        let mut response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
        sender.send(data("ab")).unwrap();
        tokio::time::sleep(secs(9)).await;
        assert_eq!(fixture.in_flight(), 1);
        tokio::time::sleep(secs(2)).await;
        assert_eq!(fixture.in_flight(), 0, "the permit is released though the body is kept");
        assert_eq!(fixture.recorded(), ["completed ignored"], "the service is not to blame");
        assert!(sender.is_closed(), "the service's body is dropped");
        if is_polled_later {
            let error = response.frame().await.unwrap().unwrap_err();
            assert!(error.is::<SlowReader>(), "{error}");
            assert!(response.frame().await.is_none());
        }
        drop(response);
        assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![]));
    }
}

// T33
#[tokio::test(start_paused = true)]
async fn a_time_limit_is_the_services_fault_if_the_reader_waits_for_it() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(10));
    let (sender, body) = channel_body();
    let mut response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
    sender.send(data("ab")).unwrap();
    read(response.body_mut()).await;
    // The reader polls once and is not polled again, as if its task hung.
    let mut frame = tokio_test::task::spawn(response.frame());
    assert!(frame.poll().is_pending());
    tokio::time::sleep(secs(11)).await;
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![FAILURE.to_owned()]));
    assert!(frame.is_woken());
    match frame.poll() {
        Poll::Ready(Some(Err(error))) => {
            assert!(matches!(error.as_rejection(), Some(Rejection::TimedOut { .. })), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert!(sender.is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_failed_status_stays_a_failure_when_its_body_is_not_read() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(10));
    let (_sender, body) = channel_body();
    let _response = service.oneshot(answered(response(503, &[]).map(|()| body))).await.unwrap();
    tokio::time::sleep(secs(11)).await;
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![FAILURE.to_owned()]));
}

// T33
#[tokio::test(start_paused = true)]
async fn reading_slowly_does_not_stop_the_clock() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(10));
    let (sender, body) = channel_body();
    let mut response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
    let mut frames = 0;
    for _ in 0..100 {
        sender.send(data("x")).ok();
        match response.frame().await.unwrap() {
            Ok(_) => frames += 1,
            Err(error) => {
                assert!(error.is::<SlowReader>(), "{error}");
                break;
            }
        }
        tokio::time::sleep(secs(3)).await;
    }
    assert_eq!(frames, 4);
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec!["completed ignored".to_owned()]));
}

/// A body that panics when it is polled.
struct Panicking;

impl Body for Panicking {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        panic!("the body panicked")
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_panics_is_a_failure_wherever_the_panic_is_caught() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(60));
    let mut response = service.oneshot(answered(response(200, &[]).map(|()| Panicking))).await.unwrap();
    let poll = std::panic::AssertUnwindSafe(|| poll_once(response.frame()));
    assert!(std::panic::catch_unwind(poll).is_err());
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![FAILURE.to_owned()]));
    assert!(response.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_panic_elsewhere_does_not_change_how_a_dropped_body_counts() {
    let fixture = Fixture::new();
    let service = covered!(fixture, HttpClassifier::new(), secs(60));
    let (_sender, body) = channel_body();
    let response = service.oneshot(answered(response(503, &[]).map(|()| body))).await.unwrap();
    let unwind = std::panic::AssertUnwindSafe(move || {
        let _response = response;
        panic!("a sibling panicked")
    });
    assert!(std::panic::catch_unwind(unwind).is_err());
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![FAILURE.to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_body_whose_timer_meets_a_panicking_observer_is_broken_off() {
    let observer = |event: &Event<'_>| {
        if let EventKind::Rejected { .. } = event.kind {
            panic!("the observer panicked");
        }
    };
    let bulkhead = Bulkhead::new("k", 1).unwrap();
    let timeout = Timeout::builder("t", secs(10)).observer(observer).build();
    let layers = ServiceBuilder::new().layer(bulkhead.layer()).layer(timeout.layer()).into_inner();
    let (_sender, body) = channel_body();
    let service = FullResponseLayer::new(layers)
        .layer(service_fn(|request: Request<Response<_>>| std::future::ready(Ok::<_, BoxError>(request.into_body()))));
    let response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
    let reader = tokio::spawn(response.into_body().collect());
    tokio::time::sleep(secs(11)).await;
    assert_eq!(bulkhead.snapshot().in_flight, 0);
    assert!(reader.await.unwrap().is_err(), "the reader learns of it");
}

#[test]
fn a_body_may_outlive_its_runtime() {
    let fixture = Fixture::new();
    let (sender, body) = channel_body();
    let response = {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let service = covered!(fixture, HttpClassifier::new(), secs(1));
        runtime.block_on(service.oneshot(answered(response(200, &[]).map(|()| body)))).unwrap()
    };
    // The runtime is gone, and the clock of the limit with it.
    assert_eq!(fixture.in_flight(), 1);
    sender.send(data("ab")).unwrap();
    drop(sender);
    let mut body = response.into_body();
    assert!(matches!(poll_once(body.frame()), Poll::Ready(Some(Ok(_)))));
    assert!(matches!(poll_once(body.frame()), Poll::Ready(None)));
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![SUCCESS.to_owned()]));
}

#[test]
fn it_works_outside_a_runtime() {
    let bulkhead = Bulkhead::new("k", 1).unwrap();
    let service = FullResponseLayer::new(bulkhead.layer())
        .layer(service_fn(|request: Request<Response<_>>| std::future::ready(Ok::<_, BoxError>(request.into_body()))));
    let (sender, body) = channel_body();
    let Poll::Ready(Ok(response)) = poll_once(service.oneshot(answered(response(200, &[]).map(|()| body)))) else {
        panic!()
    };
    let mut body = response.into_body();
    assert!(poll_once(body.frame()).is_pending());
    assert_eq!(bulkhead.snapshot().in_flight, 1);
    drop(sender);
    assert!(matches!(poll_once(body.frame()), Poll::Ready(None)));
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}

/// A layer that takes a second to complete after its inner service has.
#[derive(Clone)]
struct Lingering<S>(S);

impl<S, Req> Service<Req> for Lingering<S>
where
    S: Service<Req>,
    S::Future: Send + 'static,
    S::Response: Send,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures_util::future::BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let call = self.0.call(request);
        Box::pin(async move {
            let result = call.await;
            tokio::time::sleep(secs(1)).await;
            result
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_layer_that_completes_after_the_body_is_waited_for() {
    let fixture = Fixture::new();
    let layers = ServiceBuilder::new()
        .layer(fixture.breaker.layer().classify(HttpClassifier::new()))
        .layer(fixture.bulkhead.layer())
        .layer_fn(Lingering)
        .into_inner();
    let service = FullResponseLayer::new(layers)
        .layer(service_fn(|request: Request<Response<_>>| std::future::ready(Ok::<_, BoxError>(request.into_body()))));
    let response = service.oneshot(answered(response(200, &[]).map(|()| Full::<Bytes>::from("ab")))).await.unwrap();
    assert_eq!(response.collect().await.unwrap().to_bytes(), "ab");
    assert_eq!((fixture.in_flight(), fixture.recorded()), (1, vec![]));
    tokio::time::sleep(secs(2)).await;
    assert_eq!((fixture.in_flight(), fixture.recorded()), (0, vec![SUCCESS.to_owned()]));
}

/// A body that shows whether it was dropped.
struct Tracked(#[expect(dead_code, reason = "owned")] Arc<()>, Empty<Bytes>);

impl Body for Tracked {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        let _ = &self.1;
        false
    }
}

#[test]
fn nothing_is_kept_of_a_call_that_has_ended() {
    type Covered = Response<FullResponseBody<Tracked>>;
    type End = fn(Covered) -> Option<Covered>;
    // The body is dropped, unread or while its reader waits; the limit passes; the runtime ends.
    let endings: [End; 3] = [|_| None, |mut response| poll_once(response.frame()).is_ready().then_some(response), Some];
    for end in endings {
        let (body, call): (Arc<()>, Arc<()>) = Default::default();
        let (weak_body, weak_call): (Weak<()>, Weak<()>) = (Arc::downgrade(&body), Arc::downgrade(&call));
        let kept = paused(async move {
            let timeout = Timeout::new("t", secs(10));
            let hold = move |request: tower_rampart::http::full_response::TrackedRequest<_>| {
                let _ = &call;
                request
            };
            let layers = ServiceBuilder::new().layer(timeout.layer()).map_request(hold).into_inner();
            let service = FullResponseLayer::new(layers).layer(service_fn(|request: Request<Response<_>>| {
                std::future::ready(Ok::<_, BoxError>(request.into_body()))
            }));
            let body = Tracked(body, Empty::new());
            let kept = end(service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap());
            tokio::time::sleep(secs(11)).await;
            kept
        });
        assert_eq!((weak_body.strong_count(), weak_call.strong_count()), (0, 0));
        drop(kept);
    }
}

#[test]
fn a_body_may_end_on_one_thread_while_its_limit_passes_on_another() {
    static LEAKED: AtomicBool = AtomicBool::new(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let bulkhead = Bulkhead::new("k", 1000).unwrap();
        let limit = std::time::Duration::from_millis(2);
        let layers = ServiceBuilder::new().layer(bulkhead.layer()).layer(Timeout::new("t", limit).layer()).into_inner();
        let service = FullResponseLayer::new(layers)
            .layer(service_fn(|request: Request<Response<_>>| async move { Ok::<_, BoxError>(request.into_body()) }));
        let calls = (0..300_u32).map(|call| {
            let service = service.clone();
            tokio::spawn(async move {
                let (sender, body) = channel_body();
                let response = service.oneshot(answered(response(200, &[]).map(|()| body))).await.unwrap();
                let ender = tokio::spawn(async move {
                    tokio::time::sleep(limit).await;
                    drop(sender);
                });
                if call % 3 == 0 {
                    tokio::time::sleep(limit).await;
                    drop(response);
                } else if response.collect().await.is_ok_and(|body| !body.to_bytes().is_empty()) {
                    LEAKED.store(true, SeqCst);
                }
                ender.await.unwrap();
            })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.unwrap();
        }
        // A drop that meets a poll on the other thread leaves the end to that poll.
        while bulkhead.snapshot().in_flight > 0 {
            tokio::task::yield_now().await;
        }
        assert!(!LEAKED.load(SeqCst));
    });
}
