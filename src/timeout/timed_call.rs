//! A call with a limit of time.

use std::{
    future::Future,
    marker::PhantomData,
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
    handle::{TimeoutInner, duration_of},
};
use crate::{
    call::{CallFuture, Cancel, HasShared},
    classify::{Classify, ResultClassifier},
    clock,
    deadline::{self, DeadlineGuard, Limit, SavedDeadline},
    error::Rejection,
    event::{EventEmitter, EventKind},
    shared::striped::StripedRef,
};

/// What a call is lent by the timeout `K`: there may be two in a stack.
pub(crate) trait HasTimeout<K> {
    /// To whom the timeout speaks, if anybody listens.
    fn events(&self) -> Option<&EventEmitter>;

    /// The refusal of a call that took too long, told to whom it concerns.
    fn time_out(&self, after: Duration, attempted: bool) -> Rejection;
}

/// A timeout, by its place.
pub(crate) trait TimeoutKind {
    type Timer: Timer;
}

/// The only timeout of a layer or a stack.
pub(crate) struct Standalone;

impl TimeoutKind for Standalone {
    type Timer = Inline;
}

/// A timer that is armed when the call is pending, and is not subject to tokio's cooperative budget: an inner future that
/// uses it up at each poll would starve it.
pub(crate) trait Timer: Default {
    fn arm(self: Pin<&mut Self>, deadline: Instant);

    /// Ready when it is armed and the time has come.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;

    fn armed_for(&self) -> Option<Instant>;
}

pin_project! {
    /// A timer that nearly every call arms that is not ready at once: it lies in the call.
    #[derive(Default)]
    pub(crate) struct Inline {
        #[pin]
        sleep: Option<Unconstrained<Sleep>>,
        // `Unconstrained` hides it.
        deadline: Option<Instant>,
    }
}

impl Timer for Inline {
    fn arm(self: Pin<&mut Self>, deadline: Instant) {
        let mut this = self.project();
        this.sleep.set(Some(unconstrained(tokio::time::sleep_until(deadline))));
        *this.deadline = Some(deadline);
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project().sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }

    fn armed_for(&self) -> Option<Instant> {
        self.deadline
    }
}

/// A timer that calls seldom arm, because one within them wakes the task earlier: allocated by those who do, so that all
/// calls are smaller.
#[derive(Default)]
pub(crate) struct Boxed(Option<Pin<Box<Inline>>>);

impl Timer for Boxed {
    #[cold]
    fn arm(mut self: Pin<&mut Self>, deadline: Instant) {
        self.0.get_or_insert_default().as_mut().arm(deadline);
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.0 {
            Some(timer) => timer.as_mut().poll(cx),
            None => Poll::Pending,
        }
    }

    fn armed_for(&self) -> Option<Instant> {
        self.0.as_ref()?.armed_for()
    }
}

/// What the future of a layer's call owns of its timeout: a name that is free to copy, unless somebody listens.
pub(crate) enum TimeoutOwner {
    Quiet(&'static str),
    CancelOnDrop(StripedRef<TimeoutInner>),
}

impl TimeoutOwner {
    #[inline(always)]
    pub(super) fn of(timeout: &Timeout) -> Self {
        match timeout.name().as_static() {
            Some(name) if !timeout.0.events.has_observer() => Self::Quiet(name),
            _ => Self::CancelOnDrop(timeout.0.acquire_ref()),
        }
    }
}

impl HasShared for TimeoutOwner {
    type Shared = Self;

    #[inline(always)]
    fn shared(&self) -> &Self {
        self
    }
}

impl HasTimeout<Standalone> for TimeoutOwner {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        match self {
            Self::Quiet(_) => None,
            Self::CancelOnDrop(inner) => Some(&inner.events),
        }
    }

    fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        match self {
            Self::Quiet(name) => Rejection::timed_out(*name, after, attempted),
            Self::CancelOnDrop(inner) => inner.time_out(after, attempted),
        }
    }
}

impl TimeoutInner {
    #[cold]
    pub(crate) fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        self.events.reject(|name| Rejection::timed_out(name, after, attempted))
    }
}

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
            // What the rejection reports, in nanoseconds.
            after: u64,
            // When the call began, if somebody listens, or NEVER.
            started: u64,
            ended: bool,
        },
        Finished {
            rejection: Option<Rejection>,
            timeout: PhantomData<fn() -> K>,
        },
    }
}

/// A call that is starting, within its limit.
pub(crate) struct StartingTimedCall<'a> {
    entered: DeadlineGuard<'a>,
    /// What the rejection reports, in nanoseconds.
    after: u64,
    observed: EmitCancelledOnDrop<'a>,
}

impl<'a> StartingTimedCall<'a> {
    /// A call that is given up `after` so many nanoseconds, or [`NEVER`](deadline::NEVER). `None` when the timeout was
    /// left out of the stack. Refused where a deadline has passed that nobody but us will enforce.
    #[inline(always)]
    pub(crate) fn new<P, K>(
        shared: &'a P,
        after: Option<u64>,
        marks: &'a mut Option<SavedDeadline>,
    ) -> Result<Self, Rejection>
    where
        P: HasTimeout<K>,
    {
        let mut limit = after.map_or(Limit::None, Limit::Within);
        let mut after = after.unwrap_or(deadline::NEVER);
        let advised = deadline::unenforced();
        if advised != deadline::NEVER && !matches!(limit, Limit::None) {
            let left = advised.saturating_sub(clock::nanos());
            if left == 0 {
                return Err(shared.time_out(duration_of(after), false));
            }
            if left < after {
                (limit, after) = (Limit::Until(advised), left);
            }
        }
        let observed = EmitCancelledOnDrop::begin(shared.events());
        Ok(Self { entered: limit.enter(marks), after, observed })
    }

    /// It has started.
    #[inline(always)]
    pub(crate) fn started<C, K: TimeoutKind>(self, call: C) -> TimedCall<C, K> {
        let (limit, after) = (self.entered.leave(), self.after);
        TimedCall::Calling {
            call,
            timer: K::Timer::default(),
            limit,
            after,
            started: self.observed.started(),
            ended: false,
        }
    }
}

impl<C, K: TimeoutKind> TimedCall<C, K> {
    #[inline(always)]
    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self::Finished { rejection: Some(rejection), timeout: PhantomData }
    }
}

/// The starting of a call, for those who listen: it is cancelled if one of them or the service panics.
struct EmitCancelledOnDrop<'a> {
    events: Option<&'a EventEmitter>,
    started: u64,
}

impl<'a> EmitCancelledOnDrop<'a> {
    #[inline(always)]
    fn begin(events: Option<&'a EventEmitter>) -> Self {
        match events {
            Some(events) if events.has_observer() => {
                let observed = Self { events: Some(events), started: clock::nanos() };
                events.emit(|| EventKind::Admitted);
                observed
            }
            _ => Self { events: None, started: deadline::NEVER },
        }
    }

    #[inline(always)]
    fn started(mut self) -> u64 {
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

/// The time since a call began that somebody listens to.
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
        if let TimedCallProj::Calling { call, started, ended: false, .. } = self.as_mut().project() {
            let started = *started;
            call.cancel(shared);
            self.set(Self::Finished { rejection: None, timeout: PhantomData });
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
                return Poll::Ready(Err(rejection.take().expect("polled after it ended").into()));
            }
            TimedCallProj::Calling { mut call, mut timer, limit, after, started, ended } => {
                // A response that is there wins over the timer.
                let mut marks = None;
                let entered = limit.enter(&mut marks);
                let polled = call.as_mut().poll(shared, cx);
                *limit = entered.leave();
                if let Poll::Ready(result) = polled {
                    *ended = true;
                    if let Some(events) = shared.events() {
                        let verdict = ResultClassifier.classify(result.as_ref());
                        events.emit(|| EventKind::Completed { verdict, elapsed: since(*started) });
                    }
                    return Poll::Ready(result);
                }
                if *after != 0 {
                    if timer.armed_for().is_none() {
                        let mut deadline = limit.deadline();
                        // A deadline from outside may have been put around the call after it was made.
                        let advised = deadline::unenforced();
                        if advised < deadline {
                            *after = advised.saturating_sub(clock::nanos());
                            deadline = advised;
                        }
                        let Some(deadline) = clock::instant_of(deadline) else { return Poll::Pending };
                        if call.wakes_at().is_some_and(|at| at <= deadline) {
                            return Poll::Pending;
                        }
                        timer.as_mut().arm(deadline);
                    }
                    ready!(timer.poll(cx));
                }
                *ended = true;
                call.cancel(shared);
                *after
            }
        };
        // Drops the inner future before anybody hears of it: what it held is free by then, even if the observer panics.
        self.set(Self::Finished { rejection: None, timeout: PhantomData });
        Poll::Ready(Err(shared.time_out(duration_of(after), true).into()))
    }
    fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Calling { timer, .. } => timer.armed_for(),
            Self::Finished { .. } => None,
        }
    }
}
