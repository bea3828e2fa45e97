use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    recording::{Read, Recording, RecordingStatus},
    store::MemoryBudget,
};
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
    /// The next recorded segment to read.
    position: usize,
    bytes_delivered: u64,
    has_failed: bool,
}

impl<B: Body> ReplayBody<B> {
    pub(super) fn new(body: B, limit: usize, budget: &Arc<MemoryBudget>) -> Self {
        let recording = (!body.is_end_stream()).then(|| Arc::new(Recording::new(body, limit, budget.clone())));
        Self { recording, cursor: Cursor::default() }
    }
}

impl<B> ReplayBody<B> {
    pub(super) fn recording_status(&self) -> Option<RecordingStatus> {
        self.recording.as_ref().map(|recording| recording.status.clone())
    }
}

impl Cursor {
    /// Reads the next frame, from the recording or from the body itself.
    fn poll_read<B>(&mut self, recording: &Arc<Recording<B>>, cx: &mut Context<'_>) -> Poll<Result<Read, ReplayError>>
    where
        B: Body,
        B::Error: Into<BoxError>,
    {
        if self.reader == 0 {
            // On its first poll, this reader becomes the current one.
            self.reader = recording.start_reader().ok_or(ReplayError::TooLong)?;
        }
        if let Some(read) = recording.read_recorded(self.reader, self.position) {
            self.position += 1;
            return Poll::Ready(Ok(read));
        }
        let has_copies = Arc::strong_count(recording) > 1;
        let read = ready!(recording.poll_source(self.reader, has_copies, cx));
        self.position = recording.end();
        Poll::Ready(Ok(read))
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
        let Some(recording) = recording.as_ref().filter(|_| !cursor.has_failed) else { return Poll::Ready(None) };
        let read = match ready!(cursor.poll_read(recording, cx)) {
            Ok(Read::Frame(frame)) => Ok(frame),
            Ok(Read::End) => return Poll::Ready(None),
            Ok(Read::Failed(error)) => Err(ReplayError::Body(error)),
            Ok(Read::FailedBefore) => Err(ReplayError::Body("it failed in an earlier attempt".into())),
            Ok(Read::Superseded) => Err(ReplayError::Superseded),
            Err(error) => Err(error),
        };
        cursor.has_failed = read.is_err();
        if let Some(chunk) = read.as_ref().ok().and_then(Frame::data_ref) {
            cursor.bytes_delivered += chunk.len() as u64;
        }
        Poll::Ready(Some(read))
    }

    fn is_end_stream(&self) -> bool {
        self.recording.as_ref().is_none_or(|recording| recording.is_end(self.cursor.reader, self.cursor.position))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.recording {
            Some(recording) => recording.size_hint(self.cursor.position),
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
