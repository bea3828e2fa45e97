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
use crate::{
    classify::{Classify, Verdict},
    deadline,
    hold::Hold,
};

pin_project! {
    /// A call and its repetitions.
    ///
    /// Dropping it cancels the attempt that is running, or sends no further one.
    ///
    /// A failed response is dropped before the delay, since it may hold a connection. A failed attempt's error is kept
    /// until the next attempt is sent, and is the answer when that does not come to pass.
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
        #[pin]
        state: State<S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<F> {
        Attempt { #[pin] future: F },
        Sleeping { #[pin] sleep: Sleep },
        // The delay is over, the service must become ready.
        Waiting,
    }
}

impl<S: Service<Req>, Req, C, Q> ResponseFuture<S, Req, C, Q> {
    pub(super) fn new(call: Call<Hold<Site<S, C, Q>>>, attempt: S::Future, copy: Option<Req>) -> Self {
        Self { call, copy, service: None, error: None, state: State::Attempt { future: attempt } }
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
                    let idempotent =
                        || copy.as_ref().and_then(|copy| site.repeat.is_idempotent(copy)).unwrap_or(default);
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
                    State::Waiting
                }
                StateProj::Waiting => {
                    let service = this.service.get_or_insert_with(|| this.call.holder.service());
                    let (ready, refused) = match service.poll_ready(cx) {
                        Poll::Ready(Ok(())) => (true, None),
                        Poll::Ready(Err(error)) => (false, Some(error)),
                        Poll::Pending => (false, None),
                    };
                    let retry = this.call.holder.retry();
                    let give_up = refused.is_some()
                        || (!ready && retry.when_not_ready == WhenNotReady::GiveUp)
                        || retry.is_late(&this.call.course);
                    // The answer is then the last attempt's error. A failed response is gone: if that is what it was, and
                    // the service is merely late, the attempt is made after all.
                    if let Some(error) = give_up.then(|| this.error.take().or(refused)).flatten() {
                        this.call.finish(Verdict::Failure);
                        return Poll::Ready(Err(error));
                    }
                    if !ready {
                        return Poll::Pending;
                    }
                    let mut request = this.copy.take().expect("a retry needs a request");
                    let Call { holder: site, course, .. } = &mut *this.call;
                    let attempt = site.retry().sent(course);
                    if site.retry().may_repeat(course) {
                        *this.copy = site.repeat.duplicate(&request);
                    }
                    site.repeat.prepare(attempt, &mut request);
                    *this.error = None;
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
