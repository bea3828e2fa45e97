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
use futures_util::StreamExt;
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

/// Sends the body by PUT to a server that reads `bytes` bytes of it, or to its end, and always
/// fails.
async fn send<B>(body: B, layer: ReplayLayer, bytes: usize) -> (Vec<String>, Result<Response<()>, BoxError>)
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
            while read.len() < bytes {
                let frame = body.frame().await;
                let is_over = !matches!(frame, Some(Ok(_)));
                match frame.map(|frame| frame.map(Frame::into_data)) {
                    Some(Ok(Ok(data))) => read.push_str(std::str::from_utf8(&data).unwrap()),
                    Some(Ok(Err(frame))) => read.push_str(&format!("+{:?}", frame.trailers_ref().unwrap()["sum"])),
                    Some(Err(error)) => read.push_str(&format!("!{error}")),
                    None => read.push('.'),
                }
                if is_over {
                    break;
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
    assert_eq!(send(chunks(), ReplayLayer::new(), usize::MAX).await.0, ["abcdef+\"7\"."; 3]);
    assert_eq!(send(chunks(), ReplayLayer::new(), 4).await.0, ["abcd"; 3]);
    assert_eq!(send(chunks(), ReplayLayer::new(), 0).await.0, [""; 3]);
    assert_eq!(send(Empty::<Bytes>::new(), ReplayLayer::new().limit(0), 1).await.0, ["."; 3]);
}

#[tokio::test(start_paused = true)]
async fn a_body_above_the_limit_is_sent_once_and_completely() {
    let chunks = || Chunks::new(&["ab", "cd", "ef"]);
    assert_eq!(send(chunks(), ReplayLayer::new().limit(6), usize::MAX).await.0, ["abcdef."; 3], "exactly at the limit");
    let (arrived, result) = send(chunks(), ReplayLayer::new().limit(5), usize::MAX).await;
    assert_eq!(arrived, ["abcdef."]);
    assert_eq!(result.unwrap().status(), 503, "the caller gets the result of that attempt");
    // The part that was read fits the limit, so the body can be replayed.
    assert_eq!(send(chunks(), ReplayLayer::new().limit(5), 4).await.0, ["abcd"; 3]);
    // A length announced in advance rules a replay out from the start.
    let announced = Full::new(Bytes::from_static(b"abcdef"));
    assert_eq!(send(announced, ReplayLayer::new().limit(5), 0).await.0, [""]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_body_is_not_replayed() {
    let failing = Chunks::new(&["ab"]).with_error();
    assert_eq!(send(failing, ReplayLayer::new(), usize::MAX).await.0, ["ab!the request's body failed"]);
}

/// Returns a request's body as a service inside the layer receives it.
async fn replayed<B: Body>(body: B, limit: usize) -> ReplayBody<B> {
    replayed_by(&ReplayLayer::new().limit(limit), body).await
}

async fn replayed_by<B: Body>(layer: &ReplayLayer, body: B) -> ReplayBody<B> {
    let body = Mutex::new(Some(body));
    let given = Mutex::new(None);
    let service = layer.layer(service_fn(|request: Request<ReplayBody<B>>| {
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

#[tokio::test]
async fn short_frames_are_replayed_as_one_and_empty_ones_are_not_recorded() {
    let frames = |frame: &'static str, count| {
        StreamBody::new(
            futures_util::stream::iter(std::iter::repeat_n(frame, count))
                .map(|frame| Ok::<_, Infallible>(Frame::data(Bytes::from_static(frame.as_bytes())))),
        )
    };
    let mut original = replayed(frames("x", 60_000), 64 * 1024).await;
    let copy = original.clone();
    while let Some(frame) = original.frame().await {
        assert_eq!(frame.unwrap().into_data().unwrap(), "x", "sent as it arrives");
    }
    let replay = copy.into_data_stream().map(|data| data.unwrap().len()).collect::<Vec<_>>().await;
    assert_eq!(replay, [60_000]);
    let mut empty = replayed(frames("", 100_000), 64 * 1024).await;
    let copy = empty.clone();
    while let Some(frame) = empty.frame().await {
        frame.unwrap();
    }
    assert_eq!(copy.into_data_stream().count().await, 0);
}

#[tokio::test]
async fn all_bodies_of_a_layer_share_its_memory() {
    let layer = ReplayLayer::new().total_limit(16 * 1024);
    let body = || Full::new(Bytes::from_static(&[0; 7000]));
    let mut sent = Vec::new();
    for call in 0..3 {
        let mut original = replayed_by(&layer, body()).await;
        let copy = original.clone();
        original.frame().await.unwrap().unwrap();
        let replay = copy.clone().frame().await.unwrap();
        assert_eq!(replay.is_ok(), call < 2, "call {call}");
        sent.push((original, copy));
    }
    sent.remove(0);
    let mut original = replayed_by(&layer.clone(), body()).await;
    let copy = original.clone();
    original.frame().await.unwrap().unwrap();
    assert!(copy.clone().frame().await.unwrap().is_ok(), "dropped bodies make room");
}

#[tokio::test]
async fn long_trailers_count_against_the_limit() {
    let trailers = || HeaderMap::from_iter([("sum".parse().unwrap(), "7".repeat(5000).parse().unwrap())]);
    for (limit, is_replayed) in [(4000, false), (6000, true)] {
        let frames = [Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"ab"))), Ok(Frame::trailers(trailers()))];
        let original = replayed(StreamBody::new(futures_util::stream::iter(frames)), limit).await;
        let mut copy = original.clone();
        assert!(original.collect().await.unwrap().trailers().is_some());
        assert_eq!(copy.frame().await.unwrap().is_ok(), is_replayed);
    }
}

#[tokio::test]
async fn only_a_body_of_announced_length_announces_one_when_it_is_replayed() {
    let original = replayed(Chunks::new(&["ab", "cd"]).with_trailers(), 1000).await;
    let copy = original.clone();
    let mut read = original;
    while read.frame().await.is_some() {}
    // An exact length would become a `Content-Length`, after which HTTP/1.1 sends no trailers.
    assert_eq!((copy.size_hint().lower(), copy.size_hint().exact()), (4, None));
    assert!(copy.collect().await.unwrap().trailers().is_some());
}

/// Looks at the body, as a waker may that runs its task, or a body that owns a copy of itself.
struct Reentrant(Mutex<Option<ReplayBody<SelfAware>>>, AtomicUsize);

impl std::task::Wake for Reentrant {
    fn wake(self: Arc<Self>) {
        self.look();
    }
}

impl Reentrant {
    fn look(&self) {
        self.1.fetch_add(1, SeqCst);
        if let Some(copy) = &*self.0.lock().unwrap() {
            let _ = (copy.size_hint(), copy.is_end_stream());
        }
    }
}

impl Drop for Reentrant {
    fn drop(&mut self) {
        self.look();
    }
}

/// A body that looks at a copy of itself in everything it does, and is pending at first.
struct SelfAware {
    copy: Arc<Reentrant>,
    polls: usize,
}

impl Body for SelfAware {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.copy.look();
        self.polls += 1;
        match self.polls {
            1 => Poll::Pending,
            2 => Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"ab"))))),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.copy.look();
        false
    }

    fn size_hint(&self) -> SizeHint {
        self.copy.look();
        SizeHint::default()
    }
}

impl Drop for SelfAware {
    fn drop(&mut self) {
        self.copy.look();
    }
}

// K34
#[tokio::test]
async fn nothing_of_the_bodys_owner_runs_under_the_lock() {
    let reentrant = || Arc::new(Reentrant(Mutex::new(None), AtomicUsize::new(0)));
    let own_copy = reentrant();
    let mut first = replayed(SelfAware { copy: own_copy.clone(), polls: 0 }, 100).await;
    *own_copy.0.lock().unwrap() = Some(first.clone());
    let waker = reentrant();
    *waker.0.lock().unwrap() = Some(first.clone());
    let task = std::task::Waker::from(waker.clone());
    let mut cx = Context::from_waker(&task);
    assert!(Pin::new(&mut first).poll_frame(&mut cx).is_pending());
    // The next reader wakes the first, whose waker looks at the body.
    let mut second = first.clone();
    let polled = Pin::new(&mut second).poll_frame(&mut cx);
    assert!(matches!(polled, Poll::Ready(Some(Ok(_)))));
    assert!(waker.1.load(SeqCst) > 0 && own_copy.1.load(SeqCst) > 2);
    assert!(matches!(Pin::new(&mut second).poll_frame(&mut cx), Poll::Ready(None)));
    own_copy.0.lock().unwrap().take();
    waker.0.lock().unwrap().take();
}

type PolledFrame = Poll<Option<Result<Frame<Bytes>, &'static str>>>;

/// A body whose poll lets another attempt start meanwhile, on the same thread.
struct Interrupted {
    frames: VecDeque<PolledFrame>,
    other: Arc<Mutex<Option<ReplayBody<Interrupted>>>>,
}

impl Body for Interrupted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        if let Some(other) = &mut *self.other.lock().unwrap() {
            let waker = futures_util::task::noop_waker();
            assert!(Pin::new(other).poll_frame(&mut Context::from_waker(&waker)).is_pending(), "the body is taken");
        }
        self.frames.pop_front().unwrap_or(Poll::Ready(None))
    }
}

#[tokio::test]
async fn an_attempt_that_starts_while_its_predecessor_polls_gets_every_frame_or_an_error() {
    let frame = |text: &'static str| Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(text.as_bytes())))));
    let cases = [
        (vec![frame("ab"), frame("cd")], 100, Ok("abcd")),
        (vec![Poll::Pending, frame("ab")], 100, Ok("ab")),
        (vec![Poll::Ready(None)], 100, Ok("")),
        (vec![frame("abcdef"), frame("gh")], 4, Err("it failed in an earlier attempt")),
        (vec![Poll::Ready(Some(Err("cut off")))], 100, Err("it failed in an earlier attempt")),
    ];
    for (frames, limit, expected) in cases {
        let other = Arc::new(Mutex::new(None));
        let mut first = replayed(Interrupted { frames: frames.into(), other: other.clone() }, limit).await;
        *other.lock().unwrap() = Some(first.clone());
        let _ = poll_once(first.frame());
        let mut second = other.lock().unwrap().take().unwrap();
        match poll_once(first.frame()) {
            Poll::Ready(Some(Err(ReplayError::Superseded)) | None) => {}
            other => panic!("{other:?}"),
        }
        let mut read = String::new();
        let result = loop {
            match second.frame().await {
                Some(Ok(frame)) => read.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap()),
                Some(Err(ReplayError::Body(error))) => break Err(error.to_string()),
                Some(Err(error)) => panic!("{error}"),
                None => break Ok(read),
            }
        };
        assert_eq!(result.as_deref().map_err(String::as_str), expected);
    }
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

#[test]
fn a_runtime_without_time_is_reported_where_the_response_arrives() {
    let service = DrainLayer::new().layer(service_fn(|status| {
        let body = Counted { left: 1, read: Arc::default(), dropped: mpsc::channel(1).0 };
        std::future::ready(Ok::<_, Infallible>(response(status, &[]).map(|()| body)))
    }));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(service.oneshot(200)).unwrap();
    let failed = std::panic::AssertUnwindSafe(|| runtime.block_on(service.oneshot(503)));
    assert!(std::panic::catch_unwind(failed).is_err());
}
