//! Bodies that stream, recorded while they are sent.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use ::http::{HeaderMap, Request};
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;

/// Makes requests whose body streams repeatable: records the body while it is sent, for a retry inside.
///
/// The body becomes a [`ReplayBody`]. It is sent as it comes, without waiting for its end, and is recorded only while
/// there is a copy of the request that might be sent too. When it turns out longer than the limit the record is dropped:
/// the request is then sent once, and the caller gets the result of that attempt ([`HttpRepeat`](super::HttpRepeat)
/// knows). A body without data costs nothing, and one whose announced length exceeds the limit is not recorded at all.
///
/// The default limit is 64 KiB, for each request in flight.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_rampart::{http::{HttpClassifier, HttpRepeat, ReplayLayer}, retry::Retry};
///
/// let retry = Retry::attempts("uploads", 3)?;
/// let layers = ServiceBuilder::new()
///     .layer(ReplayLayer::new())
///     .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()));
/// # let _ = layers;
/// # Ok::<(), tower_rampart::ConfigError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ReplayLayer {
    limit: usize,
}

impl ReplayLayer {
    /// Records up to 64 KiB of each body.
    pub const fn new() -> Self {
        Self { limit: 64 * 1024 }
    }

    /// Records up to so many bytes of each body; with zero, a request that has a body is sent once.
    pub const fn limit(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl Default for ReplayLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ReplayLayer {
    type Service = Replay<S>;

    fn layer(&self, inner: S) -> Replay<S> {
        Replay { inner, limit: self.limit }
    }
}

/// Service made by [`ReplayLayer`].
#[derive(Clone, Copy, Debug)]
pub struct Replay<S> {
    inner: S,
    limit: usize,
}

service_access!(Replay);

impl<S, B> Service<Request<B>> for Replay<S>
where
    S: Service<Request<ReplayBody<B>>>,
    B: Body,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    // A body with data: 3 allocations.
    fn call(&mut self, request: Request<B>) -> S::Future {
        let mut request = request.map(|body| ReplayBody::new(body, self.limit));
        if let Some(tape) = &request.body().tape {
            let recording = tape.recording.clone();
            request.extensions_mut().insert(recording);
        }
        self.inner.call(request)
    }
}

/// Travels with the request: whether all of its body that was sent is on record.
#[derive(Clone)]
pub(super) struct Recording(Arc<AtomicBool>);

impl Recording {
    pub(super) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A body that can be sent again by its clones. Made by [`ReplayLayer`].
///
/// Each clone begins at the beginning. The one that was polled last for the first time is the one that is being sent:
/// with that, those before it fail, which ends the attempts they belonged to.
pub struct ReplayBody<B> {
    /// None for a body without data.
    tape: Option<Arc<Tape<B>>>,
    /// Among those who read; 0 before the first poll.
    reader: u64,
    /// Of the recorded chunks.
    position: usize,
    delivered: u64,
}

struct Tape<B> {
    state: Mutex<RecordingState<B>>,
    recording: Recording,
    limit: usize,
}

struct RecordingState<B> {
    /// What has not been read; None at its end.
    body: Option<Pin<Box<B>>>,
    chunks: Vec<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    /// The latest reader, and its waker.
    reader: u64,
    waker: Option<Waker>,
}

impl<B: Body> ReplayBody<B> {
    fn new(body: B, limit: usize) -> Self {
        let tape = (!body.is_end_stream()).then(|| {
            let fits = usize::try_from(body.size_hint().lower()).is_ok_and(|lower| lower <= limit);
            let state = RecordingState {
                body: Some(Box::pin(body)),
                chunks: Vec::new(),
                bytes: 0,
                trailers: None,
                reader: 0,
                waker: None,
            };
            Arc::new(Tape { state: Mutex::new(state), recording: Recording(Arc::new(AtomicBool::new(fits))), limit })
        });
        Self { tape, reader: 0, position: 0, delivered: 0 }
    }
}

impl<B> Tape<B> {
    fn lock(&self) -> MutexGuard<'_, RecordingState<B>> {
        // Only the body itself can panic while it is held, and the reader that polled it sees that.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<B> RecordingState<B> {
    /// The record is of no use any more.
    fn stop(&mut self, recording: &Recording) {
        recording.0.store(false, Ordering::Release);
        (self.chunks, self.bytes) = (Vec::new(), 0);
    }
}

impl<B> Clone for ReplayBody<B> {
    fn clone(&self) -> Self {
        Self { tape: self.tape.clone(), reader: 0, position: 0, delivered: 0 }
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = ReplayError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let Some(tape) = &this.tape else { return Poll::Ready(None) };
        let mut state = tape.lock();
        if this.reader == 0 {
            if state.reader != 0 && !tape.recording.is_complete() {
                return Poll::Ready(Some(Err(ReplayError::TooLong)));
            }
            state.reader += 1;
            this.reader = state.reader;
            if let Some(before) = state.waker.take() {
                before.wake();
            }
        } else if this.reader != state.reader {
            return Poll::Ready(Some(Err(ReplayError::Superseded)));
        }
        if let Some(chunk) = state.chunks.get(this.position) {
            this.position += 1;
            this.delivered += chunk.len() as u64;
            return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
        }
        let Some(body) = &mut state.body else {
            return match &state.trailers {
                Some(trailers) if this.position == state.chunks.len() => {
                    this.position += 1;
                    Poll::Ready(Some(Ok(Frame::trailers(trailers.clone()))))
                }
                _ => Poll::Ready(None),
            };
        };
        let polled = body.as_mut().poll_frame(cx);
        let frame = match polled {
            Poll::Pending => {
                state.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(None) => {
                state.body = None;
                return Poll::Ready(None);
            }
            Poll::Ready(Some(Err(error))) => {
                state.body = None;
                state.stop(&tape.recording);
                return Poll::Ready(Some(Err(ReplayError::Body(error.into()))));
            }
            Poll::Ready(Some(Ok(frame))) => frame.map_data(|mut data| data.copy_to_bytes(data.remaining())),
        };
        let copies = Arc::strong_count(tape) > 1;
        match frame.into_data() {
            Ok(chunk) => {
                this.delivered += chunk.len() as u64;
                if tape.recording.is_complete() {
                    state.bytes += chunk.len();
                    if copies && state.bytes <= tape.limit {
                        state.chunks.push(chunk.clone());
                        this.position += 1;
                    } else {
                        // Too long, or nobody is left to send it again.
                        state.stop(&tape.recording);
                        this.position = 0;
                    }
                }
                Poll::Ready(Some(Ok(Frame::data(chunk))))
            }
            Err(frame) => {
                if let Some(trailers) = frame.trailers_ref()
                    && copies
                {
                    state.trailers = Some(trailers.clone());
                    this.position += 1;
                }
                state.body = None;
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let Some(tape) = &self.tape else { return true };
        let state = tape.lock();
        let end = state.chunks.len() + usize::from(state.trailers.is_some());
        let read = self.reader == state.reader && self.position >= end;
        read && state.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let Some(tape) = &self.tape else { return SizeHint::with_exact(0) };
        let state = tape.lock();
        let recorded: u64 = state.chunks[self.position.min(state.chunks.len())..].iter().map(|c| c.len() as u64).sum();
        let rest = state.body.as_ref().map_or_else(|| SizeHint::with_exact(0), |body| body.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(recorded));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(recorded)) {
            hint.set_upper(upper);
        }
        hint
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("delivered", &self.delivered).finish_non_exhaustive()
    }
}

/// Why a [`ReplayBody`] broke off.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The body itself did.
    #[error("the request's body failed")]
    Body(#[source] BoxError),
    /// Another attempt is being made: this one is over.
    #[error("another attempt is sending the request's body")]
    Superseded,
    /// It turned out longer than the limit after another attempt was decided.
    #[error("the request's body is too long to be sent again")]
    TooLong,
}
