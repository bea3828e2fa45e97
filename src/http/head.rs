use ::http::{HeaderMap, Method, Request, Response, StatusCode};

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
}

impl<B> ResponseHead for Response<B> {
    fn status(&self) -> StatusCode {
        self.status()
    }

    fn headers(&self) -> &HeaderMap {
        self.headers()
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
