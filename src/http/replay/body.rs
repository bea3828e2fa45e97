use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::recording::{Recording, RecordingState, RecordingStatus};
use crate::BoxError;

/// A body that its clones can send again. Made by [`ReplayLayer`](super::ReplayLayer).
///
/// Each clone starts at the beginning. The last one to start reading is the one being sent: when it
/// is first polled, the earlier ones fail, which ends the attempts they belong to.
pub struct ReplayBody<B> {
    /// `None` for a body without data.
    recording: Option<Arc<Recording<B>>>,
    cursor: Cursor,
}

#[derive(Default)]
struct Cursor {
    /// This reader's number; 0 before the first poll.
    reader: u64,
    /// The next recorded frame to read.
    position: usize,
    bytes_delivered: u64,
}

impl<B: Body> ReplayBody<B> {
    pub(super) fn new(body: B, limit: usize) -> Self {
        let recording = (!body.is_end_stream()).then(|| Arc::new(Recording::new(body, limit)));
        Self { recording, cursor: Cursor::default() }
    }
}

impl<B> ReplayBody<B> {
    pub(super) fn recording_status(&self) -> Option<RecordingStatus> {
        self.recording.as_ref().map(|recording| recording.status.clone())
    }
}

impl Cursor {
    /// Makes this reader the current one on its first poll. Fails if the body cannot be replayed,
    /// or if a later reader has started.
    fn start<B>(&mut self, state: &mut RecordingState<B>, status: &RecordingStatus) -> Result<(), ReplayError> {
        if self.reader == 0 {
            if state.has_readers() && !status.is_complete() {
                return Err(ReplayError::TooLong);
            }
            self.reader = state.supersede_reader();
        } else if !state.is_current(self.reader) {
            return Err(ReplayError::Superseded);
        }
        Ok(())
    }

    /// Returns the next recorded frame.
    fn replay<B>(&mut self, state: &RecordingState<B>) -> Option<Frame<Bytes>> {
        let frame = state.frame(self.position)?;
        self.position += 1;
        self.bytes_delivered += frame.data_ref().map_or(0, |chunk| chunk.len() as u64);
        Some(frame)
    }

    /// Records a new frame of the body as it is delivered.
    fn record<B>(
        &mut self,
        recording: &Recording<B>,
        state: &mut RecordingState<B>,
        frame: &Frame<Bytes>,
        has_copies: bool,
    ) {
        if let Some(chunk) = frame.data_ref() {
            self.bytes_delivered += chunk.len() as u64;
            let is_recorded = recording.record_chunk(state, chunk, has_copies);
            self.position = if is_recorded { self.position + 1 } else { 0 };
        } else if let Some(trailers) = frame.trailers_ref()
            && has_copies
        {
            state.record_trailers(trailers);
            self.position += 1;
        }
    }
}

impl<B> Clone for ReplayBody<B> {
    fn clone(&self) -> Self {
        Self { recording: self.recording.clone(), cursor: Cursor::default() }
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
        let Self { recording, cursor } = &mut *self;
        let Some(recording) = recording else { return Poll::Ready(None) };
        let state = &mut *recording.lock();
        if let Err(error) = cursor.start(state, &recording.status) {
            return Poll::Ready(Some(Err(error)));
        }
        if let Some(frame) = cursor.replay(state) {
            return Poll::Ready(Some(Ok(frame)));
        }
        let polled = ready!(recording.poll_source(state, cx));
        if let Some(Ok(frame)) = &polled {
            let has_copies = Arc::strong_count(recording) > 1;
            cursor.record(recording, state, frame, has_copies);
        }
        Poll::Ready(polled.map(|result| result.map_err(ReplayError::Body)))
    }

    fn is_end_stream(&self) -> bool {
        let Some(recording) = &self.recording else { return true };
        let state = recording.lock();
        state.is_current(self.cursor.reader) && state.is_end(self.cursor.position)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.recording {
            Some(recording) => recording.lock().size_hint(self.cursor.position),
            None => SizeHint::with_exact(0),
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplayBody").field("delivered", &self.cursor.bytes_delivered).finish_non_exhaustive()
    }
}

/// Why a [`ReplayBody`] failed.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReplayError {
    /// The body itself failed.
    Body(BoxError),
    /// A newer attempt is sending the body, so this attempt is over.
    Superseded,
    /// The body grew beyond the limit after another attempt had been decided on.
    TooLong,
}

caller_error!(
    ReplayError,
    |error, f| f.write_str(match error {
        Self::Body(_) => "the request's body failed",
        Self::Superseded => "another attempt is sending the request's body",
        Self::TooLong => "the request's body is too long to be sent again",
    }),
    |error| if let Self::Body(source) = error { Some(&**source) } else { None }
);
