//! Futures of [`BulkheadService`](super::BulkheadService).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::inner::{Acquire, Call, Inner};
use crate::{
    classify::{Classify, ResultClassifier},
    error::Rejection,
    hold::Hold,
};

pin_project! {
    /// A call that was let in, or refused.
    ///
    /// The permit comes home when the call ends or when the future is dropped, whichever is first.
    pub struct ResponseFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Calling {
            #[pin]
            future: F,
            call: Call<Hold<Inner>>,
        },
        Rejected {
            rejection: Option<Rejection>,
        },
    }
}

impl<F> ResponseFuture<F> {
    pub(super) fn calling(future: F, call: Call<Hold<Inner>>) -> Self {
        Self { state: State::Calling { future, call } }
    }

    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self { state: State::Rejected { rejection: Some(rejection) } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Calling { future, call } => {
                let result = ready!(future.poll(cx));
                call.finish(ResultClassifier.classify(result.as_ref()));
                Poll::Ready(result)
            }
            StateProj::Rejected { rejection } => {
                Poll::Ready(Err(rejection.take().expect("polled after it ended").into()))
            }
        }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

pin_project! {
    /// A call that waits for its permit first, if it has to.
    ///
    /// Dropping it while it waits leaves the queue; the request was never sent.
    pub struct WaitFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: WaitState<S, Req, S::Future>,
    }
}

pin_project! {
    #[project = WaitStateProj]
    enum WaitState<S, Req, F> {
        Waiting {
            #[pin]
            acquire: Acquire<Hold<Inner>>,
            service: S,
            request: Option<Req>,
        },
        Responding {
            #[pin]
            response: ResponseFuture<F>,
        },
    }
}

impl<S: Service<Req>, Req> WaitFuture<S, Req> {
    pub(super) fn calling(future: S::Future, call: Call<Hold<Inner>>) -> Self {
        Self { state: WaitState::Responding { response: ResponseFuture::calling(future, call) } }
    }

    pub(super) fn rejected(rejection: Rejection) -> Self {
        Self { state: WaitState::Responding { response: ResponseFuture::rejected(rejection) } }
    }

    pub(super) fn waiting(service: S, request: Req, acquire: Acquire<Hold<Inner>>) -> Self {
        Self { state: WaitState::Waiting { acquire, service, request: Some(request) } }
    }
}

impl<S, Req> Future for WaitFuture<S, Req>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let response = match this.state.as_mut().project() {
                WaitStateProj::Responding { response } => return response.poll(cx),
                WaitStateProj::Waiting { acquire, service, request } => match ready!(acquire.poll(cx)) {
                    Ok(call) => {
                        let request = request.take().expect("polled after it ended");
                        ResponseFuture::calling(service.call(request), call)
                    }
                    Err(rejection) => ResponseFuture::rejected(rejection),
                },
            };
            this.state.set(WaitState::Responding { response });
        }
    }
}

impl<S: Service<Req>, Req> fmt::Debug for WaitFuture<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFuture").finish_non_exhaustive()
    }
}
