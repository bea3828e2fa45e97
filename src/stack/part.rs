//! A layer that may be absent.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

/// A part of a stack: the layer, or nothing.
#[derive(Clone, Debug)]
pub struct Part<L>(pub(crate) Option<L>);

impl<L, S> Layer<S> for Part<L>
where
    L: Layer<S>,
{
    type Service = PartService<L::Service, S>;

    fn layer(&self, inner: S) -> Self::Service {
        match &self.0 {
            Some(layer) => PartService::Present { service: layer.layer(inner) },
            None => PartService::Absent { service: inner },
        }
    }
}

/// Service made by [`Part`]: the layer's, or the bare one.
#[derive(Clone, Debug)]
pub enum PartService<A, B> {
    /// The part is there.
    Present {
        /// The layer's service.
        service: A,
    },
    /// It is not.
    Absent {
        /// What it would be around.
        service: B,
    },
}

impl<A, B, Req> Service<Req> for PartService<A, B>
where
    A: Service<Req>,
    B: Service<Req, Response = A::Response, Error = A::Error>,
{
    type Response = A::Response;
    type Error = A::Error;
    type Future = PartFuture<A::Future, B::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), A::Error>> {
        match self {
            Self::Present { service } => service.poll_ready(cx),
            Self::Absent { service } => service.poll_ready(cx),
        }
    }

    fn call(&mut self, request: Req) -> Self::Future {
        match self {
            Self::Present { service } => PartFuture { state: State::Present { future: service.call(request) } },
            Self::Absent { service } => PartFuture { state: State::Absent { future: service.call(request) } },
        }
    }
}

pin_project! {
    /// Future of [`PartService`].
    pub struct PartFuture<A, B> {
        #[pin]
        state: State<A, B>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<A, B> {
        Present { #[pin] future: A },
        Absent { #[pin] future: B },
    }
}

impl<A, B> Future for PartFuture<A, B>
where
    A: Future,
    B: Future<Output = A::Output>,
{
    type Output = A::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A::Output> {
        match self.project().state.project() {
            StateProj::Present { future } => future.poll(cx),
            StateProj::Absent { future } => future.poll(cx),
        }
    }
}

impl<A, B> fmt::Debug for PartFuture<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartFuture").finish_non_exhaustive()
    }
}
