//! A call between two attempts.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Sleep;

use super::{
    WhenNotReady,
    inner::ReplayHints,
    retry_call::{AttemptSource, Guard, HasRetry},
};
use crate::{call::CallService, clock, deadline::NEVER};

/// The state of a call that is retried.
pub(super) struct Retrying<S, E> {
    /// The service for the next attempt.
    pub(super) service: Option<S>,
    /// The error of the last attempt.
    pub(super) error: Option<E>,
    /// The request's hints, set with the last attempt, for which no request is saved to get them
    /// from.
    pub(super) hints: ReplayHints,
    wait: Wait,
}

/// Why the next attempt is not made yet.
enum Wait {
    /// The delay is not over.
    Delay(Pin<Box<Sleep>>),
    /// The service must become ready, before the deadline if there is one.
    Readiness { expiry: Option<Pin<Box<Sleep>>> },
}

impl<S, E> Default for Retrying<S, E> {
    fn default() -> Self {
        let (hints, wait) = (ReplayHints::default(), Wait::Readiness { expiry: None });
        Self { service: None, error: None, hints, wait }
    }
}

impl<S, E> Retrying<S, E> {
    /// Begins the delay before the next attempt. `error` is that of the last one.
    pub(super) fn delay(&mut self, delay: Duration, error: Option<E>) {
        self.error = error;
        self.wait = Wait::Delay(Box::pin(tokio::time::sleep(delay)));
    }

    /// When the delay is over, or [`NEVER`].
    pub(super) fn wakes_at(&self) -> u64 {
        match &self.wait {
            Wait::Delay(sleep) => clock::nanos_at(sleep.deadline()),
            Wait::Readiness { .. } => NEVER,
        }
    }

    /// Waits until the delay is over and the service is ready for the next attempt. Returns the
    /// error to respond with if no attempt is to be made.
    pub(super) fn poll_ready<P, Req>(
        &mut self,
        shared: &P,
        guard: &mut Guard<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<E>>
    where
        P: HasRetry + AttemptSource<S>,
        S: CallService<P::AttemptShared, Req, Error = E>,
    {
        let retry = shared.retry();
        if let Wait::Delay(sleep) = &mut self.wait {
            ready!(sleep.as_mut().poll(cx));
            self.wait = Wait::Readiness { expiry: None };
        }
        // Lateness comes first: a service that will not be called must not reserve anything.
        if self.error.is_some() && guard.in_flight().is_some_and(|state| retry.is_late(state)) {
            return Poll::Ready(self.error.take());
        }
        if self.service.is_none() {
            self.service = shared.service();
        }
        let Some(service) = &mut self.service else {
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
            let deadline = guard.in_flight().map_or(NEVER, |state| state.deadline());
            let Some(deadline) = clock::instant_of(deadline) else { return Poll::Pending };
            let Wait::Readiness { expiry } = &mut self.wait else { return Poll::Pending };
            let expiry = expiry.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(expiry.as_mut().poll(cx));
        }
        Poll::Ready(self.error.take())
    }
}
