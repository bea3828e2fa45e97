//! A call under guard: what a pattern keeps while the call runs.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    in_flight::{CancelOnDrop, Complete, InFlight},
    service::{CallFuture, Cancel},
};
use crate::error::Rejection;

pin_project! {
    /// A call that was let in, or refused.
    #[project = GuardedProj]
    pub(crate) enum Guarded<C, K> {
        Calling {
            #[pin]
            call: C,
            // None when it ended, or when the pattern was left out of the stack.
            ticket: Option<K>,
        },
        Rejected {
            rejection: Option<Rejection>,
        },
        // It was dropped.
        Done,
    }
}

impl<C, K> Guarded<C, K> {
    /// A call that has started, under the ticket if there is one. The ticket was held meanwhile: had the call panicked as it
    /// began, that would have been its cancellation.
    //
    // Not a closure that begins the call: closures are not inlined for sure, and each one that is not costs a copy of
    // the call, which is as long as the futures of all that is within.
    #[inline(always)]
    pub(crate) fn started<P: ?Sized>(call: C, held: Option<CancelOnDrop<&P, K>>) -> Self
    where
        K: InFlight<P>,
    {
        Self::Calling { call, ticket: held.map(|held| held.release().1) }
    }

    #[inline(always)]
    pub(crate) fn rejected(rejection: Rejection) -> Self {
        Self::Rejected { rejection: Some(rejection) }
    }
}

impl<P: ?Sized, C, K> Cancel<P> for Guarded<C, K>
where
    C: Cancel<P>,
    K: InFlight<P>,
{
    fn cancel(mut self: Pin<&mut Self>, shared: &P) {
        if let GuardedProj::Calling { call, ticket } = self.as_mut().project() {
            // Cancelled after the call within has been dropped, also when that panics.
            let _held = ticket.take().map(|ticket| CancelOnDrop::new(shared, ticket));
            call.cancel(shared);
            self.set(Self::Done);
        }
    }
}

impl<P: ?Sized, C, K, T, E> CallFuture<P> for Guarded<C, K>
where
    C: CallFuture<P, Output = Result<T, E>>,
    K: Complete<P, T, E>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            GuardedProj::Calling { call, ticket } => {
                let result = ready!(call.poll(shared, cx));
                if let Some(ticket) = ticket.take() {
                    ticket.complete(shared, result.as_ref());
                }
                Poll::Ready(result)
            }
            GuardedProj::Rejected { rejection } => {
                Poll::Ready(Err(rejection.take().expect("polled after it ended").into()))
            }
            GuardedProj::Done => unreachable!("polled after it was dropped"),
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Calling { call, .. } => call.wakes_at(),
            Self::Rejected { .. } | Self::Done => None,
        }
    }
}
