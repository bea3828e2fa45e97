//! The reader's side of a covered body: it finds the body's end, and ends the layers' call.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, ready},
};

use ::http::{StatusCode, response::Parts};
use bytes::Buf;
use http_body::{Body, Frame, SizeHint};

use super::{
    announced_length::announced_length,
    channel::{BodyEnd, BrokenOff, EndKind, ResponseChannel},
    covered_call::Covering,
};
use crate::{BoxError, classify::Verdict, http::classify::verdict_for_status};

/// What a poll of a body yields: a frame, an error, or the end.
type NextFrame<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

/// A body whose end completes the layers' call.
///
/// A reader need not poll a body to its end. Servers drop it after the last frame, or once they
/// have sent the announced length. So the call completes when the body
///
/// - says that it has ended, after a frame or instead of one, or yields its trailers;
/// - fails;
/// - is dropped after it has delivered the announced length.
///
/// At the announced length, trailers may still follow. The body is polled once more at that point,
/// ahead of the reader: the end of most bodies is known by then, and a reader that is slow to ask
/// for it does not hold the call.
pub(super) struct CoveredBody<B: Body> {
    call: Arc<dyn Covering<B>>,
    channel: Arc<ResponseChannel<B>>,
    state: ReadState,
    status: StatusCode,
    /// The announced length in bytes.
    length: Option<u64>,
    delivered: u64,
    /// The body's own, as of its last poll.
    size_hint: SizeHint,
    is_end_stream: bool,
    /// What came after the announced length: a frame, an error, or the end.
    peeked: Option<NextFrame<B>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum ReadState {
    /// The call is in flight.
    InFlight,
    /// The call has completed. The body may have more to say.
    Completed,
    /// The body was broken off, or panicked.
    BrokenOff,
}

impl<B: Body> CoveredBody<B> {
    // 1 allocation.
    pub(super) fn new(head: &Parts, body: B, call: Arc<dyn Covering<B>>, channel: Arc<ResponseChannel<B>>) -> Self {
        let this = Self {
            call,
            channel,
            state: ReadState::InFlight,
            status: head.status,
            length: announced_length(head, &body),
            delivered: 0,
            size_hint: body.size_hint(),
            is_end_stream: body.is_end_stream(),
            peeked: None,
        };
        // If a layer has broken it off already, the first poll returns the reason.
        drop(this.channel.keep_body(Box::pin(body), false));
        this
    }

    pub(super) fn is_in_flight(&self) -> bool {
        self.state == ReadState::InFlight
    }

    pub(super) fn is_end_stream(&self) -> bool {
        match &self.peeked {
            None => self.is_end_stream,
            Some(next) => next.is_none(),
        }
    }

    #[allow(clippy::clone_on_copy)] // not `Copy` in http-body 1.0
    pub(super) fn size_hint(&self) -> SizeHint {
        self.size_hint.clone()
    }

    fn has_delivered_all(&self) -> bool {
        self.length.is_some_and(|length| self.delivered >= length)
    }

    fn complete(&mut self, end: BodyEnd) {
        if self.state == ReadState::InFlight {
            self.state = ReadState::Completed;
            self.call.clone().complete(&self.channel, end);
        }
    }

    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>>
    where
        B::Error: Into<BoxError>,
    {
        if let Some(peeked) = self.peeked.take() {
            return Poll::Ready(self.deliver(peeked, cx).map(|frame| frame.map_err(Into::into)));
        }
        match self.state {
            ReadState::InFlight => self.call.clone().drive_without_runtime(),
            ReadState::Completed => {}
            ReadState::BrokenOff => return Poll::Ready(None),
        }
        match self.poll_body(cx) {
            Err(reason) => self.poll_broken_off(reason, cx),
            Ok(Poll::Ready(frame)) => Poll::Ready(self.deliver(frame, cx).map(|frame| frame.map_err(Into::into))),
            Ok(Poll::Pending) => {
                if self.is_in_flight() {
                    // The call may end before the body does, and wakes the reader then.
                    if let Poll::Ready(error) = self.call.poll_error(cx) {
                        return self.broken_off_by(error);
                    }
                }
                Poll::Pending
            }
        }
    }

    /// Polls the body, or returns why it was broken off.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Result<Poll<NextFrame<B>>, BrokenOff> {
        let mut body = self.channel.take_body()?;
        let guard = BreakOffOnPanic(self);
        let polled = body.as_mut().poll_frame(cx);
        (guard.0.size_hint, guard.0.is_end_stream) = (body.size_hint(), body.is_end_stream());
        mem::forget(guard);
        match self.channel.keep_body(body, polled.is_pending()) {
            Ok(()) => Ok(polled),
            Err((body, reason)) => {
                drop(body);
                Err(reason)
            }
        }
    }

    /// Counts a frame before the reader gets it, and completes the call if it is the last one.
    fn deliver(&mut self, frame: NextFrame<B>, cx: &mut Context<'_>) -> NextFrame<B> {
        self.find_end(&frame);
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.delivered = self.delivered.saturating_add(data.remaining() as u64);
            // Broken off: the next poll returns the reason.
            if self.is_in_flight()
                && self.has_delivered_all()
                && let Ok(Poll::Ready(next)) = self.poll_body(cx)
            {
                self.find_end(&next);
                self.peeked = Some(next);
            }
        }
        frame
    }

    /// Completes the call if this is the end of the body.
    fn find_end(&mut self, frame: &NextFrame<B>) {
        match frame {
            Some(Ok(frame)) => {
                if self.is_end_stream || frame.is_trailers() {
                    let trailers = frame.trailers_ref().cloned();
                    self.complete(BodyEnd { trailers, kind: EndKind::Complete });
                }
            }
            Some(Err(_)) => self.complete(BodyEnd::of_kind(EndKind::Broken)),
            None => self.complete(BodyEnd::default()),
        }
    }

    fn poll_broken_off(
        &mut self,
        reason: BrokenOff,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        match reason {
            BrokenOff::Unread => self.broken_off_by(Some(SlowReader(()).into())),
            // The layer that dropped the body is about to return its error.
            BrokenOff::ByLayer => {
                let error = ready!(self.call.poll_error(cx));
                self.broken_off_by(error)
            }
        }
    }

    fn broken_off_by(&mut self, error: Option<BoxError>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        self.state = ReadState::BrokenOff;
        let error = error.unwrap_or_else(|| "a layer broke the response's body off".into());
        Poll::Ready(Some(Err(error)))
    }
}

/// Ends the call if the body panics when it is polled: it has failed.
struct BreakOffOnPanic<'a, B: Body>(&'a mut CoveredBody<B>);

impl<B: Body> Drop for BreakOffOnPanic<'_, B> {
    fn drop(&mut self) {
        self.0.complete(BodyEnd::of_kind(EndKind::Broken));
        self.0.state = ReadState::BrokenOff;
    }
}

/// Ends the call of a body that was dropped, even if the drop of the body itself panics.
struct EndOnDrop<'a, B: Body>(&'a mut CoveredBody<B>);

impl<B: Body> Drop for EndOnDrop<'_, B> {
    fn drop(&mut self) {
        // The status may have decided already.
        let is_decided = verdict_for_status(self.0.status) != Verdict::Success;
        if is_decided || self.0.has_delivered_all() {
            self.0.complete(BodyEnd::default());
        } else {
            self.0.call.cancel();
        }
    }
}

impl<B: Body> Drop for CoveredBody<B> {
    fn drop(&mut self) {
        if self.is_in_flight() {
            let end = EndOnDrop(self);
            // The body first: its connection is free before the permit is.
            drop(end.0.channel.take_body());
        }
    }
}

/// The error of a body that was not read in time.
///
/// A time limit around the response has passed while the reader did not read: the service did not
/// cause the delay. The call was ignored by the classifiers of this crate, and has released what it
/// held.
#[derive(Debug, thiserror::Error)]
#[error("the response's body was not read within the call's time limit")]
pub struct SlowReader(());
