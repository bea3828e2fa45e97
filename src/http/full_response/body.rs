use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use ::http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{channel::ResponseChannel, covered_body::CoveredBody, covered_call::Covering};
use crate::BoxError;

pin_project! {
    /// A response body covered by layers to its end. It carries the layers' call until then.
    ///
    /// `From<String>` and `Default` make a body that carries no call, for responses made from
    /// rejections.
    pub struct FullResponseBody<B>
    where
        B: Body,
    {
        #[pin]
        kind: BodyKind<B>,
    }
}

pin_project! {
    #[project = BodyKindProj]
    enum BodyKind<B>
    where
        B: Body,
    {
        // The call is over, or there was none.
        Uncovered { #[pin] body: B },
        Covered { reader: CoveredBody<B> },
    }
}

impl<B: Body> FullResponseBody<B> {
    pub(super) fn uncovered(body: B) -> Self {
        Self { kind: BodyKind::Uncovered { body } }
    }

    pub(super) fn covered(head: &Parts, body: B, call: Arc<dyn Covering<B>>, channel: Arc<ResponseChannel<B>>) -> Self {
        Self { kind: BodyKind::Covered { reader: CoveredBody::new(head, body, call, channel) } }
    }
}

impl<B: Body + From<String>> From<String> for FullResponseBody<B> {
    fn from(text: String) -> Self {
        Self::uncovered(text.into())
    }
}

impl<B: Body + Default> Default for FullResponseBody<B> {
    fn default() -> Self {
        Self::uncovered(B::default())
    }
}

impl<B> Body for FullResponseBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        match self.project().kind.project() {
            BodyKindProj::Uncovered { body } => {
                body.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Into::into)))
            }
            BodyKindProj::Covered { reader } => reader.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            BodyKind::Uncovered { body } => body.is_end_stream(),
            BodyKind::Covered { reader } => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            BodyKind::Uncovered { body } => body.size_hint(),
            BodyKind::Covered { reader } => reader.size_hint(),
        }
    }
}

impl<B: Body> fmt::Debug for FullResponseBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_covered = matches!(&self.kind, BodyKind::Covered { reader } if reader.is_in_flight());
        f.debug_struct("FullResponseBody").field("in_flight", &is_covered).finish_non_exhaustive()
    }
}
