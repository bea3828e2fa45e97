//! A call that may have to wait before it starts.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::{
    guarded::Guarded,
    in_flight::{CancelOnDrop, Complete, InFlight},
    service::{CallFuture, CallService, Cancel},
};
use crate::error::Rejection;

/// How a call gets past a pattern that may have it wait.
pub(crate) enum Acquisition<K, A> {
    /// It is let in now; without a ticket where the pattern was left out of the stack.
    Admitted(Option<K>),
    /// It has to wait for its ticket.
    Queued(A),
    /// It is refused.
    Rejected(Rejection),
}

pin_project! {
    /// A call that waits for its ticket, in `A`, before `S` makes it.
    #[project = QueuedProj]
    pub(crate) enum Queued<S, Req, A, C, K> {
        Waiting {
            // Allocated by those who wait, so that the calls of those who do not are small.
            wait: Pin<Box<QueuedCall<S, Req, A>>>,
        },
        Calling {
            #[pin]
            call: Guarded<C, K>,
        },
    }
}

pin_project! {
    pub(crate) struct QueuedCall<S, Req, A> {
        #[pin]
        acquire: A,
        service: S,
        request: Option<Req>,
    }
}

impl<S, Req, A, C, K> Queued<S, Req, A, C, K> {
    /// Calls the service, now or later. The instance that was polled ready makes the call; if that is later, its clone
    /// takes its place.
    #[inline(always)]
    pub(crate) fn enter<P>(shared: &P, entry: Acquisition<K, A>, service: &mut S, request: Req) -> Self
    where
        S: CallService<P, Req, Call = C> + Clone,
        K: InFlight<P>,
    {
        match entry {
            Acquisition::Admitted(ticket) => {
                let held = ticket.map(|ticket| CancelOnDrop::new(shared, ticket));
                Self::Calling { call: Guarded::started(service.call(shared, request), held) }
            }
            Acquisition::Rejected(rejection) => Self::Calling { call: Guarded::rejected(rejection) },
            Acquisition::Queued(acquire) => Self::Waiting { wait: wait(acquire, service, request) },
        }
    }
}

#[cold]
fn wait<S: Clone, Req, A>(acquire: A, service: &mut S, request: Req) -> Pin<Box<QueuedCall<S, Req, A>>> {
    let clone = service.clone();
    let service = mem::replace(service, clone);
    Box::pin(QueuedCall { acquire, service, request: Some(request) })
}

impl<P: ?Sized, S, Req, A, C, K> Cancel<P> for Queued<S, Req, A, C, K>
where
    C: Cancel<P>,
    K: InFlight<P>,
{
    fn cancel(self: Pin<&mut Self>, shared: &P) {
        // A wait cleans up behind itself.
        if let QueuedProj::Calling { call } = self.project() {
            call.cancel(shared);
        }
    }
}

impl<P: ?Sized, S, Req, A, K> CallFuture<P> for Queued<S, Req, A, S::Call, K>
where
    S: CallService<P, Req>,
    S::Error: From<Rejection>,
    A: Future<Output = Result<K, Rejection>>,
    K: Complete<P, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let call = match self.as_mut().project() {
                QueuedProj::Calling { call } => return call.poll(shared, cx),
                QueuedProj::Waiting { wait } => {
                    let wait = wait.as_mut().project();
                    match ready!(wait.acquire.poll(cx)) {
                        Ok(ticket) => {
                            let request = wait.request.take().expect("polled after it ended");
                            let held = CancelOnDrop::new(shared, ticket);
                            Guarded::started(wait.service.call(shared, request), Some(held))
                        }
                        Err(rejection) => Guarded::rejected(rejection),
                    }
                }
            };
            self.set(Self::Calling { call });
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Calling { call } => call.wakes_at(),
            Self::Waiting { .. } => None,
        }
    }
}
