use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{timer::RearmableTimer, waits::Waits};
use crate::{BoxError, clock};

pin_project! {
    /// A request body that is limited in how long it may keep its call waiting. Made by
    /// [`UploadTimeoutLayer`](super::UploadTimeoutLayer).
    ///
    /// # Panics
    ///
    /// Polling a body that is not ready panics outside of a tokio runtime with time enabled.
    pub struct UploadBody<B> {
        #[pin]
        body: B,
        guard: WaitGuard,
        timer: RearmableTimer,
    }
}

/// The body's part of the call's waits.
struct WaitGuard {
    /// `None` for a body without data, and once the body has ended or failed.
    waits: Option<Arc<Waits>>,
    current: Option<UploadError>,
    is_over: bool,
}

impl WaitGuard {
    fn end_wait(&mut self) {
        if self.current.take().is_some()
            && let Some(waits) = &self.waits
        {
            waits.end(clock::nanos());
        }
    }
}

impl Drop for WaitGuard {
    fn drop(&mut self) {
        // A client may drop the body while it waits: when the response comes early, for example.
        self.end_wait();
    }
}

impl<B> UploadBody<B> {
    pub(super) fn new(body: B, waits: Option<Arc<Waits>>) -> Self {
        Self { body, guard: WaitGuard { waits, current: None, is_over: false }, timer: RearmableTimer::default() }
    }
}

impl<B> Body for UploadBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = UploadError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, UploadError>>> {
        let this = self.project();
        if this.guard.is_over {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            this.guard.end_wait();
            this.guard.is_over = !matches!(frame, Some(Ok(_)));
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| UploadError::Body(error.into()))));
        }
        let Some(waits) = &this.guard.waits else { return Poll::Pending };
        if this.guard.current.is_none() {
            let now = clock::nanos();
            let (limit, is_total) = waits.start(now);
            let after = Duration::from_nanos(limit);
            this.guard.current = Some(if is_total {
                UploadError::TooSlow(Duration::from_nanos(waits.longest()))
            } else {
                UploadError::Stalled(after)
            });
            this.timer.arm(now.saturating_add(limit));
        }
        ready!(this.timer.poll(cx));
        let error = this.guard.current.take();
        waits.end(clock::nanos());
        this.guard.is_over = true;
        Poll::Ready(error.map(Err))
    }

    fn is_end_stream(&self) -> bool {
        self.guard.is_over || self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> fmt::Debug for UploadBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadBody").field("waiting", &self.guard.current.is_some()).finish_non_exhaustive()
    }
}

/// Why an [`UploadBody`] failed. Each reason is the caller's: it says nothing about the service.
///
/// HTTP clients have it among the sources of their own errors, except over HTTP/2, where they
/// report a stream that they have reset.
#[derive(Debug)]
#[non_exhaustive]
pub enum UploadError {
    /// The caller sent nothing for this long.
    Stalled(Duration),
    /// The call has waited for the caller for this long in total.
    TooSlow(Duration),
    /// The body itself failed.
    Body(BoxError),
}

caller_error!(
    UploadError,
    |error, f| match error {
        Self::Stalled(after) => write!(f, "the caller sent nothing for {after:?}"),
        Self::TooSlow(after) => write!(f, "the caller took longer than {after:?} to send the request"),
        Self::Body(_) => f.write_str("the request's body failed"),
    },
    |error| if let Self::Body(source) = error { Some(&**source) } else { None }
);
