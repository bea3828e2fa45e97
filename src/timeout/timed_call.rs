//! A call with a time limit.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    inner::{Expired, HasTimeout, TimeoutKind, duration_of},
    timer::Timer,
};
use crate::{
    call::{
        CallFuture, Cancel, CancelOnDrop, Complete, Finish, InFlight, PanicGuard, ServiceGuard, StartingCall, complete,
        emit_admitted,
    },
    classify::{Classify, DefaultClassifier},
    clock,
    deadline::{self, DeadlineGuard, Limit, SavedDeadline},
    error::Rejection,
    event::EventKind,
    verdict::Verdict,
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
            expires: Expired,
            // `None` once the call has completed, and for a call that bypasses the timeout.
            in_flight: Option<ObservedTime<K>>,
        },
        Finished {
            rejection: Option<Rejection>,
        },
    }
}

impl<C, K: TimeoutKind> TimedCall<C, K> {
    #[inline(always)]
    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self::Finished { rejection: Some(rejection) }
    }
}

/// A call that is starting within its limit.
pub(crate) struct StartingTimedCall<'a, P, K>
where
    P: HasTimeout<K>,
{
    deadline: DeadlineGuard<'a>,
    /// The limit that the rejection reports, in nanoseconds.
    after: u64,
    /// The limit that expires first.
    expires: Expired,
    starting: StartingCall<'a, P, ObservedTime<K>>,
}

impl<'a, P, K> StartingTimedCall<'a, P, K>
where
    P: HasTimeout<K>,
{
    /// A call with a limit of `after` nanoseconds, or [`NEVER`](deadline::NEVER); `None` if it
    /// bypasses the timeout. Rejected if an outer deadline has passed that only this timeout
    /// enforces.
    #[inline(always)]
    pub(crate) fn new(
        shared: &'a P,
        after: Option<u64>,
        saved: &'a mut Option<SavedDeadline>,
    ) -> Result<Self, Rejection> {
        let Some(mut after) = after else {
            let (deadline, starting) = (Limit::None.enter(saved), StartingCall::bypassing());
            return Ok(Self { deadline, after: deadline::NEVER, expires: Expired::Own, starting });
        };
        let mut expires = Expired::Own;
        let mut limit = Limit::Within(after);
        let unenforced = deadline::unenforced();
        if unenforced != deadline::NEVER {
            let left = unenforced.saturating_sub(clock::nanos());
            if left == 0 {
                return Err(shared.time_out(duration_of(after), Expired::OuterBeforeCall));
            }
            if left < after {
                (limit, after, expires) = (Limit::Until(unenforced), left, Expired::at(unenforced));
            }
        }
        let starting = StartingCall::new(shared, Some(ObservedTime::admitted(shared)));
        Ok(Self { deadline: limit.enter(saved), after, expires, starting })
    }

    /// The call has started.
    #[inline(always)]
    pub(crate) fn started<C>(self, call: C) -> TimedCall<C, K>
    where
        K: TimeoutKind,
    {
        let (limit, after, expires) = (self.deadline.leave(), self.after, self.expires);
        let in_flight = self.starting.started();
        TimedCall::Calling { call, timer: K::Timer::default(), limit, after, expires, in_flight }
    }
}

/// The in-flight state of a call with a timeout of the kind `K`: the start of the call if it is
/// observed, or [`NEVER`](deadline::NEVER).
pub(crate) struct ObservedTime<K> {
    started: u64,
    kind: PhantomData<fn() -> K>,
}

impl<K> ObservedTime<K> {
    /// Reports that the call is admitted.
    #[inline(always)]
    fn admitted<P: HasTimeout<K>>(shared: &P) -> Self {
        match shared.events() {
            Some(events) if events.has_observer() => {
                emit_admitted(events, shared, Self { started: clock::nanos(), kind: PhantomData })
            }
            _ => Self { started: deadline::NEVER, kind: PhantomData },
        }
    }

    /// The time since the start of an observed call.
    fn elapsed(&self) -> Option<Duration> {
        let elapsed = || Duration::from_nanos(clock::nanos().saturating_sub(self.started));
        (self.started != deadline::NEVER).then(elapsed)
    }
}

impl<P: HasTimeout<K>, K> InFlight<P> for ObservedTime<K> {
    fn cancel(self, shared: &P) {
        if let Some(events) = shared.events() {
            events.emit(|| EventKind::Cancelled { admitted: true, elapsed: self.elapsed() });
        }
    }
}

impl<P: HasTimeout<K>, K> Finish<P> for ObservedTime<K> {
    #[inline(always)]
    fn finish(self, shared: &P, verdict: Verdict) {
        if let Some(events) = shared.events() {
            events.emit(|| EventKind::Completed { verdict, elapsed: self.elapsed() });
        }
    }
}

impl<P: HasTimeout<K>, K, T, E> Complete<P, T, E> for ObservedTime<K> {
    #[inline(always)]
    fn verdict(_shared: &P, result: Result<&T, &E>) -> Verdict {
        DefaultClassifier.classify(result)
    }
}

impl<P, C, K> Cancel<P> for TimedCall<C, K>
where
    P: HasTimeout<K>,
    C: Cancel<P>,
    K: TimeoutKind,
{
    fn cancel(mut self: Pin<&mut Self>, shared: &P) {
        if let TimedCallProj::Calling { call, in_flight, .. } = self.as_mut().project() {
            // Cancelled after the inner call has been dropped, even if that panics.
            let _guard = in_flight.take().map(|in_flight| CancelOnDrop::new(shared, in_flight));
            call.cancel(shared);
            self.set(Self::Finished { rejection: None });
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
        let (in_flight, after, expired) = match self.as_mut().project() {
            TimedCallProj::Finished { rejection, .. } => {
                return Poll::Ready(Err(rejection.take().expect("polled after it completed").into()));
            }
            TimedCallProj::Calling { mut call, timer, limit, after, expires, in_flight } => {
                // A response that is ready wins over the timer.
                let mut saved = None;
                let guard = ServiceGuard::enter(shared, in_flight);
                let entered = limit.enter(&mut saved);
                let polled = call.as_mut().poll(shared, cx);
                *limit = entered.leave();
                guard.leave();
                if let Poll::Ready(result) = polled {
                    complete(shared, in_flight, result.as_ref());
                    return Poll::Ready(result);
                }
                if matches!(limit, Limit::None) {
                    return Poll::Pending;
                }
                // The timer panics outside of a runtime.
                let mut guard = PanicGuard::new(shared, in_flight);
                if poll_timer(timer, limit, after, expires, || call.wakes_at(), cx).is_pending() {
                    guard.disarm();
                    return Poll::Pending;
                }
                // `None` if the call was polled again after it had completed.
                let Some(in_flight) = guard.take() else { return Poll::Pending };
                let in_flight = CancelOnDrop::new(shared, in_flight);
                call.cancel(shared);
                (in_flight, *after, *expires)
            }
        };
        // The inner future is dropped before the observer is called, so that its resources are free
        // even if the observer panics.
        self.set(Self::Finished { rejection: None });
        in_flight.disarm();
        Poll::Ready(Err(shared.time_out(duration_of(after), expired).into()))
    }

    fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Calling { call, limit: Limit::None, .. } => call.wakes_at(),
            Self::Calling { timer, .. } => timer.armed_for(),
            Self::Finished { .. } => None,
        }
    }
}

/// Ready when the limit of a pending call is reached. Arms its timer, unless an inner one wakes the
/// task earlier.
#[inline(always)]
fn poll_timer<T: Timer>(
    mut timer: Pin<&mut T>,
    limit: &mut Limit,
    after: &mut u64,
    expires: &mut Expired,
    wakes_at: impl FnOnce() -> Option<Instant>,
    cx: &mut Context<'_>,
) -> Poll<()> {
    if *after == 0 {
        return Poll::Ready(());
    }
    if timer.armed_for().is_none() {
        let mut deadline = limit.deadline();
        // A scope may have been entered only after the call was made.
        let unenforced = deadline::unenforced();
        if unenforced < deadline {
            *after = unenforced.saturating_sub(clock::nanos());
            *expires = Expired::at(unenforced);
            deadline = unenforced;
        }
        let Some(deadline) = clock::instant_of(deadline) else { return Poll::Pending };
        if wakes_at().is_some_and(|at| at <= deadline) {
            return Poll::Pending;
        }
        timer.as_mut().arm(deadline);
    }
    timer.poll(cx)
}
