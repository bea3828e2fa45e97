use ::http::{Extensions, HeaderMap, Method, Request, Response, StatusCode};

/// Read access to a response's head and trailers, for classifiers and for layers that read hints.
pub trait ResponseHead {
    /// Returns the status.
    fn status(&self) -> StatusCode;

    /// Returns the headers.
    fn headers(&self) -> &HeaderMap;

    /// Returns the trailers, if the body has ended and had any.
    fn trailers(&self) -> Option<&HeaderMap> {
        None
    }

    /// Returns whether the body broke off with an error.
    fn is_broken(&self) -> bool {
        false
    }

    /// Returns whether the body was broken off because its reader did not read it in time, which is
    /// no fault of the service's.
    fn is_unread(&self) -> bool {
        false
    }

    /// Returns whether the client may have made other exchanges for the call before the one that
    /// this is the response of, such as one that was answered with a redirect.
    ///
    /// `true` for `reqwest::Response` and, with the feature `tower-http`, for an `http::Response`
    /// that has passed a `FollowRedirect` layer.
    fn may_follow_others(&self) -> bool {
        false
    }

    /// Returns the extensions, if there are any. A retry that stops marks its response there.
    fn extensions(&self) -> Option<&Extensions> {
        None
    }

    /// Returns the extensions, mutably.
    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        None
    }
}

/// The mark of a response with which a retry has stopped.
#[derive(Clone, Copy)]
struct Exhausted;

pub(super) fn mark_exhausted(extensions: &mut Extensions) {
    extensions.insert(Exhausted);
}

pub(super) fn is_exhausted(extensions: &Extensions) -> bool {
    extensions.get::<Exhausted>().is_some()
}

impl<B> ResponseHead for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    #[cfg(feature = "tower-http")]
    fn may_follow_others(&self) -> bool {
        // The layer adds it to every response, and reqwest has the layer inside. Comparing the URI
        // with the request's would not do: a POST is often redirected to its own URI.
        self.extensions().get::<tower_http::follow_redirect::RequestUri>().is_some()
    }

    fn extensions(&self) -> Option<&Extensions> {
        Some(self.extensions())
    }

    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        Some(self.extensions_mut())
    }
}

#[cfg(feature = "reqwest")]
impl ResponseHead for reqwest::Response {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn may_follow_others(&self) -> bool {
        true
    }

    fn extensions(&self) -> Option<&Extensions> {
        Some(self.extensions())
    }

    fn extensions_mut(&mut self) -> Option<&mut Extensions> {
        Some(self.extensions_mut())
    }
}

/// Access to a request's head.
pub trait RequestHead {
    /// Returns the method.
    fn method(&self) -> &Method;

    /// Returns the headers.
    fn headers(&self) -> &HeaderMap;

    /// Returns the headers, mutably.
    fn headers_mut(&mut self) -> &mut HeaderMap;
}

impl<B> RequestHead for Request<B> {
    fn method(&self) -> &Method {
        self.method()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}

#[cfg(feature = "reqwest")]
impl RequestHead for reqwest::Request {
    fn method(&self) -> &Method {
        self.method()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
    }

    fn headers_mut(&mut self) -> &mut HeaderMap {
        self.headers_mut()
    }
}
