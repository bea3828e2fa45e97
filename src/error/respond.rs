use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::{AdaptError, Error, Rejection};

/// Wraps a whole stack of layers around a server: rejections become responses, and the error type
/// stays the server's.
///
/// A server such as axum must not fail (`Error = Infallible`), and hyper closes the connection of a
/// service that does. So the stack is built over an [`AdaptError`] of the server, whose error can
/// hold a rejection. On the outside `respond` turns each [`Rejection`] into a response, and the
/// server's own errors pass unchanged.
///
/// ```
/// use tower_layer::Identity;
/// use tower_rampart::{Rejection, RespondLayer};
///
/// let stack = Identity::new(); // any layers of this crate
/// let layer = RespondLayer::new(stack, |rejection: Rejection| format!("503 {rejection}"));
/// # let _ = layer;
/// ```
#[derive(Clone, Copy)]
pub struct RespondLayer<L, F> {
    layers: L,
    respond: F,
}

impl<L, F> RespondLayer<L, F> {
    /// Wraps `layers`. `respond` is called once for each rejection that they return.
    pub const fn new(layers: L, respond: F) -> Self {
        Self { layers, respond }
    }
}

impl<S, L, F> Layer<S> for RespondLayer<L, F>
where
    L: Layer<AdaptError<S>>,
    F: Clone,
{
    type Service = Respond<L::Service, F>;

    fn layer(&self, inner: S) -> Self::Service {
        Respond { inner: self.layers.layer(AdaptError::new(inner)), respond: self.respond.clone(), rejected: None }
    }
}

impl<L: fmt::Debug, F> fmt::Debug for RespondLayer<L, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespondLayer").field("layers", &self.layers).finish_non_exhaustive()
    }
}

/// Service made by [`RespondLayer`].
pub struct Respond<S, F> {
    inner: S,
    respond: F,
    /// A rejection from `poll_ready`, which the next `call` responds to. No layer of this crate
    /// returns one there, but a foreign layer may.
    rejected: Option<Rejection>,
}

impl<S: Clone, F: Clone> Clone for Respond<S, F> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), respond: self.respond.clone(), rejected: None }
    }
}

impl<S: fmt::Debug, F> fmt::Debug for Respond<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Respond").field("inner", &self.inner).finish_non_exhaustive()
    }
}

service_access!(Respond, F);

impl<S, F, E, Req> Service<Req> for Respond<S, F>
where
    S: Service<Req, Error = Error<E>>,
    F: Fn(Rejection) -> S::Response + Clone,
{
    type Response = S::Response;
    type Error = E;
    type Future = RespondFuture<S::Future, F>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), E>> {
        if self.rejected.is_some() {
            // A stack that failed its readiness must not be polled again, and a service that is
            // ready stays ready.
            return Poll::Ready(Ok(()));
        }
        match ready!(self.inner.poll_ready(cx)) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(Error::Rejected(rejection)) => {
                self.rejected = Some(rejection);
                Poll::Ready(Ok(()))
            }
            Err(Error::Service(error)) => Poll::Ready(Err(error)),
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let state = match self.rejected.take() {
            None => RespondState::Calling { inner: self.inner.call(request) },
            Some(rejection) => RespondState::Rejected { rejection: Some(rejection) },
        };
        RespondFuture { state, respond: self.respond.clone() }
    }
}

pin_project! {
    /// Future of [`Respond`].
    pub struct RespondFuture<Fut, F> {
        #[pin]
        state: RespondState<Fut>,
        respond: F,
    }
}

pin_project! {
    #[project = RespondStateProj]
    enum RespondState<Fut> {
        Calling { #[pin] inner: Fut },
        Rejected { rejection: Option<Rejection> },
    }
}

impl<Fut, F> fmt::Debug for RespondFuture<Fut, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RespondFuture").finish_non_exhaustive()
    }
}

impl<Fut, F, T, E> Future for RespondFuture<Fut, F>
where
    Fut: Future<Output = Result<T, Error<E>>>,
    F: Fn(Rejection) -> T,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = match this.state.project() {
            RespondStateProj::Calling { inner } => ready!(inner.poll(cx)),
            RespondStateProj::Rejected { rejection } => {
                Err(Error::Rejected(rejection.take().expect("polled after completion")))
            }
        };
        Poll::Ready(match result {
            Ok(response) => Ok(response),
            Err(Error::Rejected(rejection)) => Ok((this.respond)(rejection)),
            Err(Error::Service(error)) => Err(error),
        })
    }
}
