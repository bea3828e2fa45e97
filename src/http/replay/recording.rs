//! The recording of one body, shared by all clones of it.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use ::http::HeaderMap;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use crate::BoxError;

/// Whether everything that was sent of a body is recorded. Travels in the request's extensions.
#[derive(Clone)]
pub(in crate::http) struct RecordingStatus(Arc<AtomicBool>);

impl RecordingStatus {
    pub(in crate::http) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

pub(super) struct Recording<B> {
    state: Mutex<RecordingState<B>>,
    pub(super) status: RecordingStatus,
    limit: usize,
}

pub(super) struct RecordingState<B> {
    /// The unread rest of the body; `None` once it ended.
    source: Option<Pin<Box<B>>>,
    chunks: Vec<Bytes>,
    bytes: usize,
    trailers: Option<HeaderMap>,
    /// The number of the current reader, the latest to start, and its waker.
    current_reader: u64,
    waker: Option<Waker>,
}

impl<B: Body> Recording<B> {
    /// A recording of up to `limit` bytes of `body`.
    pub(super) fn new(body: B, limit: usize) -> Self {
        let fits = usize::try_from(body.size_hint().lower()).is_ok_and(|lower| lower <= limit);
        let state = RecordingState {
            source: Some(Box::pin(body)),
            chunks: Vec::new(),
            bytes: 0,
            trailers: None,
            current_reader: 0,
            waker: None,
        };
        Self { state: Mutex::new(state), status: RecordingStatus(Arc::new(AtomicBool::new(fits))), limit }
    }
}

impl<B> Recording<B> {
    pub(super) fn lock(&self) -> MutexGuard<'_, RecordingState<B>> {
        // Only the body itself can panic under the lock, and the reader that polled it sees that
        // panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records `chunk` if it fits the limit and a copy exists that might replay it; otherwise stops
    /// recording. Returns whether it was recorded.
    pub(super) fn record_chunk(&self, state: &mut RecordingState<B>, chunk: &Bytes, has_copies: bool) -> bool {
        if !self.status.is_complete() {
            return false;
        }
        state.bytes += chunk.len();
        let records = has_copies && state.bytes <= self.limit;
        if records {
            state.chunks.push(chunk.clone());
        } else {
            self.stop(state);
        }
        records
    }

    /// Stops recording, so that the body cannot be replayed from here on.
    fn stop(&self, state: &mut RecordingState<B>) {
        self.status.0.store(false, Ordering::Release);
        (state.chunks, state.bytes) = (Vec::new(), 0);
    }
}

impl<B> Recording<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Polls the body itself for its next frame.
    pub(super) fn poll_source(
        &self,
        state: &mut RecordingState<B>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(source) = &mut state.source else { return Poll::Ready(None) };
        match source.as_mut().poll_frame(cx) {
            Poll::Pending => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
            Poll::Ready(None) => {
                state.source = None;
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                state.source = None;
                self.stop(state);
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(Some(Ok(frame))) => {
                let frame = frame.map_data(|mut data| data.copy_to_bytes(data.remaining()));
                if !frame.is_data() {
                    state.source = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl<B> RecordingState<B> {
    pub(super) fn is_current(&self, reader: u64) -> bool {
        reader == self.current_reader
    }

    pub(super) fn has_readers(&self) -> bool {
        self.current_reader != 0
    }

    /// Makes a new reader the current one and wakes its predecessor, whose attempt is over. Returns
    /// the reader's number.
    pub(super) fn supersede_reader(&mut self) -> u64 {
        self.current_reader += 1;
        if let Some(superseded) = self.waker.take() {
            superseded.wake();
        }
        self.current_reader
    }

    pub(super) fn record_trailers(&mut self, trailers: &HeaderMap) {
        self.trailers = Some(trailers.clone());
    }

    /// Returns the recorded frame at `position`. The trailers come after the last chunk.
    pub(super) fn frame(&self, position: usize) -> Option<Frame<Bytes>> {
        match self.chunks.get(position) {
            Some(chunk) => Some(Frame::data(chunk.clone())),
            None if position == self.chunks.len() => self.trailers.clone().map(Frame::trailers),
            None => None,
        }
    }

    /// Whether a reader at `position` has read everything recorded, and the body has no more to
    /// add.
    pub(super) fn is_end(&self, position: usize) -> bool
    where
        B: Body,
    {
        let end = self.chunks.len() + usize::from(self.trailers.is_some());
        position >= end && self.source.as_ref().is_none_or(|source| source.is_end_stream())
    }

    /// Returns how much a reader at `position` has left to read.
    pub(super) fn size_hint(&self, position: usize) -> SizeHint
    where
        B: Body,
    {
        let recorded: u64 = self.chunks[position.min(self.chunks.len())..].iter().map(|c| c.len() as u64).sum();
        let rest = self.source.as_ref().map_or_else(|| SizeHint::with_exact(0), |source| source.size_hint());
        let mut hint = SizeHint::new();
        hint.set_lower(rest.lower().saturating_add(recorded));
        if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(recorded)) {
            hint.set_upper(upper);
        }
        hint
    }
}
