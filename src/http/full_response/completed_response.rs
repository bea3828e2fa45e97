use std::{fmt, marker::PhantomData};

use ::http::{HeaderMap, StatusCode};

use super::channel::{BodyEnd, EndKind};
use crate::http::ResponseHead;

/// A response whose body has ended, as seen by layers that cover the whole response: its head, its
/// trailers, and whether the body failed or was not read. The body itself went to the caller.
///
/// The classifiers of this module classify it.
pub struct CompletedResponse<B> {
    status: StatusCode,
    headers: HeaderMap,
    end: BodyEnd,
    body: PhantomData<fn() -> B>,
}

impl<B> CompletedResponse<B> {
    pub(super) fn new(status: StatusCode, headers: HeaderMap, end: BodyEnd) -> Self {
        Self { status, headers, end, body: PhantomData }
    }
}

impl<B> ResponseHead for CompletedResponse<B> {
    fn status(&self) -> StatusCode {
        self.status
    }

    fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    fn trailers(&self) -> Option<&HeaderMap> {
        self.end.trailers.as_ref()
    }

    fn is_broken(&self) -> bool {
        self.end.kind == EndKind::Broken
    }

    fn is_unread(&self) -> bool {
        self.end.kind == EndKind::Unread
    }
}

impl<B> fmt::Debug for CompletedResponse<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompletedResponse")
            .field("status", &self.status)
            .field("end", &self.end.kind)
            .finish_non_exhaustive()
    }
}
