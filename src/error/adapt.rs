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

/// The innermost layer around a service with a foreign error: turns `E` into [`Error<E>`].
///
/// ```
/// use tower_layer::Layer;
/// use tower_rampart::{AdaptErrorLayer, Error};
///
/// // `reqwest::Client` fails with `reqwest::Error`; the adapted service with `Error<reqwest::Error>`.
/// let client = AdaptErrorLayer::new().layer(reqwest::Client::new());
/// # let _ = client;
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct AdaptErrorLayer {}

impl AdaptErrorLayer {
    /// The layer; it has no settings.
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
    /// Adapts the error of `inner`.
    pub const fn new(inner: S) -> Self {
        Self { inner }
    }

    /// The service within.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service within, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// Takes the service out again.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

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

/// [`AdaptErrorLayer`] for a single future: `breaker.run(adapt(client.get(url).send()))`.
pub async fn adapt<T, E>(future: impl Future<Output = Result<T, E>>) -> Result<T, Error<E>> {
    future.await.map_err(Error::Service)
}
