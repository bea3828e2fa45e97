//! A call and its repetitions.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{
    WhenNotReady,
    inner::{ReplayHints, RetryInner, RetryState},
};
use crate::{
    call::{CallFuture, CallService, Cancel},
    call::{CancelOnDrop, InFlight, emit_admitted},
    classify::{Classify, Verdict},
    deadline,
    request::Repeat,
};

/// What a call is lent.
pub(crate) trait HasRetry {
    /// What the attempts are lent.
    type AttemptShared;
    type Classifier;
    type Repeat;

    /// `None` when the retry was left out of the stack.
    fn retry(&self) -> Option<&RetryInner>;

    fn attempts(&self) -> &Self::AttemptShared;

    fn classifier(&self) -> &Self::Classifier;

    fn repeat(&self) -> &Self::Repeat;
}

/// What lends a service for each further attempt.
pub(crate) trait AttemptSource<S> {
    fn service(&self) -> S;
}

impl InFlight<RetryInner> for RetryState {
    fn cancel(self, inner: &RetryInner) {
        inner.cancel(self);
    }
}

pin_project! {
    /// `S` makes the attempts `C`.
    pub(crate) struct RetryCall<C, S, Req, E> {
        // None when the call ended, or when there is no retry.
        state: Option<RetryState>,
        // A copy of the request for the next attempt.
        copy: Option<Req>,
        // What the request says of itself, when there is no copy to ask: set with the last attempt.
        hints: ReplayHints,
        // The service for the next attempt, once there was a failure: what a call allocates then does not matter.
        service: Option<Box<S>>,
        // The last attempt's error.
        error: Option<E>,
        #[pin]
        phase: RetryPhase<C>,
    }
}

pin_project! {
    #[project = RetryPhaseProj]
    enum RetryPhase<C> {
        Attempt { #[pin] call: C },
        Sleeping { sleep: Pin<Box<Sleep>> },
        // The delay is over, the service must become ready, until the deadline if there is one.
        Waiting { expiry: Option<Pin<Box<Sleep>>> },
        // It was dropped.
        Done,
    }
}

/// A call that is beginning.
pub(crate) struct StartingRetryCall<'a, Req> {
    held: Option<CancelOnDrop<&'a RetryInner, RetryState>>,
    copy: Option<Req>,
}

impl<'a, Req> StartingRetryCall<'a, Req> {
    #[inline(always)]
    pub(crate) fn new<P>(shared: &'a P, request: &Req) -> Self
    where
        P: HasRetry<Repeat: Repeat<Req>>,
    {
        let Some(retry) = shared.retry() else { return Self { held: None, copy: None } };
        let mut state = retry.begin();
        if retry.events.has_observer() {
            state = emit_admitted(&retry.events, retry, state);
        }
        let may_repeat = retry.may_repeat(&state);
        let held = CancelOnDrop::new(retry, state);
        let copy = if may_repeat { shared.repeat().clone_request(request) } else { None };
        Self { held: Some(held), copy }
    }

    /// The first attempt has started.
    #[inline(always)]
    pub(crate) fn started<C, S, E>(self, call: C) -> RetryCall<C, S, Req, E> {
        let state = self.held.map(|held| held.release().1);
        let phase = RetryPhase::Attempt { call };
        RetryCall { state, copy: self.copy, hints: ReplayHints::default(), service: None, error: None, phase }
    }
}

impl<P, C, S, Req, E> Cancel<P> for RetryCall<C, S, Req, E>
where
    P: HasRetry,
    C: Cancel<P::AttemptShared>,
{
    fn cancel(self: Pin<&mut Self>, shared: &P) {
        let mut this = self.project();
        // Cancelled after the attempt has been dropped, also when that panics.
        let _held = shared.retry().zip(this.state.take()).map(|(retry, state)| CancelOnDrop::new(retry, state));
        if let RetryPhaseProj::Attempt { call } = this.phase.as_mut().project() {
            call.cancel(shared.attempts());
        }
        this.phase.set(RetryPhase::Done);
    }
}

impl<P, C, S, Req, T, E> CallFuture<P> for RetryCall<C, S, Req, E>
where
    P: HasRetry<Classifier: Classify<T, E>, Repeat: Repeat<Req>> + AttemptSource<S>,
    S: CallService<P::AttemptShared, Req, Call = C, Response = T, Error = E>,
    C: CallFuture<P::AttemptShared, Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(retry), Some(state)) = (shared.retry(), this.state.as_mut()) else {
            return match this.phase.project() {
                RetryPhaseProj::Attempt { call } => call.poll(shared.attempts(), cx),
                _ => unreachable!("polled after it ended"),
            };
        };
        loop {
            let next = match this.phase.as_mut().project() {
                RetryPhaseProj::Attempt { call } => {
                    let outer = deadline::swap_exhausted(false);
                    let polled = call.poll(shared.attempts(), cx);
                    let exhausted = deadline::swap_exhausted(outer);
                    let result = ready!(polled);
                    let verdict = shared.classifier().classify(result.as_ref());
                    let delay = if verdict == Verdict::Success {
                        retry.succeeded();
                        None
                    } else {
                        let copy = &*this.copy;
                        let hints = || copy.as_ref().map_or(*this.hints, |copy| ReplayHints::of(shared.repeat(), copy));
                        let classify = shared.classifier();
                        retry.judge(state, verdict, classify, result.as_ref(), copy.is_some(), hints, exhausted)
                    };
                    let Some(delay) = delay else {
                        // Whoever keeps the future after its end keeps neither the request nor a service.
                        (*this.copy, *this.service) = (None, None);
                        if let Some(state) = this.state.take() {
                            retry.finish(state, verdict);
                        }
                        return Poll::Ready(result);
                    };
                    *this.error = result.err();
                    RetryPhase::Sleeping { sleep: Box::pin(tokio::time::sleep(delay)) }
                }
                RetryPhaseProj::Sleeping { sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    RetryPhase::Waiting { expiry: None }
                }
                RetryPhaseProj::Waiting { expiry } => {
                    let service = this.service.get_or_insert_with(|| Box::new(shared.service()));
                    // Lateness comes first: a service that is not going to be called should not reserve anything.
                    let instead = if this.error.is_some() && retry.is_late(state) {
                        this.error.take()
                    } else {
                        match service.poll_ready(shared.attempts(), cx) {
                            Poll::Ready(Ok(())) => None,
                            Poll::Ready(Err(refused)) => Some(this.error.take().unwrap_or(refused)),
                            // A failed response is gone: there is nothing else to answer with, so wait.
                            Poll::Pending if this.error.is_none() => return Poll::Pending,
                            Poll::Pending => {
                                if retry.when_not_ready == WhenNotReady::Wait {
                                    let Some(deadline) = state.deadline() else { return Poll::Pending };
                                    let expiry =
                                        expiry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
                                    ready!(expiry.as_mut().poll(cx));
                                }
                                this.error.take()
                            }
                        }
                    };
                    if let Some(error) = instead {
                        (*this.copy, *this.service) = (None, None);
                        if let Some(state) = this.state.take() {
                            retry.give_up(state);
                        }
                        return Poll::Ready(Err(error));
                    }
                    let mut request = this.copy.take().expect("a retry needs a request");
                    let attempt = state.next();
                    if attempt < retry.max_attempts() {
                        *this.copy = shared.repeat().clone_request(&request);
                    } else {
                        *this.hints = ReplayHints::of(shared.repeat(), &request);
                    }
                    shared.repeat().prepare(attempt, &mut request);
                    *this.error = None;
                    state.sent();
                    RetryPhase::Attempt { call: service.call(shared.attempts(), request) }
                }
                RetryPhaseProj::Done => unreachable!("polled after it was dropped"),
            };
            this.phase.set(next);
        }
    }
    fn wakes_at(&self) -> Option<Instant> {
        match &self.phase {
            RetryPhase::Attempt { call } => call.wakes_at(),
            RetryPhase::Sleeping { sleep } => Some(sleep.deadline()),
            RetryPhase::Waiting { .. } | RetryPhase::Done => None,
        }
    }
}
