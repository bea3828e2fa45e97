use std::{any::Any, fmt, ops::Deref, sync::Arc};

use ::http::{HeaderMap, Method};

use crate::http::RequestHead;

/// A request that passes through layers covering the whole response.
///
/// Dereferences to the request, for layers that inspect it. Not `Clone`: it is sent once.
pub struct TrackedRequest<Req> {
    pub(super) request: Req,
    /// A `ResponseChannel`. Its type is erased because the request does not know the response's
    /// body.
    pub(super) channel: Arc<dyn Any + Send + Sync>,
}

impl<Req> Deref for TrackedRequest<Req> {
    type Target = Req;

    fn deref(&self) -> &Req {
        &self.request
    }
}

impl<Req: RequestHead> RequestHead for TrackedRequest<Req> {
    fn method(&self) -> &Method {
        self.request.method()
    }

    fn headers(&self) -> &HeaderMap {
        self.request.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.request.headers_mut()
    }
}

impl<Req> fmt::Debug for TrackedRequest<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackedRequest").finish_non_exhaustive()
    }
}
