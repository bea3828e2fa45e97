//! Request bodies whose errors are recognized as the caller's.

use std::{
    error::Error as StdError,
    pin::Pin,
    task::{Context, Poll, ready},
};

use ::http::Request;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::{BoxError, error::take_lookup};

/// Implements `Error` for an error that is the caller's.
///
/// In a box whose lifetime is unknown, the outermost error cannot be downcast, only its sources
/// (`error::as_rejection`). So while this crate searches an error, the source of a caller's error
/// is [`CallersFault`].
macro_rules! caller_error {
    ($error:ty, |$this:ident, $f:ident| $display:expr, |$of:ident| $source:expr) => {
        impl std::fmt::Display for $error {
            fn fmt(&self, $f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let $this = self;
                $display
            }
        }

        impl std::error::Error for $error {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                let $of = self;
                $crate::http::caller::source_of_caller_error(|| $source)
            }
        }
    };
}

/// Marks the error that it is found in as the caller's.
#[derive(Debug, thiserror::Error)]
#[error("the caller's fault")]
pub(super) struct CallersFault;

pub(super) fn source_of_caller_error<'e>(
    source: impl FnOnce() -> Option<&'e (dyn StdError + 'static)>,
) -> Option<&'e (dyn StdError + 'static)> {
    if take_lookup() { Some(&CallersFault) } else { source() }
}

/// Marks the errors of request bodies as the caller's, for clients whose errors this crate does not
/// know.
///
/// In a proxy, a body is the upload of a remote client, which can break it off at any time. hyper,
/// hyper-util, reqwest and tonic tell such an error from their own, and
/// [`error_origin`](super::error_origin) asks them. Any other client, and a service that reads the
/// body itself, returns the body's error as if it were its own. Under this layer the body's errors
/// are [`CallerError`]s, which are [ignored](super::ErrorOrigin::Caller) wherever they are in a
/// chain of sources. Place it outside of the breaker. [`ReplayLayer`](super::ReplayLayer) does the
/// same.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_rampart::{circuit_breaker::CircuitBreaker, http::{CallerBodyLayer, HttpClassifier}};
///
/// let breaker = CircuitBreaker::new("storage");
/// let layers = ServiceBuilder::new()
///     .layer(CallerBodyLayer::new())
///     .layer(breaker.layer().classify(HttpClassifier::new()));
/// # let _ = layers;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct CallerBodyLayer {}

impl CallerBodyLayer {
    /// Creates the layer. It has no settings.
    pub const fn new() -> Self {
        Self {}
    }
}

impl<S> Layer<S> for CallerBodyLayer {
    type Service = MarkCallerBody<S>;

    fn layer(&self, inner: S) -> MarkCallerBody<S> {
        MarkCallerBody { inner }
    }
}

/// Service made by [`CallerBodyLayer`].
#[derive(Clone, Copy, Debug)]
pub struct MarkCallerBody<S> {
    inner: S,
}

service_access!(MarkCallerBody);

impl<S, B> Service<Request<B>> for MarkCallerBody<S>
where
    S: Service<Request<CallerBody<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> S::Future {
        self.inner.call(request.map(CallerBody::new))
    }
}

pin_project! {
    /// A request body whose errors are [`CallerError`]s. See [`CallerBodyLayer`].
    #[derive(Clone, Debug, Default)]
    pub struct CallerBody<B> {
        #[pin]
        body: B,
    }
}

impl<B> CallerBody<B> {
    /// Marks the errors of `body`.
    pub const fn new(body: B) -> Self {
        Self { body }
    }
}

impl<B> Body for CallerBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = CallerError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, CallerError>>> {
        let frame = ready!(self.project().body.poll_frame(cx));
        Poll::Ready(frame.map(|result| result.map_err(CallerError::new)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An error of the caller's own, such as that of the request's body.
///
/// An error that has it among its sources says nothing about the service
/// ([`ErrorOrigin::Caller`](super::ErrorOrigin::Caller)). The error that it wraps is its source.
#[derive(Debug)]
pub struct CallerError(BoxError);

caller_error!(CallerError, |_error, f| f.write_str("the caller's request failed"), |error| Some(&*error.0));

impl CallerError {
    /// Marks `error` as the caller's.
    pub fn new(error: impl Into<BoxError>) -> Self {
        Self(error.into())
    }

    /// Returns the error that was marked.
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}
