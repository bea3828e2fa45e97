//! A call and its retries.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::{
    WhenNotReady,
    inner::{Attempt, Next, ReplayHints, RetryInner, RetryState},
};
use crate::{
    call::{
        CallFuture, CallService, Cancel, CancelOnDrop, Finish, InFlight, PanicGuard, StartingCall, classify_result,
        emit_admitted,
    },
    classify::{Classify, Verdict},
    clock,
    deadline::NEVER,
    error::AsRejection,
    event::Misfit,
    request::{Repeat, overlooks_method},
};

/// Gives a call access to its retry.
pub(crate) trait HasRetry {
    /// The shared state of the attempts.
    type AttemptShared;
    type Classifier;
    type Repeat;

    fn retry(&self) -> &RetryInner;

    fn attempt_shared(&self) -> &Self::AttemptShared;

    fn classifier(&self) -> &Self::Classifier;

    fn repeat(&self) -> &Self::Repeat;
}

/// Makes a service for each further attempt.
pub(crate) trait AttemptSource<S> {
    /// `None` while another call is making one: ask again later.
    fn service(&self) -> Option<S>;
}

impl InFlight<RetryInner> for RetryState {
    fn cancel(self, retry: &RetryInner) {
        retry.cancel(self);
    }
}

impl Finish<RetryInner> for RetryState {
    fn finish(self, retry: &RetryInner, verdict: Verdict) {
        retry.finish(self, verdict);
    }
}

/// Guards a call's state while code runs that may panic.
type Guard<'a> = PanicGuard<'a, RetryInner, RetryState>;

pin_project! {
    /// A call `C` and its retries, which `S` makes.
    #[project = RetryCallProj]
    pub(crate) struct RetryCall<C, S, Req, E> {
        // `None` once the call has completed, and for a call that bypasses the retry.
        state: Option<RetryState>,
        #[pin]
        attempts: Attempts<C, S, Req, E>,
    }
}

pin_project! {
    /// The running attempt, or the wait for the next one.
    #[project = AttemptsProj]
    struct Attempts<C, S, Req, E> {
        // A copy of the request for the next attempt.
        copy: Option<Req>,
        // The request's hints, set with the last attempt, for which there is no copy to get them
        // from.
        hints: ReplayHints,
        // The service for the next attempt, once an attempt has failed: allocation does not matter
        // then.
        service: Option<Box<S>>,
        // The error of the last attempt.
        error: Option<E>,
        #[pin]
        phase: Phase<C>,
    }
}

pin_project! {
    #[project = PhaseProj]
    enum Phase<C> {
        Attempt { #[pin] call: C },
        Sleeping { sleep: Pin<Box<Sleep>> },
        // The delay is over. The service must become ready, before the deadline if there is one.
        Waiting { expiry: Option<Pin<Box<Sleep>>> },
        // Cancelled.
        Done,
    }
}

/// A call whose first attempt is about to start.
pub(crate) struct StartingRetryCall<'a, Req> {
    starting: StartingCall<'a, RetryInner, RetryState>,
    copy: Option<Req>,
}

impl<'a, Req> StartingRetryCall<'a, Req> {
    #[inline(always)]
    pub(crate) fn new<P>(shared: &'a P, enabled: bool, request: &Req) -> Self
    where
        P: HasRetry<Repeat: Repeat<Req>>,
    {
        if !enabled {
            return Self { starting: StartingCall::bypassing(), copy: None };
        }
        let retry = shared.retry();
        if overlooks_method::<P::Repeat, Req>() {
            retry.events.warn_once(Misfit::Repeat);
        }
        // Copied before the call is admitted: a copy that panics needs no state to be guarded.
        let arriving = retry.events.arriving();
        let copy = if retry.max_attempts() > 1 { shared.repeat().clone_request(request) } else { None };
        arriving.arrived();
        let mut state = retry.begin();
        if retry.events.has_observer() {
            state = emit_admitted(&retry.events, retry, state);
        }
        Self { starting: StartingCall::new(retry, Some(state)), copy }
    }

    /// The first attempt has started.
    #[inline(always)]
    pub(crate) fn started<C, S, E>(self, call: C) -> RetryCall<C, S, Req, E> {
        let phase = Phase::Attempt { call };
        let attempts = Attempts { copy: self.copy, hints: ReplayHints::default(), service: None, error: None, phase };
        RetryCall { state: self.starting.started(), attempts }
    }
}

impl<P, C, S, Req, E> Cancel<P> for RetryCall<C, S, Req, E>
where
    P: HasRetry,
    C: Cancel<P::AttemptShared>,
{
    fn cancel(self: Pin<&mut Self>, shared: &P) {
        let this = self.project();
        // Cancelled after the attempt has been dropped, even if that panics.
        let _guard = this.state.take().map(|state| CancelOnDrop::new(shared.retry(), state));
        let mut phase = this.attempts.project().phase;
        if let PhaseProj::Attempt { call } = phase.as_mut().project() {
            call.cancel(shared.attempt_shared());
        }
        phase.set(Phase::Done);
    }
}

impl<P, C, S, Req, T, E> CallFuture<P> for RetryCall<C, S, Req, E>
where
    P: HasRetry<Classifier: Classify<T, E>, Repeat: Repeat<Req>> + AttemptSource<S>,
    E: AsRejection,
    S: CallService<P::AttemptShared, Req, Call = C, Response = T, Error = E>,
    C: CallFuture<P::AttemptShared, Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let RetryCallProj { state, attempts } = self.project();
        if state.is_none() {
            return match attempts.project().phase.project() {
                PhaseProj::Attempt { call } => call.poll(shared.attempt_shared(), cx),
                _ => unreachable!("polled after it completed"),
            };
        }
        let mut guard = Guard::new(shared.retry(), state);
        let polled = attempts.project().poll(shared, &mut guard, cx);
        guard.disarm();
        polled
    }

    fn wakes_at(&self) -> u64 {
        match &self.attempts.phase {
            Phase::Attempt { call } => call.wakes_at(),
            Phase::Sleeping { sleep } => clock::nanos_at(sleep.deadline()),
            Phase::Waiting { .. } | Phase::Done => NEVER,
        }
    }
}

impl<C, S, Req, E> AttemptsProj<'_, C, S, Req, E> {
    /// Polls the running attempt, and makes further ones. Takes the state from `guard` when the
    /// call completes.
    #[inline(always)]
    fn poll<P, T>(&mut self, shared: &P, guard: &mut Guard<'_>, cx: &mut Context<'_>) -> Poll<Result<T, E>>
    where
        P: HasRetry<Classifier: Classify<T, E>, Repeat: Repeat<Req>> + AttemptSource<S>,
        S: CallService<P::AttemptShared, Req, Call = C, Response = T, Error = E>,
        C: CallFuture<P::AttemptShared, Output = Result<T, E>>,
        E: AsRejection,
    {
        let retry = shared.retry();
        loop {
            let next = match self.phase.as_mut().project() {
                PhaseProj::Attempt { call } => {
                    let Some(state) = guard.in_flight() else { unreachable!("polled after it completed") };
                    let scope = retry.enter_attempt(state, self.copy.is_some());
                    guard.enter_service();
                    let polled = call.poll(shared.attempt_shared(), cx);
                    guard.leave_service();
                    let inner = scope.leave();
                    if let Some(state) = guard.in_flight() {
                        state.polled(&inner);
                    }
                    let mut result = ready!(polled);
                    let verdict = classify_result(&retry.events, shared.classifier(), result.as_ref());
                    let next = if verdict == Verdict::Success {
                        retry.succeeded(guard.in_flight().as_deref());
                        Next::Final
                    } else {
                        self.next_after(shared, guard, verdict, result.as_ref())
                    };
                    let Next::Retry(delay) = next else {
                        if let (Next::Exhausted, Ok(response)) = (next, &mut result) {
                            shared.classifier().mark_exhausted(response);
                        }
                        self.complete(guard, |state| retry.finish(state, verdict));
                        return Poll::Ready(result);
                    };
                    // A failed response may hold a connection and is dropped before the delay.
                    *self.error = result.err();
                    Phase::Sleeping { sleep: Box::pin(tokio::time::sleep(delay)) }
                }
                PhaseProj::Sleeping { sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    Phase::Waiting { expiry: None }
                }
                PhaseProj::Waiting { .. } => {
                    if let Some(error) = ready!(self.poll_ready(shared, guard, cx)) {
                        self.complete(guard, |state| retry.stop(state));
                        return Poll::Ready(Err(error));
                    }
                    Phase::Attempt { call: self.send(shared, guard) }
                }
                PhaseProj::Done => unreachable!("polled after it was dropped"),
            };
            self.phase.set(next);
        }
    }

    /// Completes the call. A caller that keeps the future keeps neither the request nor a service.
    #[inline(always)]
    fn complete(&mut self, guard: &mut Guard<'_>, consume: impl FnOnce(RetryState)) {
        *self.copy = None;
        *self.service = None;
        if let Some(state) = guard.take() {
            consume(state);
        }
    }

    /// Returns what follows an attempt that did not succeed.
    #[inline(always)]
    fn next_after<P, T>(&mut self, shared: &P, guard: &mut Guard<'_>, verdict: Verdict, result: Result<&T, &E>) -> Next
    where
        P: HasRetry<Classifier: Classify<T, E>, Repeat: Repeat<Req>>,
        E: AsRejection,
    {
        let (copy, declared) = (&*self.copy, *self.hints);
        let hints = || copy.as_ref().map_or(declared, |copy| ReplayHints::of(shared.repeat(), copy));
        let classify = shared.classifier();
        let attempt = Attempt { verdict, classify, result, has_copy: copy.is_some(), hints };
        guard.in_flight().map_or(Next::Final, |state| shared.retry().next_after(state, attempt))
    }

    /// Waits until the service is ready for the next attempt. Returns the error to respond with if
    /// no attempt is to be made.
    fn poll_ready<P>(&mut self, shared: &P, guard: &mut Guard<'_>, cx: &mut Context<'_>) -> Poll<Option<E>>
    where
        P: HasRetry + AttemptSource<S>,
        S: CallService<P::AttemptShared, Req, Error = E>,
    {
        let retry = shared.retry();
        // Lateness comes first: a service that will not be called must not reserve anything.
        if self.error.is_some() && guard.in_flight().is_some_and(|state| retry.is_late(state)) {
            return Poll::Ready(self.error.take());
        }
        if self.service.is_none() {
            *self.service = shared.service().map(Box::new);
        }
        let Some(service) = &mut *self.service else {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        };
        guard.enter_service();
        let ready = service.poll_ready(shared.attempt_shared(), cx);
        guard.leave_service();
        match ready {
            Poll::Ready(Ok(())) => return Poll::Ready(None),
            Poll::Ready(Err(error)) => return Poll::Ready(Some(self.error.take().unwrap_or(error))),
            // A failed response has been dropped: there is nothing to respond with, so wait.
            Poll::Pending if self.error.is_none() => return Poll::Pending,
            Poll::Pending => {}
        }
        if retry.when_not_ready == WhenNotReady::Wait {
            let deadline = guard.in_flight().and_then(|state| state.deadline());
            let Some(deadline) = deadline else { return Poll::Pending };
            let PhaseProj::Waiting { expiry } = self.phase.as_mut().project() else { return Poll::Pending };
            let expiry = expiry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(expiry.as_mut().poll(cx));
        }
        Poll::Ready(self.error.take())
    }

    /// Sends the next attempt, on the service that is ready.
    fn send<P>(&mut self, shared: &P, guard: &mut Guard<'_>) -> C
    where
        P: HasRetry<Repeat: Repeat<Req>>,
        S: CallService<P::AttemptShared, Req, Call = C>,
    {
        let (retry, repeat) = (shared.retry(), shared.repeat());
        let mut request = self.copy.take().expect("a retry has a copy of the request");
        let attempt = guard.in_flight().expect("a retry has its state").next();
        if attempt < retry.max_attempts() {
            *self.copy = repeat.clone_request(&request);
        } else {
            *self.hints = ReplayHints::of(repeat, &request);
        }
        repeat.prepare(attempt, &mut request);
        *self.error = None;
        if let Some(state) = guard.in_flight() {
            state.sent();
        }
        guard.enter_service();
        let call = self.service.as_mut().expect("it is ready").call(shared.attempt_shared(), request);
        guard.leave_service();
        call
    }
}
