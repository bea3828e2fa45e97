//! A call and its repetitions.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{
    Repeat, WhenNotReady,
    inner::{Course, Declared, Inner},
};
use crate::{
    classify::{Classify, Verdict},
    deadline,
    guarded::{Held, Ticket, tell_admitted},
    lent::{Cancel, Lent, Stage},
};

/// What a call is lent.
pub(crate) trait Repeating {
    /// What the attempts are lent.
    type Parts;
    type Classifier;
    type Repeat;

    /// `None` when the retry was left out of the stack.
    fn retry(&self) -> Option<&Inner>;

    fn attempts(&self) -> &Self::Parts;

    fn classifier(&self) -> &Self::Classifier;

    fn repeat(&self) -> &Self::Repeat;
}

/// What lends a service for each further attempt.
pub(crate) trait Supplying<S> {
    fn service(&self) -> S;
}

impl Ticket<Inner> for Course {
    fn cancel(self, inner: &Inner) {
        inner.cancel(self);
    }
}

pin_project! {
    /// `S` makes the attempts `C`.
    pub(crate) struct Repeated<C, S, Req, E> {
        // None when the call ended, or when there is no retry.
        course: Option<Course>,
        // A copy of the request for the next attempt.
        copy: Option<Req>,
        // What the request says of itself, when there is no copy to ask: set with the last attempt.
        declared: Declared,
        // The service for the next attempt, once there was a failure: what a call allocates then does not matter.
        service: Option<Box<S>>,
        // The last attempt's error.
        error: Option<E>,
        #[pin]
        state: State<C>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<C> {
        Attempt { #[pin] call: C },
        Sleeping { sleep: Pin<Box<Sleep>> },
        // The delay is over, the service must become ready, until the deadline if there is one.
        Waiting { expiry: Option<Pin<Box<Sleep>>> },
        // It was dropped.
        Over,
    }
}

/// A call that is beginning.
pub(crate) struct Beginning<'a, Req> {
    held: Option<Held<&'a Inner, Course>>,
    copy: Option<Req>,
}

impl<'a, Req> Beginning<'a, Req> {
    #[inline(always)]
    pub(crate) fn new<P>(parts: &'a P, request: &Req) -> Self
    where
        P: Repeating<Repeat: Repeat<Req>>,
    {
        let Some(retry) = parts.retry() else { return Self { held: None, copy: None } };
        let mut course = retry.begin();
        if retry.tell.is_on() {
            course = tell_admitted(&retry.tell, retry, course);
        }
        let may_repeat = retry.may_repeat(&course);
        let held = Held::new(retry, course);
        let copy = if may_repeat { parts.repeat().duplicate(request) } else { None };
        Self { held: Some(held), copy }
    }

    /// The first attempt has begun.
    #[inline(always)]
    pub(crate) fn begun<C, S, E>(self, call: C) -> Repeated<C, S, Req, E> {
        let course = self.held.map(|held| held.release().1);
        let state = State::Attempt { call };
        Repeated { course, copy: self.copy, declared: Declared::default(), service: None, error: None, state }
    }
}

impl<P, C, S, Req, E> Cancel<P> for Repeated<C, S, Req, E>
where
    P: Repeating,
    C: Cancel<P::Parts>,
{
    fn cancel(self: Pin<&mut Self>, parts: &P) {
        let mut this = self.project();
        // Cancelled after the attempt has been dropped, also when that panics.
        let _held = parts.retry().zip(this.course.take()).map(|(retry, course)| Held::new(retry, course));
        if let StateProj::Attempt { call } = this.state.as_mut().project() {
            call.cancel(parts.attempts());
        }
        this.state.set(State::Over);
    }
}

impl<P, C, S, Req, T, E> Stage<P> for Repeated<C, S, Req, E>
where
    P: Repeating<Classifier: Classify<T, E>, Repeat: Repeat<Req>> + Supplying<S>,
    S: Lent<P::Parts, Req, Call = C, Response = T, Error = E>,
    C: Stage<P::Parts, Output = Result<T, E>>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, parts: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (Some(retry), Some(course)) = (parts.retry(), this.course.as_mut()) else {
            return match this.state.project() {
                StateProj::Attempt { call } => call.poll(parts.attempts(), cx),
                _ => unreachable!("polled after it ended"),
            };
        };
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Attempt { call } => {
                    let outer = deadline::swap_exhausted(false);
                    let polled = call.poll(parts.attempts(), cx);
                    let exhausted = deadline::swap_exhausted(outer);
                    let result = ready!(polled);
                    let verdict = parts.classifier().classify(result.as_ref());
                    let delay = if verdict == Verdict::Success {
                        retry.succeeded();
                        None
                    } else {
                        let copy = &*this.copy;
                        let declared =
                            || copy.as_ref().map_or(*this.declared, |copy| Declared::of(parts.repeat(), copy));
                        let classify = parts.classifier();
                        retry.judge(course, verdict, classify, result.as_ref(), copy.is_some(), declared, exhausted)
                    };
                    let Some(delay) = delay else {
                        // Whoever keeps the future after its end keeps neither the request nor a service.
                        (*this.copy, *this.service) = (None, None);
                        if let Some(course) = this.course.take() {
                            retry.finish(course, verdict);
                        }
                        return Poll::Ready(result);
                    };
                    *this.error = result.err();
                    State::Sleeping { sleep: Box::pin(tokio::time::sleep(delay)) }
                }
                StateProj::Sleeping { sleep } => {
                    ready!(sleep.as_mut().poll(cx));
                    State::Waiting { expiry: None }
                }
                StateProj::Waiting { expiry } => {
                    let service = this.service.get_or_insert_with(|| Box::new(parts.service()));
                    // Lateness comes first: a service that is not going to be called should not reserve anything.
                    let instead = if this.error.is_some() && retry.is_late(course) {
                        this.error.take()
                    } else {
                        match service.poll_ready(parts.attempts(), cx) {
                            Poll::Ready(Ok(())) => None,
                            Poll::Ready(Err(refused)) => Some(this.error.take().unwrap_or(refused)),
                            // A failed response is gone: there is nothing else to answer with, so wait.
                            Poll::Pending if this.error.is_none() => return Poll::Pending,
                            Poll::Pending => {
                                if retry.when_not_ready == WhenNotReady::Wait {
                                    let Some(deadline) = course.deadline() else { return Poll::Pending };
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
                        if let Some(course) = this.course.take() {
                            retry.give_up(course);
                        }
                        return Poll::Ready(Err(error));
                    }
                    let mut request = this.copy.take().expect("a retry needs a request");
                    let attempt = course.next();
                    if attempt < retry.max_attempts() {
                        *this.copy = parts.repeat().duplicate(&request);
                    } else {
                        *this.declared = Declared::of(parts.repeat(), &request);
                    }
                    parts.repeat().prepare(attempt, &mut request);
                    *this.error = None;
                    course.sent();
                    State::Attempt { call: service.call(parts.attempts(), request) }
                }
                StateProj::Over => unreachable!("polled after it was dropped"),
            };
            this.state.set(next);
        }
    }
    fn wakes_at(&self) -> Option<Instant> {
        match &self.state {
            State::Attempt { call } => call.wakes_at(),
            State::Sleeping { sleep } => Some(sleep.deadline()),
            State::Waiting { .. } | State::Over => None,
        }
    }
}
