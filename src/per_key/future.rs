use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

pin_project! {
    /// Future of [`PerKeyService`](super::PerKeyService): waits until the key's layer is ready,
    /// then calls through it.
    pub struct PerKeyFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: PerKeyState<S, Req, S::Future>,
    }
}

pin_project! {
    #[project = PerKeyStateProj]
    enum PerKeyState<S, Req, F> {
        WaitingForReady { service: S, request: Option<Req> },
        Calling { #[pin] future: F },
    }
}

impl<S: Service<Req>, Req> PerKeyFuture<S, Req> {
    pub(super) fn new(service: S, request: Req) -> Self {
        Self { state: PerKeyState::WaitingForReady { service, request: Some(request) } }
    }
}

impl<S: Service<Req>, Req> Future for PerKeyFuture<S, Req> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let future = match this.state.as_mut().project() {
                PerKeyStateProj::Calling { future } => return future.poll(cx),
                PerKeyStateProj::WaitingForReady { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    service.call(request.take().expect("polled after completion"))
                }
            };
            this.state.set(PerKeyState::Calling { future });
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for PerKeyFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKeyFuture").finish_non_exhaustive()
    }
}
