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
    CompletedResponse,
    inside::{End, Slot},
};
use crate::{BoxError, classify::Verdict, http::classify::usual};

pin_project! {
    /// Body of a response that layers cover to its end: it carries their call, `F`, along.
    ///
    /// `From<String>` and `Default` make one that stands alone, for responses made of rejections.
    pub struct FullResponseBody<F, B>
    where
        F: Future,
    {
        #[pin]
        body: B,
        call: Covering<F, B>,
    }
}

/// The call of the layers, and where it learns of the body's end.
type Carried<F, B> = (Pin<Box<F>>, Arc<Slot<B>>);

/// The call of the layers, while the body lasts.
struct Covering<F: Future, B> {
    call: Option<Carried<F, B>>,
    status: StatusCode,
}

impl<F: Future, B> Covering<F, B> {
    /// The body has ended: so does the call.
    fn end(&mut self, end: End) -> Option<F::Output> {
        let (mut call, slot) = self.call.take()?;
        slot.end(end);
        match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            // A layer that does not end with what it holds; dropped, the call is cancelled.
            Poll::Pending => None,
        }
    }
}

impl<F: Future, B> Drop for Covering<F, B> {
    fn drop(&mut self) {
        // Dropped unread. With a good status the call is cancelled; a failed one has failed.
        if !std::thread::panicking() && usual(self.status) != Verdict::Success {
            self.end(End::default());
        }
    }
}

impl<F: Future, B> FullResponseBody<F, B> {
    pub(super) fn new(body: B, call: Option<Carried<F, B>>, status: StatusCode) -> Self {
        Self { body, call: Covering { call, status } }
    }

    /// A body that no call goes with.
    fn alone(body: B) -> Self {
        Self::new(body, None, StatusCode::OK)
    }
}

impl<F: Future, B: From<String>> From<String> for FullResponseBody<F, B> {
    fn from(text: String) -> Self {
        Self::alone(text.into())
    }
}

impl<F: Future, B: Default> Default for FullResponseBody<F, B> {
    fn default() -> Self {
        Self::alone(B::default())
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
                // Whoever reads it may not poll again after this.
                if this.body.is_end_stream() || frame.is_trailers() {
                    this.call.end(End { trailers: frame.trailers_ref().cloned(), broken: false });
                }
            }
            Poll::Ready(Some(Err(_))) => drop(this.call.end(End { trailers: None, broken: true })),
            Poll::Ready(None) => drop(this.call.end(End::default())),
            Poll::Pending => {}
        }
        // While it lasts, so do the layers' timers.
        if let Some((call, _)) = &mut this.call.call
            && let Poll::Ready(output) = call.as_mut().poll(cx)
        {
            this.call.call = None;
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
        f.debug_struct("FullResponseBody").field("status", &self.call.status).finish_non_exhaustive()
    }
}
