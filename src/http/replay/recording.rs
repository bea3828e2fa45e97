//! The recording of one body, shared by all clones of it.

use std::{
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use ::http::HeaderMap;
use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::store::{MemoryBudget, Segment, Store};
use crate::BoxError;

/// Whether everything that was sent of a body is recorded. Travels in the request's extensions.
#[derive(Clone)]
pub(in crate::http) struct RecordingStatus(Arc<AtomicBool>);

impl RecordingStatus {
    pub(in crate::http) fn is_complete(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The body itself, and its record.
///
/// No foreign code runs under the lock. A reader takes the body out to poll it, and no waker is
/// cloned, woken or dropped there. A reader that finds the body taken waits until it is put back.
pub(super) struct Recording<B> {
    state: Mutex<RecordingState<B>>,
    pub(super) status: RecordingStatus,
    /// Whether the body announced its exact length. If not, no attempt does: HTTP/1.1 sends no
    /// trailers after a body of an announced length.
    has_exact_length: bool,
}

pub(super) struct RecordingState<B> {
    source: Source<B>,
    /// The source's own, as of its last poll.
    source_hint: SizeHint,
    source_is_end: bool,
    store: Store,
    trailers: Option<HeaderMap>,
    /// The number of the current reader, the latest to start, and its waker.
    current_reader: u64,
    waker: Option<Waker>,
}

/// The unread rest of the body.
enum Source<B> {
    Idle(Pin<Box<B>>),
    /// A reader is polling it.
    Taken,
    Ended,
    /// It failed, or panicked.
    Failed,
}

/// The result of reading a recorded body.
pub(super) enum Read {
    Frame(Frame<Bytes>),
    End,
    Failed(BoxError),
    /// The body failed when an earlier reader polled it.
    FailedBefore,
    /// A later reader has started.
    Superseded,
}

impl<B: Body> Recording<B> {
    /// A recording of up to `limit` bytes of `body`.
    pub(super) fn new(body: B, limit: usize, budget: Arc<MemoryBudget>) -> Self {
        let source_hint = body.size_hint();
        let fits = usize::try_from(source_hint.lower()).is_ok_and(|lower| lower <= limit);
        let has_exact_length = source_hint.exact().is_some();
        let state = RecordingState {
            source: Source::Idle(Box::pin(body)),
            source_hint,
            source_is_end: false,
            store: Store::new(limit, budget),
            trailers: None,
            current_reader: 0,
            waker: None,
        };
        let status = RecordingStatus(Arc::new(AtomicBool::new(fits)));
        Self { state: Mutex::new(state), status, has_exact_length }
    }
}

impl<B> Recording<B> {
    fn lock(&self) -> MutexGuard<'_, RecordingState<B>> {
        // No code that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a new reader the current one and wakes its predecessor, whose attempt is over. Returns
    /// the reader's number, or `None` if the body cannot be replayed.
    pub(super) fn start_reader(&self) -> Option<u64> {
        let mut state = self.lock();
        if state.current_reader != 0 && !self.status.is_complete() {
            return None;
        }
        state.current_reader += 1;
        state.store.seal();
        let (reader, superseded) = (state.current_reader, state.waker.take());
        drop(state);
        if let Some(superseded) = superseded {
            superseded.wake();
        }
        Some(reader)
    }

    /// Returns the recorded frame at `position`. The trailers come after the last segment.
    pub(super) fn read_recorded(&self, reader: u64, position: usize) -> Option<Read> {
        let state = self.lock();
        if state.current_reader != reader {
            return Some(Read::Superseded);
        }
        let frame = match state.store.get(position) {
            Some(data) => Frame::data(data.clone()),
            None if position == state.store.len() => Frame::trailers(state.trailers.clone()?),
            None => return None,
        };
        Some(Read::Frame(frame))
    }

    /// Returns the position after all that is recorded.
    pub(super) fn end(&self) -> usize {
        let state = self.lock();
        state.store.len() + usize::from(state.trailers.is_some())
    }

    /// Whether a reader at `position` has read everything recorded, and the body has no more to
    /// add.
    pub(super) fn is_end(&self, reader: u64, position: usize) -> bool {
        let state = self.lock();
        let end = state.store.len() + usize::from(state.trailers.is_some());
        reader == state.current_reader
            && position >= end
            && match state.source {
                Source::Ended => true,
                Source::Idle(_) | Source::Taken => state.source_is_end,
                Source::Failed => false,
            }
    }

    /// Returns how much a reader at `position` has left to read.
    pub(super) fn size_hint(&self, position: usize) -> SizeHint {
        let state = self.lock();
        let recorded = state.store.bytes_from(position);
        let lower = state.source_hint.lower().saturating_add(recorded);
        let upper = state.source_hint.upper().and_then(|upper| upper.checked_add(recorded));
        drop(state);
        let mut hint = SizeHint::new();
        hint.set_lower(lower);
        if let Some(upper) = upper.filter(|upper| *upper != lower || self.has_exact_length) {
            hint.set_upper(upper);
        }
        hint
    }

    /// Stops recording, so that the body cannot be replayed from here on. Returns what was
    /// recorded.
    fn stop(&self, state: &mut RecordingState<B>) -> Recorded {
        self.status.0.store(false, Ordering::Release);
        Recorded { _segments: state.store.clear(), _trailers: state.trailers.take() }
    }

    /// Records a frame. Returns the parts that do not fit, to be dropped.
    fn record(&self, state: &mut RecordingState<B>, frame: &Frame<Bytes>, has_copies: bool) -> Option<Recorded> {
        if !self.status.is_complete() {
            return None;
        }
        let fits = if let Some(chunk) = frame.data_ref() {
            has_copies && state.store.push(chunk)
        } else if let Some(trailers) = frame.trailers_ref() {
            let fits = has_copies && state.store.make_room(size_of_trailers(trailers));
            if fits {
                state.trailers = Some(trailers.clone());
            }
            fits
        } else {
            true
        };
        (!fits).then(|| self.stop(state))
    }
}

/// What was recorded, to be dropped outside of the lock.
struct Recorded {
    _segments: Vec<Segment>,
    _trailers: Option<HeaderMap>,
}

/// The memory that trailers take.
fn size_of_trailers(trailers: &HeaderMap) -> usize {
    let entry = |(name, value): (&::http::HeaderName, &::http::HeaderValue)| name.as_str().len() + value.len() + 128;
    trailers.iter().map(entry).sum()
}

impl<B> Recording<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    /// Polls the body itself for its next frame, for the reader of this number, and records it.
    /// `has_copies`: a copy exists that might replay it.
    pub(super) fn poll_source(&self, reader: u64, has_copies: bool, cx: &mut Context<'_>) -> Poll<Read> {
        let body = match ready!(self.take_source(reader, cx)) {
            Ok(body) => body,
            Err(read) => return Poll::Ready(read),
        };
        let mut polled = PolledSource { recording: self, body: Some(body) };
        let Some(body) = &mut polled.body else { return Poll::Pending };
        let frame = match body.as_mut().poll_frame(cx) {
            Poll::Pending => Polled::Pending(cx.waker().clone()),
            Poll::Ready(None) => Polled::End,
            Poll::Ready(Some(Err(error))) => Polled::Failed(error.into()),
            Poll::Ready(Some(Ok(frame))) => {
                Polled::Frame(frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            }
        };
        let (hint, is_end) = (body.size_hint(), body.is_end_stream());
        polled.put_back(frame, (hint, is_end), reader, has_copies)
    }

    /// Takes the body out. If an earlier reader is polling it, waits until it is put back.
    fn take_source(&self, reader: u64, cx: &mut Context<'_>) -> Poll<Result<Pin<Box<B>>, Read>> {
        let mut waker = None;
        loop {
            let mut state = self.lock();
            if state.current_reader != reader {
                return Poll::Ready(Err(Read::Superseded));
            }
            match mem::replace(&mut state.source, Source::Taken) {
                Source::Idle(body) => return Poll::Ready(Ok(body)),
                Source::Taken => {}
                source => {
                    let read = if let Source::Ended = source { Read::End } else { Read::FailedBefore };
                    state.source = source;
                    return Poll::Ready(Err(read));
                }
            }
            if waker.is_some() {
                let replaced = mem::replace(&mut state.waker, waker);
                drop(state);
                drop(replaced);
                return Poll::Pending;
            }
            drop(state);
            waker = Some(cx.waker().clone());
        }
    }
}

enum Polled {
    Pending(Waker),
    Frame(Frame<Bytes>),
    Failed(BoxError),
    End,
}

/// The body, taken out to be polled. If that panics, it has failed.
struct PolledSource<'a, B> {
    recording: &'a Recording<B>,
    body: Option<Pin<Box<B>>>,
}

impl<B> PolledSource<'_, B> {
    fn put_back(
        mut self,
        polled: Polled,
        (hint, is_end): (SizeHint, bool),
        reader: u64,
        has_copies: bool,
    ) -> Poll<Read> {
        let recording = self.recording;
        let body = self.body.take();
        let mut state = recording.lock();
        (state.source_hint, state.source_is_end) = (hint, is_end);
        // A later reader may have started meanwhile. It needs what this one has polled.
        let is_current = state.current_reader == reader;
        let (mut unrecorded, mut replaced, mut superseded) = (None, None, None);
        let (source, ended, read) = match polled {
            Polled::Pending(waker) => {
                if is_current {
                    replaced = state.waker.replace(waker);
                } else {
                    superseded = Some(waker);
                }
                (body.map_or(Source::Failed, Source::Idle), None, Poll::Pending)
            }
            Polled::Frame(frame) => {
                unrecorded = recording.record(&mut state, &frame, has_copies || !is_current);
                let is_lost = !is_current && !recording.status.is_complete();
                let read = Poll::Ready(Read::Frame(frame));
                match body {
                    Some(body) if !is_lost && !is_trailers(&read) => (Source::Idle(body), None, read),
                    body => (if is_lost { Source::Failed } else { Source::Ended }, body, read),
                }
            }
            Polled::End => (Source::Ended, body, Poll::Ready(Read::End)),
            Polled::Failed(error) => {
                unrecorded = Some(recording.stop(&mut state));
                (Source::Failed, body, Poll::Ready(Read::Failed(error)))
            }
        };
        state.source = source;
        let waiting = if is_current { None } else { state.waker.take() };
        if !is_current {
            state.store.seal();
        }
        drop(state);
        drop((ended, unrecorded, replaced));
        for waker in [waiting, superseded].into_iter().flatten() {
            waker.wake();
        }
        read
    }
}

fn is_trailers(read: &Poll<Read>) -> bool {
    matches!(read, Poll::Ready(Read::Frame(frame)) if frame.is_trailers())
}

impl<B> Drop for PolledSource<'_, B> {
    fn drop(&mut self) {
        if self.body.is_some() {
            let mut state = self.recording.lock();
            state.source = Source::Failed;
            let (recorded, waker) = (self.recording.stop(&mut state), state.waker.take());
            drop(state);
            drop(recorded);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}
