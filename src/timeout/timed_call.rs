//! A call with a time limit.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    inner::{HasTimeout, TimeoutKind, duration_of},
    timer::Timer,
};
use crate::{
    call::{CallFuture, Cancel},
    classify::{Classify, DefaultClassifier},
    clock,
    deadline::{self, DeadlineGuard, Limit, SavedDeadline},
    error::Rejection,
    event::{EventEmitter, EventKind},
};

pin_project! {
    #[project = TimedCallProj]
    pub(crate) enum TimedCall<C, K>
    where
        K: TimeoutKind,
    {
        Calling {
            #[pin]
            call: C,
            #[pin]
            timer: K::Timer,
            limit: Limit,
            // The limit that the rejection reports, in nanoseconds.
            after: u64,
            // The start of the call if it is observed, or NEVER.
            started: u64,
            completed: bool,
        },
        Finished {
            rejection: Option<Rejection>,
            kind: PhantomData<fn() -> K>,
        },
    }
}

impl<C, K: TimeoutKind> TimedCall<C, K> {
    #[inline(always)]
    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self::Finished { rejection: Some(rejection), kind: PhantomData }
    }
}

/// A call that is starting within its limit.
pub(crate) struct StartingTimedCall<'a> {
    deadline: DeadlineGuard<'a>,
    /// The limit that the rejection reports, in nanoseconds.
    after: u64,
    admitted: EmitCancelledOnDrop<'a>,
}

impl<'a> StartingTimedCall<'a> {
    /// A call with a limit of `after` nanoseconds, or [`NEVER`](deadline::NEVER); `None` if it
    /// bypasses the timeout. Rejected if an outer deadline has passed that only this timeout
    /// enforces.
    #[inline(always)]
    pub(crate) fn new<P, K>(
        shared: &'a P,
        after: Option<u64>,
        saved: &'a mut Option<SavedDeadline>,
    ) -> Result<Self, Rejection>
    where
        P: HasTimeout<K>,
    {
        let Some(mut after) = after else {
            let admitted = EmitCancelledOnDrop { events: None, started: deadline::NEVER };
            return Ok(Self { deadline: Limit::None.enter(saved), after: deadline::NEVER, admitted });
        };
        let mut limit = Limit::Within(after);
        let unenforced = deadline::unenforced();
        if unenforced != deadline::NEVER {
            let left = unenforced.saturating_sub(clock::nanos());
            if left == 0 {
                return Err(shared.time_out(duration_of(after), false));
            }
            if left < after {
                (limit, after) = (Limit::Until(unenforced), left);
            }
        }
        let admitted = EmitCancelledOnDrop::admitted(shared.events());
        Ok(Self { deadline: limit.enter(saved), after, admitted })
    }

    /// The call has started.
    #[inline(always)]
    pub(crate) fn started<C, K: TimeoutKind>(self, call: C) -> TimedCall<C, K> {
        let (limit, after) = (self.deadline.leave(), self.after);
        let started = self.admitted.disarm();
        TimedCall::Calling { call, timer: K::Timer::default(), limit, after, started, completed: false }
    }
}

/// The start of an observed call. It is cancelled if the observer or the service panics.
struct EmitCancelledOnDrop<'a> {
    events: Option<&'a EventEmitter>,
    started: u64,
}

impl<'a> EmitCancelledOnDrop<'a> {
    #[inline(always)]
    fn admitted(events: Option<&'a EventEmitter>) -> Self {
        match events {
            Some(events) if events.has_observer() => {
                let guard = Self { events: Some(events), started: clock::nanos() };
                events.emit(|| EventKind::Admitted);
                guard
            }
            _ => Self { events: None, started: deadline::NEVER },
        }
    }

    #[inline(always)]
    fn disarm(mut self) -> u64 {
        self.events = None;
        self.started
    }
}

impl Drop for EmitCancelledOnDrop<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(events) = self.events {
            events.emit(|| EventKind::Cancelled { admitted: true, elapsed: since(self.started) });
        }
    }
}

/// The time since the start of an observed call.
fn since(started: u64) -> Option<Duration> {
    (started != deadline::NEVER).then(|| Duration::from_nanos(clock::nanos().saturating_sub(started)))
}

impl<P, C, K> Cancel<P> for TimedCall<C, K>
where
    P: HasTimeout<K>,
    C: Cancel<P>,
    K: TimeoutKind,
{
    fn cancel(mut self: Pin<&mut Self>, shared: &P) {
        if let TimedCallProj::Calling { call, started, completed: false, .. } = self.as_mut().project() {
            let started = *started;
            call.cancel(shared);
            self.set(Self::Finished { rejection: None, kind: PhantomData });
            if let Some(events) = shared.events() {
                events.emit(|| EventKind::Cancelled { admitted: true, elapsed: since(started) });
            }
        }
    }
}

impl<P, C, K, T, E> CallFuture<P> for TimedCall<C, K>
where
    P: HasTimeout<K>,
    C: CallFuture<P, Output = Result<T, E>>,
    E: From<Rejection>,
    K: TimeoutKind,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let after = match self.as_mut().project() {
            TimedCallProj::Finished { rejection, .. } => {
                return Poll::Ready(Err(rejection.take().expect("polled after it completed").into()));
            }
            TimedCallProj::Calling { mut call, mut timer, limit, after, started, completed } => {
                // A response that is ready wins over the timer.
                let mut saved = None;
                let entered = limit.enter(&mut saved);
                let polled = call.as_mut().poll(shared, cx);
                *limit = entered.leave();
                if let Poll::Ready(result) = polled {
                    *completed = true;
                    if let Some(events) = shared.events() {
                        let verdict = DefaultClassifier.classify(result.as_ref());
                        events.emit(|| EventKind::Completed { verdict, elapsed: since(*started) });
                    }
                    return Poll::Ready(result);
                }
                if matches!(limit, Limit::None) {
                    return Poll::Pending;
                }
                if *after != 0 {
                    if timer.armed_for().is_none() {
                        let mut deadline = limit.deadline();
                        // A scope may have been entered only after the call was made.
                        let unenforced = deadline::unenforced();
                        if unenforced < deadline {
                            *after = unenforced.saturating_sub(clock::nanos());
                            deadline = unenforced;
                        }
                        let Some(deadline) = clock::instant_of(deadline) else { return Poll::Pending };
                        if call.wakes_at().is_some_and(|at| at <= deadline) {
                            return Poll::Pending;
                        }
                        timer.as_mut().arm(deadline);
                    }
                    ready!(timer.poll(cx));
                }
                *completed = true;
                call.cancel(shared);
                *after
            }
        };
        // Drops the inner future before the observer is called, so that its resources are free even
        // if the observer panics.
        self.set(Self::Finished { rejection: None, kind: PhantomData });
        Poll::Ready(Err(shared.time_out(duration_of(after), true).into()))
    }

    fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Calling { call, limit: Limit::None, .. } => call.wakes_at(),
            Self::Calling { timer, .. } => timer.armed_for(),
            Self::Finished { .. } => None,
        }
    }
}
