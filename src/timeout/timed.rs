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
    handle::{Inner, duration_of},
};
use crate::{
    classify::{Classify, ResultClassifier},
    clock,
    deadline::{self, Entered, Limit, Marks},
    error::Rejection,
    event::{EventKind, Tell},
    hold::Hold,
    lent::{Cancel, Owner, Stage},
};

/// What a call is lent by the timeout `K`: there may be two in a stack.
pub(crate) trait Timing<K> {
    /// To whom the timeout speaks, if anybody listens.
    fn tell(&self) -> Option<&Tell>;

    /// The refusal of a call that took too long, told to whom it concerns.
    fn time_out(&self, after: Duration, attempted: bool) -> Rejection;
}

/// A timeout, by its place.
pub(crate) trait Place {
    type Timer: Timer;
}

/// The only timeout of a layer or a stack.
pub(crate) struct Alone;

impl Place for Alone {
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
pub(crate) enum Voice {
    Quiet(&'static str),
    Held(Hold<Inner>),
}

impl Voice {
    #[inline(always)]
    pub(super) fn of(timeout: &Timeout) -> Self {
        match timeout.name().as_static() {
            Some(name) if !timeout.0.tell.is_on() => Self::Quiet(name),
            _ => Self::Held(timeout.0.hold()),
        }
    }
}

impl Owner for Voice {
    type Parts = Self;

    #[inline(always)]
    fn parts(&self) -> &Self {
        self
    }
}

impl Timing<Alone> for Voice {
    #[inline(always)]
    fn tell(&self) -> Option<&Tell> {
        match self {
            Self::Quiet(_) => None,
            Self::Held(inner) => Some(&inner.tell),
        }
    }

    fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        match self {
            Self::Quiet(name) => Rejection::timed_out(*name, after, attempted),
            Self::Held(inner) => inner.time_out(after, attempted),
        }
    }
}

impl Inner {
    #[cold]
    pub(crate) fn time_out(&self, after: Duration, attempted: bool) -> Rejection {
        self.tell.reject(|name| Rejection::timed_out(name, after, attempted))
    }
}

pin_project! {
    #[project = TimedProj]
    pub(crate) enum Timed<C, K>
    where
        K: Place,
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
        Late {
            rejection: Option<Rejection>,
            timeout: PhantomData<fn() -> K>,
        },
    }
}

/// A call that is beginning, within its limit.
pub(crate) struct Beginning<'a> {
    entered: Entered<'a>,
    /// What the rejection reports, in nanoseconds.
    after: u64,
    observed: Observed<'a>,
}

impl<'a> Beginning<'a> {
    /// A call that is given up `after` so many nanoseconds, or [`NEVER`](deadline::NEVER). `None` when the timeout was
    /// left out of the stack. Refused where a deadline has passed that nobody but us will enforce.
    #[inline(always)]
    pub(crate) fn new<P, K>(parts: &'a P, after: Option<u64>, marks: &'a mut Option<Marks>) -> Result<Self, Rejection>
    where
        P: Timing<K>,
    {
        let mut limit = after.map_or(Limit::None, Limit::Within);
        let mut after = after.unwrap_or(deadline::NEVER);
        let advised = deadline::advised();
        if advised != deadline::NEVER && !matches!(limit, Limit::None) {
            let left = advised.saturating_sub(clock::nanos());
            if left == 0 {
                return Err(parts.time_out(duration_of(after), false));
            }
            if left < after {
                (limit, after) = (Limit::Until(advised), left);
            }
        }
        let observed = Observed::begin(parts.tell());
        Ok(Self { entered: limit.enter(marks), after, observed })
    }

    /// It has begun.
    #[inline(always)]
    pub(crate) fn begun<C, K: Place>(self, call: C) -> Timed<C, K> {
        let (limit, after) = (self.entered.leave(), self.after);
        Timed::Calling { call, timer: K::Timer::default(), limit, after, started: self.observed.begun(), ended: false }
    }
}

impl<C, K: Place> Timed<C, K> {
    #[inline(always)]
    pub(crate) fn refused(rejection: Rejection) -> Self {
        Self::Late { rejection: Some(rejection), timeout: PhantomData }
    }
}

/// The beginning of a call, for those who listen: it is cancelled if one of them or the service panics.
struct Observed<'a> {
    tell: Option<&'a Tell>,
    started: u64,
}

impl<'a> Observed<'a> {
    #[inline(always)]
    fn begin(tell: Option<&'a Tell>) -> Self {
        match tell {
            Some(tell) if tell.is_on() => {
                let observed = Self { tell: Some(tell), started: clock::nanos() };
                tell.event(|| EventKind::Admitted);
                observed
            }
            _ => Self { tell: None, started: deadline::NEVER },
        }
    }

    #[inline(always)]
    fn begun(mut self) -> u64 {
        self.tell = None;
        self.started
    }
}

impl Drop for Observed<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(tell) = self.tell {
            tell.event(|| EventKind::Cancelled { admitted: true, elapsed: since(self.started) });
        }
    }
}

/// The time since a call began that somebody listens to.
fn since(started: u64) -> Option<Duration> {
    (started != deadline::NEVER).then(|| Duration::from_nanos(clock::nanos().saturating_sub(started)))
}

impl<P, C, K> Cancel<P> for Timed<C, K>
where
    P: Timing<K>,
    C: Cancel<P>,
    K: Place,
{
    fn cancel(mut self: Pin<&mut Self>, parts: &P) {
        if let TimedProj::Calling { call, started, ended: false, .. } = self.as_mut().project() {
            let started = *started;
            call.cancel(parts);
            self.set(Self::Late { rejection: None, timeout: PhantomData });
            if let Some(tell) = parts.tell() {
                tell.event(|| EventKind::Cancelled { admitted: true, elapsed: since(started) });
            }
        }
    }
}

impl<P, C, K, T, E> Stage<P> for Timed<C, K>
where
    P: Timing<K>,
    C: Stage<P, Output = Result<T, E>>,
    E: From<Rejection>,
    K: Place,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, parts: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let after = match self.as_mut().project() {
            TimedProj::Late { rejection, .. } => {
                return Poll::Ready(Err(rejection.take().expect("polled after it ended").into()));
            }
            TimedProj::Calling { mut call, mut timer, limit, after, started, ended } => {
                // A response that is there wins over the timer.
                let mut marks = None;
                let entered = limit.enter(&mut marks);
                let polled = call.as_mut().poll(parts, cx);
                *limit = entered.leave();
                if let Poll::Ready(result) = polled {
                    *ended = true;
                    if let Some(tell) = parts.tell() {
                        let verdict = ResultClassifier.classify(result.as_ref());
                        tell.event(|| EventKind::Completed { verdict, elapsed: since(*started) });
                    }
                    return Poll::Ready(result);
                }
                if *after != 0 {
                    if timer.armed_for().is_none() {
                        let mut deadline = limit.deadline();
                        // A deadline from outside may have been put around the call after it was made.
                        let advised = deadline::advised();
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
                call.cancel(parts);
                *after
            }
        };
        // Drops the inner future before anybody hears of it: what it held is free by then, even if the observer panics.
        self.set(Self::Late { rejection: None, timeout: PhantomData });
        Poll::Ready(Err(parts.time_out(duration_of(after), true).into()))
    }
    fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Calling { timer, .. } => timer.armed_for(),
            Self::Late { .. } => None,
        }
    }
}
