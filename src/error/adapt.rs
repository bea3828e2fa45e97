use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::Error;

/// Turns a foreign error `E` into [`Error<E>`]. This is the innermost layer, directly around the
/// service.
///
/// ```
/// use tower_layer::Layer;
/// use tower_rampart::{AdaptErrorLayer, Error};
///
/// // `reqwest::Client` fails with `reqwest::Error`, the adapted service with `Error<reqwest::Error>`.
/// let client = AdaptErrorLayer::new().layer(reqwest::Client::new());
/// # let _ = client;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct AdaptErrorLayer {}

impl AdaptErrorLayer {
    /// Creates the layer. It has no settings.
    pub const fn new() -> Self {
        Self {}
    }
}

impl<S> Layer<S> for AdaptErrorLayer {
    type Service = AdaptError<S>;

    fn layer(&self, inner: S) -> AdaptError<S> {
        AdaptError::new(inner)
    }
}

/// Service made by [`AdaptErrorLayer`].
#[derive(Clone, Copy, Debug)]
pub struct AdaptError<S> {
    inner: S,
}

impl<S> AdaptError<S> {
    /// Wraps `inner`.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }
}

service_access!(AdaptError);

impl<S, Req> Service<Req> for AdaptError<S>
where
    S: Service<Req>,
{
    type Response = S::Response;
    type Error = Error<S::Error>;
    type Future = AdaptFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Error::Service)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        AdaptFuture { inner: self.inner.call(request) }
    }
}

pin_project! {
    /// Future of [`AdaptError`].
    pub struct AdaptFuture<F> {
        #[pin]
        inner: F,
    }
}

impl<F> fmt::Debug for AdaptFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdaptFuture").finish_non_exhaustive()
    }
}

impl<F, T, E> Future for AdaptFuture<F>
where
    F: Future<Output = Result<T, E>>,
{
    type Output = Result<T, Error<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(ready!(self.project().inner.poll(cx)).map_err(Error::Service))
    }
}

/// Turns the foreign error of a single future into [`Error<E>`]:
/// `breaker.run(adapt(client.get(url).send()))`.
pub async fn adapt<T, E>(future: impl Future<Output = Result<T, E>>) -> Result<T, Error<E>> {
    future.await.map_err(Error::Service)
}
