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

/// Responds to the rejections of a server's requests.
///
/// Implemented for closures of the rejection. Implement it for a type of your own if the response
/// depends on the request, as that to an HTTP HEAD does: the feature `http` has one that takes care
/// of it, `http::Responses`.
pub trait Responder<Req> {
    /// The response.
    type Response;
    /// Responds to the rejection of one request.
    type ForRequest: RespondOnce<Response = Self::Response>;

    /// Takes from the request, before it is sent, what the response depends on.
    fn for_request(&self, request: &Req) -> Self::ForRequest;
}

/// Responds to the rejection of one request. See [`Responder`].
pub trait RespondOnce {
    /// The response.
    type Response;

    /// Returns the response to the rejection.
    fn respond(self, rejection: Rejection) -> Self::Response;
}

impl<F, T> RespondOnce for F
where
    F: FnOnce(Rejection) -> T,
{
    type Response = T;

    fn respond(self, rejection: Rejection) -> T {
        self(rejection)
    }
}

impl<F, T, Req> Responder<Req> for F
where
    F: Fn(Rejection) -> T + Clone,
{
    type Response = T;
    type ForRequest = F;

    fn for_request(&self, _request: &Req) -> F {
        self.clone()
    }
}

impl<L, F> RespondLayer<L, F> {
    /// Wraps `layers`. `respond`, a [`Responder`], is called once for each rejection that they
    /// return.
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
    F: Responder<Req, Response = S::Response>,
{
    type Response = S::Response;
    type Error = E;
    type Future = RespondFuture<S::Future, F::ForRequest>;

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
        let respond = Some(self.respond.for_request(&request));
        let state = match self.rejected.take() {
            None => RespondState::Calling { inner: self.inner.call(request) },
            Some(rejection) => RespondState::Rejected { rejection: Some(rejection) },
        };
        RespondFuture { state, respond }
    }
}

pin_project! {
    /// Future of [`Respond`].
    pub struct RespondFuture<Fut, F> {
        #[pin]
        state: RespondState<Fut>,
        respond: Option<F>,
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
    F: RespondOnce<Response = T>,
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
            Err(Error::Rejected(rejection)) => {
                Ok(this.respond.take().expect("polled after completion").respond(rejection))
            }
            Err(Error::Service(error)) => Err(error),
        })
    }
}
