//! Future of [`RetryService`](super::RetryService).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;
use tower_service::Service;

use super::{
    Repeat, WhenNotReady,
    inner::{Call, Next, Retrying},
    service::Site,
};
use crate::{classify::Classify, deadline, hold::Hold};

pin_project! {
    /// A call and its repetitions.
    ///
    /// Dropping it cancels the attempt that is running, or sends no further one.
    ///
    /// A failed response is dropped before the delay, since it may hold a connection. A failed attempt's error is kept
    /// until the next attempt is sent, and is the answer when that does not come to pass: because the service fails to
    /// become ready, or does not in time. Where there was a response and no error, the attempt is then made late, or
    /// the answer is the error that the service's readiness failed with.
    pub struct ResponseFuture<S, Req, C, Q>
    where
        S: Service<Req>,
    {
        call: Call<Hold<Site<S, C, Q>>>,
        // A copy of the request for the next attempt.
        copy: Option<Req>,
        // The service for the next attempt, once there was a failure.
        service: Option<S>,
        // The last attempt's error.
        error: Option<S::Error>,
        // What the request says of itself, when there is no copy to ask: set with the last attempt.
        idempotent: Option<bool>,
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Attempt { #[pin] future: F },
        Sleeping { #[pin] sleep: Sleep },
        // The delay is over, the service must become ready, until the deadline if there is one.
        Waiting { #[pin] expiry: Option<Sleep> },
    }
}

impl<S: Service<Req>, Req, C, Q> ResponseFuture<S, Req, C, Q> {
    pub(super) fn new(call: Call<Hold<Site<S, C, Q>>>, attempt: S::Future, copy: Option<Req>) -> Self {
        Self { call, copy, service: None, error: None, idempotent: None, state: State::Attempt { future: attempt } }
    }
}

impl<S, Req, C, Q> Future for ResponseFuture<S, Req, C, Q>
where
    S: Service<Req> + Clone,
    C: Classify<S::Response, S::Error>,
    Q: Repeat<Req>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Attempt { future } => {
                    let (polled, exhausted) = deadline::watch_exhausted(|| future.poll(cx));
                    let result = ready!(polled);
                    let Call { holder: site, course, .. } = &mut *this.call;
                    let copy = &*this.copy;
                    let default = site.retry().idempotent;
                    let declared = *this.idempotent;
                    let idempotent =
                        || copy.as_ref().map_or(declared, |copy| site.repeat.is_idempotent(copy)).unwrap_or(default);
                    let next = site.retry().judge(
                        course,
                        &site.classify,
                        result.as_ref(),
                        copy.is_some(),
                        idempotent,
                        exhausted,
                    );
                    match next {
                        Next::Answer(verdict) => {
                            // Whoever keeps the future after its end keeps neither the request nor a service.
                            (*this.copy, *this.service) = (None, None);
                            this.call.finish(verdict);
                            return Poll::Ready(result);
                        }
                        Next::Retry(delay) => {
                            *this.error = result.err();
                            State::Sleeping { sleep: tokio::time::sleep(delay) }
                        }
                    }
                }
                StateProj::Sleeping { sleep } => {
                    ready!(sleep.poll(cx));
                    State::Waiting { expiry: None }
                }
                StateProj::Waiting { mut expiry } => {
                    let Call { holder: site, course, .. } = &mut *this.call;
                    let retry = site.retry();
                    let service = this.service.get_or_insert_with(|| site.service());
                    // Lateness comes first: a service that is not going to be called should not reserve anything.
                    let instead = if this.error.is_some() && retry.is_late(course) {
                        this.error.take()
                    } else {
                        match service.poll_ready(cx) {
                            Poll::Ready(Ok(())) => None,
                            Poll::Ready(Err(refused)) => Some(this.error.take().unwrap_or(refused)),
                            // A failed response is gone: there is nothing else to answer with, so wait.
                            Poll::Pending if this.error.is_none() => return Poll::Pending,
                            Poll::Pending => {
                                if retry.when_not_ready == WhenNotReady::Wait {
                                    let Some(deadline) = course.deadline() else { return Poll::Pending };
                                    if expiry.is_none() {
                                        expiry.set(Some(tokio::time::sleep_until(deadline)));
                                    }
                                    if let Some(expiry) = expiry.as_pin_mut() {
                                        ready!(expiry.poll(cx));
                                    }
                                }
                                this.error.take()
                            }
                        }
                    };
                    if let Some(error) = instead {
                        (*this.copy, *this.service) = (None, None);
                        this.call.give_up();
                        return Poll::Ready(Err(error));
                    }
                    let mut request = this.copy.take().expect("a retry needs a request");
                    let attempt = course.next();
                    if attempt < retry.max_attempts() {
                        *this.copy = site.repeat.duplicate(&request);
                    } else {
                        *this.idempotent = site.repeat.is_idempotent(&request);
                    }
                    site.repeat.prepare(attempt, &mut request);
                    *this.error = None;
                    course.sent();
                    State::Attempt { future: service.call(request) }
                }
            };
            this.state.set(next);
        }
    }
}

impl<S: Service<Req>, Req, C, Q> fmt::Debug for ResponseFuture<S, Req, C, Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
