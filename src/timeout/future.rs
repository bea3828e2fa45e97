//! Future of [`TimeoutService`](super::TimeoutService).

use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::{Instant, Sleep},
};

use super::{
    Timeout,
    handle::{Inner, duration_of},
};
use crate::{
    classify::{Classify, ResultClassifier, Verdict},
    clock,
    deadline::{self, Limit},
    error::Rejection,
    event::EventKind,
    hold::Hold,
    state::time::nanos_of,
};

pin_project! {
    /// A call with a limit of time.
    ///
    /// When the limit is reached the inner future is dropped first, and the error is returned then.
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
            // Registered when the inner future is pending for the first time. Not subject to tokio's cooperative
            // budget: an inner future that uses it up at each poll would starve the timer.
            #[pin]
            sleep: Option<Unconstrained<Sleep>>,
            limit: Limit,
            // What the rejection reports, in nanoseconds.
            after: u64,
            call: Call,
        },
        Late {
            rejection: Option<Rejection>,
        },
    }
}

impl<F> ResponseFuture<F> {
    /// `after` in nanoseconds, or [`NEVER`](deadline::NEVER).
    #[inline]
    pub(super) fn begin(timeout: &Timeout, after: u64, start: impl FnOnce() -> F) -> Self {
        let mut call = Call::begin(timeout);
        let (mut limit, mut after) = (Limit::Within(after), after);
        // A deadline from outside that nobody but us will enforce.
        if let Some(at) = deadline::advised() {
            let now = clock::instant();
            let left = nanos_of(at.saturating_duration_since(now));
            if left == 0 {
                return Self { state: State::Late { rejection: Some(call.give_up(after, false)) } };
            }
            if left < after {
                (limit, after) = (Limit::Until(Some(at)), left);
            }
        }
        call.admit();
        let future = limit.enter(start);
        Self { state: State::Calling { future, sleep: None, limit, after, call } }
    }
}

impl<F, T, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let (mut call, after) = match state.as_mut().project() {
            StateProj::Late { rejection } => {
                return Poll::Ready(Err(rejection.take().expect("polled after it ended").into()));
            }
            StateProj::Calling { future, mut sleep, limit, after, call } => {
                // A response that is there wins over the timer.
                if let Poll::Ready(result) = limit.enter(|| future.poll(cx)) {
                    call.finish(ResultClassifier.classify(result.as_ref()));
                    return Poll::Ready(result);
                }
                if *after != 0 {
                    if sleep.is_none() {
                        let mut deadline = limit.deadline();
                        // A deadline from outside may have been put around the call after it was made.
                        if let Some(at) = deadline::advised()
                            && deadline.is_none_or(|own| at < own)
                        {
                            *after = nanos_of(at.saturating_duration_since(clock::instant()));
                            deadline = Some(at);
                        }
                        let Some(deadline) = deadline else { return Poll::Pending };
                        sleep.set(Some(unconstrained(tokio::time::sleep_until(deadline))));
                    }
                    if let Some(sleep) = sleep.as_pin_mut() {
                        ready!(sleep.poll(cx));
                    }
                }
                (Call(call.0.take()), *after)
            }
        };
        // Drops the inner future before anybody hears of it: what it held is free by then, even if the observer panics.
        state.set(State::Late { rejection: None });
        Poll::Ready(Err(call.give_up(after, true).into()))
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// One call. Dropping it before it ended is its cancellation.
struct Call(Option<Voice>);

/// What a call needs of its timeout: a name that is free to copy, unless somebody listens.
enum Voice {
    Quiet(&'static str),
    Held { inner: Hold<Inner>, started: Option<Instant> },
}

impl Call {
    #[inline]
    fn begin(timeout: &Timeout) -> Self {
        let tell = &timeout.0.tell;
        Self(Some(match tell.name().as_static() {
            Some(name) if !tell.is_on() => Voice::Quiet(name),
            _ => Voice::Held { inner: timeout.0.hold(), started: tell.is_on().then(clock::instant) },
        }))
    }

    #[inline]
    fn admit(&self) {
        if let Some(Voice::Held { inner, .. }) = &self.0 {
            inner.tell.event(|| EventKind::Admitted);
        }
    }

    #[inline]
    fn finish(&mut self, verdict: Verdict) {
        if let Some(Voice::Held { inner, started }) = self.0.take() {
            inner.tell.event(|| EventKind::Completed { verdict, elapsed: elapsed(started) });
        }
    }

    #[cold]
    fn give_up(&mut self, after: u64, attempted: bool) -> Rejection {
        let after = duration_of(after);
        match self.0.take().expect("polled after it ended") {
            Voice::Quiet(name) => Rejection::timed_out(name, after, attempted),
            Voice::Held { inner, .. } => {
                inner.tell.reject(Rejection::timed_out(inner.tell.name().clone(), after, attempted))
            }
        }
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        if let Some(Voice::Held { inner, started }) = &self.0 {
            inner.tell.event(|| EventKind::Cancelled { admitted: true, elapsed: elapsed(*started) });
        }
    }
}

fn elapsed(started: Option<Instant>) -> Option<Duration> {
    started.map(|started| clock::instant().saturating_duration_since(started))
}
