//! Replayed request bodies, and the bodies of failed responses.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::sync::mpsc;
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    BoxError,
    http::{DrainLayer, HttpClassifier, HttpRepeat, ReplayBody, ReplayError, ReplayLayer},
    retry::{Backoff, Retry, RetryLayer},
};

use crate::{response, support::poll_once};

fn retry() -> RetryLayer<HttpClassifier, HttpRepeat> {
    let retry = Retry::builder("test").backoff(Backoff::fixed(Duration::from_millis(1))).build().unwrap();
    retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new())
}

/// A body that yields one chunk per poll, then the trailers. Its length is unknown.
struct Chunks {
    left: VecDeque<Result<Frame<Bytes>, &'static str>>,
    polls: Arc<AtomicUsize>,
}

impl Chunks {
    fn new(chunks: &[&'static str]) -> Self {
        let left = chunks.iter().map(|chunk| Ok(Frame::data(Bytes::from_static(chunk.as_bytes())))).collect();
        Self { left, polls: Arc::default() }
    }

    fn with_trailers(mut self) -> Self {
        let trailers = HeaderMap::from_iter([("sum".parse().unwrap(), "7".parse().unwrap())]);
        self.left.push_back(Ok(Frame::trailers(trailers)));
        self
    }

    fn with_error(mut self) -> Self {
        self.left.push_back(Err("the file is gone"));
        self
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.polls.fetch_add(1, SeqCst);
        Poll::Ready(self.left.pop_front())
    }
}

/// The part of the body that arrived with each attempt.
type Arrived = Arc<Mutex<Vec<String>>>;

/// Sends the body by PUT to a server that reads up to `frames` frames of it and always fails.
async fn send<B>(body: B, layer: ReplayLayer, frames: usize) -> (Vec<String>, Result<Response<()>, BoxError>)
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    let arrived = Arrived::default();
    let log = arrived.clone();
    let server = service_fn(move |request: Request<ReplayBody<B>>| {
        let log = log.clone();
        async move {
            let (mut body, mut read) = (request.into_body(), String::new());
            for _ in 0..frames {
                match body.frame().await {
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => read.push_str(std::str::from_utf8(&data).unwrap()),
                        Err(frame) => read.push_str(&format!("+{:?}", frame.trailers_ref().unwrap()["sum"])),
                    },
                    Some(Err(error)) => read.push_str(&format!("!{error}")),
                    None => read.push('.'),
                }
            }
            log.lock().unwrap().push(read);
            Ok::<_, BoxError>(response(503, &[]))
        }
    });
    let service = ServiceBuilder::new().layer(layer).layer(retry()).service(server);
    let result = service.oneshot(Request::put("/").body(body).unwrap()).await;
    let arrived = std::mem::take(&mut *arrived.lock().unwrap());
    (arrived, result)
}

#[tokio::test(start_paused = true)]
async fn a_streaming_body_is_replayed_from_its_beginning() {
    let chunks = || Chunks::new(&["ab", "cd", "ef"]).with_trailers();
    // Read to the end; in part, so that later attempts continue with the body itself; and not at
    // all.
    assert_eq!(send(chunks(), ReplayLayer::new(), 5).await.0, ["abcdef+\"7\"."; 3]);
    assert_eq!(send(chunks(), ReplayLayer::new(), 2).await.0, ["abcd"; 3]);
    assert_eq!(send(chunks(), ReplayLayer::new(), 0).await.0, [""; 3]);
    assert_eq!(send(Empty::<Bytes>::new(), ReplayLayer::new().limit(0), 1).await.0, ["."; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_limit_is_sent_once_and_completely() {
    let chunks = || Chunks::new(&["ab", "cd", "ef"]);
    assert_eq!(send(chunks(), ReplayLayer::new().limit(6), 4).await.0, ["abcdef."; 3], "exactly at the limit");
    let (arrived, result) = send(chunks(), ReplayLayer::new().limit(5), 4).await;
    assert_eq!(arrived, ["abcdef."]);
    assert_eq!(result.unwrap().status(), 503, "the caller gets the result of that attempt");
    // The part that was read fits the limit, so the body can be replayed.
    assert_eq!(send(chunks(), ReplayLayer::new().limit(5), 2).await.0, ["abcd"; 3]);
    // A length announced in advance rules a replay out from the start.
    let announced = Full::new(Bytes::from_static(b"abcdef"));
    assert_eq!(send(announced, ReplayLayer::new().limit(5), 0).await.0, [""]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_body_is_not_replayed() {
    let failing = Chunks::new(&["ab"]).with_error();
    assert_eq!(send(failing, ReplayLayer::new(), 2).await.0, ["ab!the request's body failed"]);
}

/// Returns a request's body as a service inside the layer receives it.
async fn replayed<B: Body>(body: B, limit: usize) -> ReplayBody<B> {
    let body = Mutex::new(Some(body));
    let given = Mutex::new(None);
    let service = ReplayLayer::new().limit(limit).layer(service_fn(|request: Request<ReplayBody<B>>| {
        *given.lock().unwrap() = Some(request.into_body());
        std::future::ready(Ok::<_, Infallible>(()))
    }));
    let body = body.lock().unwrap().take().unwrap();
    service.oneshot(Request::new(body)).await.unwrap();
    given.into_inner().unwrap().unwrap()
}

#[tokio::test]
async fn the_previous_attempt_fails_when_the_next_one_starts_to_send() {
    let (sender, mut receiver) = mpsc::channel::<Result<Frame<Bytes>, Infallible>>(4);
    let body = StreamBody::new(futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx)));
    let mut first = replayed(body, 100).await;
    let mut second = first.clone();
    sender.send(Ok(Frame::data(Bytes::from_static(b"ab")))).await.unwrap();
    assert_eq!(first.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    let mut waiting = tokio_test::task::spawn(first.frame());
    assert!(waiting.poll().is_pending());
    assert_eq!(second.frame().await.unwrap().unwrap().into_data().unwrap(), "ab");
    assert!(waiting.is_woken(), "the superseded reader must not wait forever");
    match waiting.poll() {
        Poll::Ready(Some(Err(ReplayError::Superseded))) => {}
        other => panic!("{other:?}"),
    }
    sender.send(Ok(Frame::data(Bytes::from_static(b"cd")))).await.unwrap();
    drop(sender);
    assert_eq!(second.collect().await.unwrap().to_bytes(), "cd");
}

#[tokio::test]
async fn a_copy_knows_its_length_and_its_end() {
    let original = replayed(Full::new(Bytes::from_static(b"abcd")), 100).await;
    let copy = original.clone();
    assert_eq!((original.size_hint().exact(), copy.size_hint().exact()), (Some(4), Some(4)));
    assert!(!original.is_end_stream());
    let mut read = original;
    read.frame().await.unwrap().unwrap();
    assert_eq!((read.size_hint().exact(), copy.size_hint().exact()), (Some(0), Some(4)));
    assert!(read.is_end_stream() && !copy.is_end_stream());
    assert_eq!(copy.collect().await.unwrap().to_bytes(), "abcd");
}

#[tokio::test]
async fn nothing_is_recorded_without_a_copy() {
    let mut alone = replayed(Chunks::new(&["ab", "cd"]), 100).await;
    let copy = alone.clone();
    alone.frame().await.unwrap().unwrap();
    drop(copy);
    alone.frame().await.unwrap().unwrap();
    match alone.clone().frame().await.unwrap() {
        Err(ReplayError::TooLong) => {}
        other => panic!("{other:?}"),
    }
    assert!(alone.frame().await.is_none(), "the body being sent continues");
}

/// A response body that counts how much of it was read.
struct Counted {
    left: usize,
    read: Arc<AtomicUsize>,
    dropped: mpsc::Sender<()>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        self.read.fetch_add(1, SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; 1024])))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let _ = self.dropped.try_send(());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dropped_failed_response_is_drained_up_to_the_limit() {
    for (status, kibibytes, expected) in [(503, 3, 3), (503, 1000, 9), (200, 3, 0), (404, 3, 0)] {
        let (read, (dropped, mut end)) = (Arc::new(AtomicUsize::new(0)), mpsc::channel(1));
        let body = Counted { left: kibibytes, read: read.clone(), dropped };
        let pending = Mutex::new(Some(response(status, &[]).map(|()| body)));
        let service = DrainLayer::new()
            .limit(8 * 1024, Duration::from_secs(1))
            .layer(service_fn(|()| std::future::ready(Ok::<_, Infallible>(pending.lock().unwrap().take().unwrap()))));
        drop(service.oneshot(()).await.unwrap());
        end.recv().await;
        assert_eq!(read.load(SeqCst), expected, "{status}, {kibibytes} KiB");
    }
}

#[test]
fn a_failed_response_may_be_dropped_outside_a_runtime() {
    let service = DrainLayer::new().layer(service_fn(|()| {
        let body = Counted { left: 1, read: Arc::default(), dropped: mpsc::channel(1).0 };
        std::future::ready(Ok::<_, Infallible>(response(503, &[]).map(|()| body)))
    }));
    let Poll::Ready(Ok(response)) = poll_once(service.oneshot(())) else { panic!() };
    drop(response);
}
