//! A call and its retries.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::{
    inner::{Attempt, Next, ReplayHints, RetryInner, RetryState},
    retrying::Retrying,
};
use crate::{
    call::{
        CallFuture, CallService, Cancel, CancelOnDrop, Finish, InFlight, PanicGuard, RejectCall, StartingCall,
        classify_result, emit_admitted,
    },
    classify::{Classify, Verdict},
    deadline::NEVER,
    error::{AsRejection, Rejection},
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
pub(super) type Guard<'a> = PanicGuard<'a, RetryInner, RetryState>;

pin_project! {
    /// A call `C` and its retries, which `S` makes.
    #[project = RetryCallProj]
    pub(crate) struct RetryCall<C, S, Req, Q, E>
    where
        Q: Repeat<Req>,
    {
        // `None` once the call has completed, and for a call that bypasses the retry.
        state: Option<RetryState>,
        #[pin]
        attempts: Attempts<C, S, Req, Q, E>,
    }
}

pin_project! {
    /// The running attempt, or the wait for the next one.
    #[project = AttemptsProj]
    struct Attempts<C, S, Req, Q, E>
    where
        Q: Repeat<Req>,
    {
        // The request, saved for the next attempt.
        saved: Option<Q::Saved>,
        // Boxed, so that calls whose first attempt is final are small.
        retrying: Option<Box<Retrying<S, E>>>,
        #[pin]
        phase: Phase<C>,
    }
}

pin_project! {
    #[project = PhaseProj]
    enum Phase<C> {
        Attempt { #[pin] call: C },
        // Before an attempt that `retrying` describes.
        Between,
        // Cancelled.
        Done,
    }
}

/// A call whose first attempt is about to start.
pub(crate) struct StartingRetryCall<'a, V> {
    starting: StartingCall<'a, RetryInner, RetryState>,
    saved: Option<V>,
}

impl<'a, V> StartingRetryCall<'a, V> {
    #[inline(always)]
    pub(crate) fn new<P, Req>(shared: &'a P, enabled: bool, request: &Req) -> Self
    where
        P: HasRetry<Repeat: Repeat<Req, Saved = V>>,
    {
        if !enabled {
            return Self { starting: StartingCall::bypassing(), saved: None };
        }
        let retry = shared.retry();
        if overlooks_method::<P::Repeat, Req>() {
            retry.events.warn_once(Misfit::Repeat);
        }
        // Saved before the call is admitted: if that panics, there is no state to be guarded.
        let arriving = retry.events.arriving();
        let saved = if retry.max_attempts() > 1 { shared.repeat().save(request) } else { None };
        arriving.arrived();
        let mut state = retry.begin();
        if retry.events.has_observer() {
            state = emit_admitted(&retry.events, retry, state);
        }
        Self { starting: StartingCall::new(retry, Some(state)), saved }
    }

    /// The first attempt has started.
    #[inline(always)]
    pub(crate) fn started<C, S, Req, Q, E>(self, call: C) -> RetryCall<C, S, Req, Q, E>
    where
        Q: Repeat<Req, Saved = V>,
    {
        let attempts = Attempts { saved: self.saved, retrying: None, phase: Phase::Attempt { call } };
        RetryCall { state: self.starting.started(), attempts }
    }
}

impl<C: RejectCall, S, Req, Q: Repeat<Req>, E> RejectCall for RetryCall<C, S, Req, Q, E> {
    #[inline(always)]
    fn rejected(rejection: Rejection) -> Self {
        let phase = Phase::Attempt { call: C::rejected(rejection) };
        Self { state: None, attempts: Attempts { saved: None, retrying: None, phase } }
    }
}

impl<P, C, S, Req, Q, E> Cancel<P> for RetryCall<C, S, Req, Q, E>
where
    P: HasRetry,
    Q: Repeat<Req>,
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

impl<P, C, S, Req, Q, T, E> CallFuture<P> for RetryCall<C, S, Req, Q, E>
where
    P: HasRetry<Classifier: Classify<T, E>, Repeat = Q> + AttemptSource<S>,
    Q: Repeat<Req>,
    E: AsRejection,
    S: CallService<P::AttemptShared, Req, Call = C, Response = T, Error = E>,
    C: CallFuture<P::AttemptShared, Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>) {
        let RetryCallProj { state, attempts } = self.project();
        let mut attempts = attempts.project();
        if state.is_none() {
            return match attempts.phase.project() {
                PhaseProj::Attempt { call } => call.poll(shared.attempt_shared(), cx, polled),
                _ => unreachable!("polled after it completed"),
            };
        }
        let mut guard = Guard::new(shared.retry(), state);
        loop {
            if matches!(*attempts.phase, Phase::Between)
                && attempts.poll_next(shared, &mut guard, cx, polled).is_pending()
            {
                break;
            }
            if attempts.poll_attempt(shared, &mut guard, cx, polled).is_ready() {
                break;
            }
        }
        guard.disarm();
    }

    fn wakes_at(&self) -> u64 {
        match &self.attempts.phase {
            Phase::Attempt { call } => call.wakes_at(),
            Phase::Between => self.attempts.retrying.as_ref().map_or(NEVER, |retrying| retrying.wakes_at()),
            Phase::Done => NEVER,
        }
    }
}

impl<C, S, Req, Q: Repeat<Req>, E> AttemptsProj<'_, C, S, Req, Q, E> {
    /// Polls the running attempt. Ready if it is pending or final, and `polled` is the call's; else
    /// the next attempt follows. Takes the state from `guard` when the call completes.
    #[inline(always)]
    fn poll_attempt<P, T>(
        &mut self,
        shared: &P,
        guard: &mut Guard<'_>,
        cx: &mut Context<'_>,
        polled: &mut Poll<Result<T, E>>,
    ) -> Poll<()>
    where
        P: HasRetry<Classifier: Classify<T, E>, Repeat = Q> + AttemptSource<S>,
        S: CallService<P::AttemptShared, Req, Call = C, Response = T, Error = E>,
        C: CallFuture<P::AttemptShared, Output = Result<T, E>>,
        E: AsRejection,
    {
        let retry = shared.retry();
        let PhaseProj::Attempt { call } = self.phase.as_mut().project() else {
            unreachable!("polled after it was dropped")
        };
        let Some(state) = guard.in_flight() else { unreachable!("polled after it completed") };
        let scope = retry.enter_attempt(state, self.saved.is_some());
        guard.enter_service();
        call.poll(shared.attempt_shared(), cx, polled);
        guard.leave_service();
        let inner = scope.leave();
        if let Some(state) = guard.in_flight() {
            state.polled(&inner);
        }
        let Poll::Ready(result) = polled else { return Poll::Ready(()) };
        let verdict = classify_result(&retry.events, shared.classifier(), result.as_ref());
        if verdict == Verdict::Success {
            retry.succeeded(guard.in_flight().as_deref());
        } else if let Some(delay) = self.delay_after(shared, guard, verdict, result) {
            self.retry_after(delay, polled);
            return Poll::Pending;
        }
        self.complete(guard, |state| retry.finish(state, verdict));
        Poll::Ready(())
    }

    /// Completes the call. A caller that keeps the future keeps neither the request nor a service.
    #[inline(always)]
    fn complete(&mut self, guard: &mut Guard<'_>, consume: impl FnOnce(RetryState)) {
        *self.saved = None;
        *self.retrying = None;
        if let Some(state) = guard.take() {
            consume(state);
        }
    }

    /// Returns the delay before the attempt that follows one that did not succeed; `None` if its
    /// result is the response.
    #[inline(never)]
    fn delay_after<P, T>(
        &mut self,
        shared: &P,
        guard: &mut Guard<'_>,
        verdict: Verdict,
        result: &mut Result<T, E>,
    ) -> Option<Duration>
    where
        P: HasRetry<Classifier: Classify<T, E>, Repeat = Q>,
        E: AsRejection,
    {
        let (saved, retrying) = (&*self.saved, &*self.retrying);
        let hints = || match saved {
            Some(saved) => ReplayHints::of(shared.repeat(), saved),
            None => retrying.as_ref().map_or_else(ReplayHints::default, |retrying| retrying.hints),
        };
        let classify = shared.classifier();
        let attempt = Attempt { verdict, classify, result: result.as_ref(), has_copy: saved.is_some(), hints };
        let next = guard.in_flight().map_or(Next::Final, |state| shared.retry().next_after(state, attempt));
        match (next, result) {
            (Next::Retry(delay), _) => return Some(delay),
            (Next::Exhausted, Ok(response)) => classify.mark_exhausted(response),
            _ => {}
        }
        None
    }

    /// Begins the delay before the next attempt.
    #[cold]
    fn retry_after<T>(&mut self, delay: Duration, polled: &mut Poll<Result<T, E>>) {
        // A failed response may hold a connection and is dropped before the delay.
        let error = match mem::replace(polled, Poll::Pending) {
            Poll::Ready(result) => result.err(),
            Poll::Pending => None,
        };
        self.retrying.get_or_insert_default().delay(delay, error);
        self.phase.set(Phase::Between);
    }

    /// Waits until the next attempt may be made, and makes it. Pending if it is not made: the call
    /// waits or, if `polled` is ready, has completed.
    #[cold]
    fn poll_next<P, T>(
        &mut self,
        shared: &P,
        guard: &mut Guard<'_>,
        cx: &mut Context<'_>,
        polled: &mut Poll<Result<T, E>>,
    ) -> Poll<()>
    where
        P: HasRetry<Repeat = Q> + AttemptSource<S>,
        S: CallService<P::AttemptShared, Req, Call = C, Error = E>,
    {
        let Some(retrying) = self.retrying else { unreachable!("a call that waits is retried") };
        if let Some(error) = ready!(retrying.poll_ready::<P, Req>(shared, guard, cx)) {
            self.complete(guard, |state| shared.retry().stop(state));
            *polled = Poll::Ready(Err(error));
            return Poll::Pending;
        }
        let call = self.send(shared, guard);
        self.phase.set(Phase::Attempt { call });
        Poll::Ready(())
    }

    /// Sends the next attempt, on the service that is ready.
    fn send<P>(&mut self, shared: &P, guard: &mut Guard<'_>) -> C
    where
        P: HasRetry<Repeat = Q>,
        S: CallService<P::AttemptShared, Req, Call = C>,
    {
        let (retry, repeat) = (shared.retry(), shared.repeat());
        let Some(retrying) = self.retrying else { unreachable!("a call that waits is retried") };
        let saved = self.saved.take().expect("a retry has saved the request");
        let attempt = guard.in_flight().expect("a retry has its state").next();
        let is_last = attempt >= retry.max_attempts();
        if is_last {
            retrying.hints = ReplayHints::of(repeat, &saved);
        }
        let mut request = repeat.restore(saved);
        if !is_last {
            *self.saved = repeat.save(&request);
        }
        repeat.prepare(attempt, &mut request);
        retrying.error = None;
        if let Some(state) = guard.in_flight() {
            state.sent();
        }
        guard.enter_service();
        let call = retrying.service.as_mut().expect("it is ready").call(shared.attempt_shared(), request);
        guard.leave_service();
        call
    }
}
