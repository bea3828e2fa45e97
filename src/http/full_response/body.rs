use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use ::http::StatusCode;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{
    channel::{BodyEnd, ResponseChannel},
    completed_response::CompletedResponse,
};
use crate::{BoxError, classify::Verdict, http::classify::verdict_for_status};

pin_project! {
    /// A response body covered by layers to its end. It carries the layers' call, `F`, until then.
    ///
    /// `From<String>` and `Default` make a body that carries no call, for responses made from
    /// rejections.
    pub struct FullResponseBody<F, B>
    where
        F: Future,
    {
        #[pin]
        body: B,
        covered: CallGuard<F, B>,
    }
}

/// The layers' call, and the channel that tells it how the body ended.
pub(super) struct CoveredCall<F, B> {
    pub(super) call: Pin<Box<F>>,
    pub(super) channel: Arc<ResponseChannel<B>>,
}

/// Completes or cancels the layers' call when the body is dropped before its end.
struct CallGuard<F: Future, B> {
    in_flight: Option<CoveredCall<F, B>>,
    status: StatusCode,
}

impl<F: Future, B> CallGuard<F, B> {
    /// Completes the call, because the body has ended.
    fn complete(&mut self, end: BodyEnd) -> Option<F::Output> {
        let CoveredCall { mut call, channel } = self.in_flight.take()?;
        channel.send_body_end(end);
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            // A layer that does not complete with its inner service. Dropping the call here cancels
            // it.
            Poll::Pending => None,
        }
    }
}

impl<F: Future, B> Drop for CallGuard<F, B> {
    fn drop(&mut self) {
        // A body dropped before its end cancels the call, unless the status already made it a
        // failure.
        if !std::thread::panicking() && verdict_for_status(self.status) != Verdict::Success {
            self.complete(BodyEnd::default());
        }
    }
}

impl<F: Future, B> FullResponseBody<F, B> {
    pub(super) fn new(body: B, call: Option<CoveredCall<F, B>>, status: StatusCode) -> Self {
        Self { body, covered: CallGuard { in_flight: call, status } }
    }

    fn without_call(body: B) -> Self {
        Self::new(body, None, StatusCode::OK)
    }
}

impl<F: Future, B: From<String>> From<String> for FullResponseBody<F, B> {
    fn from(text: String) -> Self {
        Self::without_call(text.into())
    }
}

impl<F: Future, B: Default> Default for FullResponseBody<F, B> {
    fn default() -> Self {
        Self::without_call(B::default())
    }
}

impl<F, B, E> Body for FullResponseBody<F, B>
where
    F: Future<Output = Result<CompletedResponse<B>, E>>,
    B: Body,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                // The reader may not poll again after the last frame.
                if this.body.is_end_stream() || frame.is_trailers() {
                    let trailers = frame.trailers_ref().cloned();
                    this.covered.complete(BodyEnd { trailers, is_broken: false });
                }
            }
            Poll::Ready(Some(Err(_))) => drop(this.covered.complete(BodyEnd { trailers: None, is_broken: true })),
            Poll::Ready(None) => drop(this.covered.complete(BodyEnd::default())),
            Poll::Pending => {}
        }
        // Polling the call keeps the layers' timers running while the body is in flight.
        if let Some(covered) = &mut this.covered.in_flight
            && let Poll::Ready(output) = covered.call.as_mut().poll(cx)
        {
            this.covered.in_flight = None;
            if let Err(error) = output {
                return Poll::Ready(Some(Err(error.into())));
            }
        }
        polled.map(|frame| frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: Future, B> fmt::Debug for FullResponseBody<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FullResponseBody").field("status", &self.covered.status).finish_non_exhaustive()
    }
}
