//! A call with a time limit.

use std::{
    marker::PhantomData,
    mem::ManuallyDrop,
    num::NonZeroU64,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;

use super::inner::{Expired, HasTimeout, duration_of};
use crate::{
    call::{
        CallFuture, Cancel, CancelOnDrop, Complete, Finish, InFlight, PanicGuard, RejectCall, ServiceGuard,
        StartingCall, complete, emit_admitted,
    },
    classify::{Classify, DefaultClassifier},
    clock,
    deadline::{self, DeadlineGuard, Limit, NEVER, SavedDeadline},
    error::Rejection,
    event::EventKind,
    shared::timer::Timer,
    verdict::Verdict,
};

pin_project! {
    pub(crate) struct TimedCall<C, K> {
        #[pin]
        call: C,
        time: CallTime,
        // `None` once the call has completed, and for a call that bypasses the timeout.
        in_flight: Option<ObservedTime<K>>,
    }
}

impl<C: RejectCall, K> RejectCall for TimedCall<C, K> {
    #[inline(always)]
    fn rejected(rejection: Rejection) -> Self {
        let time = CallTime { timer: Timer::default(), after: NEVER, deadline: BYPASSED, expires: Expired::Own };
        Self { call: C::rejected(rejection), time, in_flight: None }
    }
}

/// The time of a call that runs.
pub(crate) struct CallTime {
    timer: Timer,
    /// The limit that the rejection reports, in nanoseconds, or [`NEVER`].
    after: u64,
    /// When the call times out, or [`NEVER`]. [`NOT_STARTED`], [`BYPASSED`].
    deadline: u64,
    /// The limit that expires first.
    expires: Expired,
}

/// The clock has not started: the call has `after` from its start. On the timeline, this is long
/// past, and a limit that has passed at the start admits no call.
const NOT_STARTED: u64 = 0;

/// The call bypasses the timeout.
const BYPASSED: u64 = 1;

impl CallTime {
    #[inline(always)]
    fn limit(&self) -> Limit {
        match self.deadline {
            NOT_STARTED => Limit::Within(self.after),
            BYPASSED => Limit::None,
            deadline => Limit::Until(deadline),
        }
    }

    /// Records whether the clock has started.
    #[inline(always)]
    fn set_limit(&mut self, limit: Limit) {
        if let Limit::Until(deadline) = limit {
            self.deadline = deadline;
        }
    }

    /// Ready when the limit of a pending call is reached. Arms its timer, unless an inner one wakes
    /// the task earlier.
    #[inline(always)]
    fn poll(&mut self, wakes_at: impl FnOnce() -> u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.deadline == BYPASSED {
            return Poll::Pending;
        }
        if self.after == 0 {
            return Poll::Ready(());
        }
        if !self.timer.is_armed() {
            let mut limit = self.limit();
            self.deadline = limit.deadline();
            // A scope may have been entered only after the call was made.
            let unenforced = deadline::unenforced();
            if unenforced < self.deadline {
                self.shorten(unenforced);
            }
            if wakes_at() <= self.deadline {
                return Poll::Pending;
            }
        }
        self.timer.poll(self.deadline, cx)
    }

    #[cold]
    fn shorten(&mut self, unenforced: u64) {
        self.after = unenforced.saturating_sub(clock::nanos());
        self.expires = Expired::at(unenforced);
        self.deadline = unenforced.max(BYPASSED + 1);
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
    /// A call with a limit of `after` nanoseconds, or [`NEVER`]; `None` if it bypasses the timeout.
    /// Rejected if an outer deadline has passed that only this timeout enforces.
    #[inline(always)]
    pub(crate) fn new(
        shared: &'a P,
        after: Option<u64>,
        saved: &'a mut Option<SavedDeadline>,
    ) -> Result<Self, Rejection> {
        let Some(mut after) = after else {
            let (deadline, starting) = (Limit::None.enter(saved), StartingCall::bypassing());
            return Ok(Self { deadline, after: NEVER, expires: Expired::Own, starting });
        };
        let mut expires = Expired::Own;
        let mut limit = Limit::Within(after);
        let unenforced = deadline::unenforced();
        if unenforced != NEVER {
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
    pub(crate) fn started<C>(self, call: C) -> TimedCall<C, K> {
        // Leaving the limit does not panic. If the compiler had to drop the call in that case, it
        // would build the call's future in memory, and copy it.
        let call = ManuallyDrop::new(call);
        let deadline = match self.deadline.leave() {
            Limit::Within(_) => NOT_STARTED,
            Limit::Until(deadline) => deadline,
            Limit::None => BYPASSED,
        };
        let time = CallTime { timer: Timer::default(), after: self.after, deadline, expires: self.expires };
        TimedCall { call: ManuallyDrop::into_inner(call), time, in_flight: self.starting.started() }
    }
}

/// The in-flight state of a call with a timeout of the kind `K`: the start of the call if it is
/// observed, or [`UNOBSERVED`].
pub(crate) struct ObservedTime<K> {
    started: NonZeroU64,
    kind: PhantomData<fn() -> K>,
}

const UNOBSERVED: NonZeroU64 = NonZeroU64::MAX;

impl<K> ObservedTime<K> {
    /// Reports that the call is admitted.
    #[inline(always)]
    fn admitted<P: HasTimeout<K>>(shared: &P) -> Self {
        match shared.events() {
            Some(events) if events.has_observer() => {
                let started = NonZeroU64::new(clock::nanos()).unwrap_or(NonZeroU64::MIN);
                emit_admitted(events, shared, Self { started, kind: PhantomData })
            }
            _ => Self { started: UNOBSERVED, kind: PhantomData },
        }
    }

    /// The time since the start of an observed call.
    fn elapsed(&self) -> Option<Duration> {
        let elapsed = || Duration::from_nanos(clock::nanos().saturating_sub(self.started.get()));
        (self.started != UNOBSERVED).then(elapsed)
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
{
    fn cancel(self: Pin<&mut Self>, shared: &P) {
        let this = self.project();
        // Cancelled after the inner call has been dropped, even if that panics.
        let _guard = this.in_flight.take().map(|in_flight| CancelOnDrop::new(shared, in_flight));
        this.call.cancel(shared);
        this.time.timer.disarm();
    }
}

impl<P, C, K, T, E> CallFuture<P> for TimedCall<C, K>
where
    P: HasTimeout<K>,
    C: CallFuture<P, Output = Result<T, E>>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>) {
        let mut this = self.project();
        let mut saved = None;
        let guard = ServiceGuard::enter(shared, this.in_flight);
        let entered = this.time.limit().enter(&mut saved);
        this.call.as_mut().poll(shared, cx, polled);
        this.time.set_limit(entered.leave());
        guard.leave();
        // A response that is ready wins over the timer.
        if let Poll::Ready(result) = polled {
            // A caller that keeps the future keeps neither a timer nor the task.
            this.time.timer.disarm();
            return complete(shared, this.in_flight, result.as_ref());
        }
        // The timer panics outside of a runtime.
        let guard = PanicGuard::new(shared, this.in_flight);
        let expired = this.time.poll(|| this.call.wakes_at(), cx);
        guard.disarm();
        // Without in-flight state, the call was polled again after it had completed.
        if expired.is_ready()
            && let Some(in_flight) = this.in_flight.take()
        {
            let in_flight = CancelOnDrop::new(shared, in_flight);
            // The inner future is dropped before the observer is called, so that its resources are
            // free even if the observer panics.
            this.call.cancel(shared);
            in_flight.disarm();
            let rejection = shared.time_out(duration_of(this.time.after), this.time.expires);
            *polled = Poll::Ready(Err(rejection.into()));
        }
    }

    #[inline(always)]
    fn wakes_at(&self) -> u64 {
        match self.time.deadline {
            BYPASSED => self.call.wakes_at(),
            deadline if self.time.timer.is_armed() => deadline,
            _ => NEVER,
        }
    }
}
