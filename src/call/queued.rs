//! A call that may have to wait before it starts.

use std::{
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;

use super::{
    guarded::Guarded,
    in_flight::{Complete, Finish, InFlight},
    leaf::RejectCall,
    panic_guard::StartingCall,
    service::{CallFuture, CallService, Cancel},
};
use crate::{deadline::NEVER, error::Rejection};

/// A pattern's decision about a call that asks to start.
pub(crate) enum Acquisition<K, A> {
    /// It starts now.
    Admitted(K),
    /// It starts now, without the pattern.
    Bypassed,
    /// It starts once `A` resolves to its in-flight state.
    Queued(A),
    /// It does not start.
    Rejected(Rejection),
}

pin_project! {
    /// A call that starts with in-flight state `K`, or waits for it in `A` first, before `S` makes
    /// it.
    #[project = QueuedProj]
    pub(crate) enum Queued<S, Req, A, C, K> {
        Waiting {
            // Boxed, so that calls that do not wait are small.
            waiting: Pin<Box<Waiting<S, Req, A>>>,
        },
        Calling {
            #[pin]
            call: Guarded<C, K>,
        },
    }
}

pin_project! {
    /// A request that waits, with the service that will make the call.
    pub(crate) struct Waiting<S, Req, A> {
        #[pin]
        acquire: A,
        service: S,
        request: Option<Req>,
    }
}

impl<S, Req, A, C, K> Queued<S, Req, A, C, K> {
    /// Calls the service, now or later. The instance that was polled ready makes the call; for a
    /// later call, a clone takes its place.
    #[inline(always)]
    pub(crate) fn start<P>(shared: &P, acquisition: Acquisition<K, A>, service: &mut S, request: Req) -> Self
    where
        S: CallService<P, Req, Call = C> + Clone,
        C: RejectCall,
        K: Finish<P>,
    {
        let in_flight = match acquisition {
            Acquisition::Admitted(in_flight) => Some(in_flight),
            Acquisition::Bypassed => None,
            Acquisition::Rejected(rejection) => return Self::rejected(rejection),
            Acquisition::Queued(acquire) => return Self::Waiting { waiting: wait(acquire, service, request) },
        };
        let starting = StartingCall::new(shared, in_flight);
        let call = service.call(shared, request);
        Self::Calling { call: Guarded::started(call, starting.started()) }
    }
}

impl<S, Req, A, C: RejectCall, K> RejectCall for Queued<S, Req, A, C, K> {
    #[inline(always)]
    fn rejected(rejection: Rejection) -> Self {
        Self::Calling { call: Guarded::rejected(rejection) }
    }
}

#[cold]
fn wait<S: Clone, Req, A>(acquire: A, service: &mut S, request: Req) -> Pin<Box<Waiting<S, Req, A>>> {
    let clone = service.clone();
    let service = mem::replace(service, clone);
    Box::pin(Waiting { acquire, service, request: Some(request) })
}

impl<S, Req, A, C, K> Queued<S, Req, A, C, K> {
    /// Starts the call once it may start.
    #[cold]
    fn poll_acquire<P>(mut self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>) -> Poll<()>
    where
        P: ?Sized,
        S: CallService<P, Req, Call = C>,
        C: RejectCall,
        A: Future<Output = Result<K, Rejection>>,
        K: Finish<P>,
    {
        if let QueuedProj::Waiting { waiting } = self.as_mut().project() {
            let waiting = waiting.as_mut().project();
            let call = match ready!(waiting.acquire.poll(cx)) {
                Ok(in_flight) => {
                    let starting = StartingCall::new(shared, Some(in_flight));
                    let request = waiting.request.take().expect("polled after it completed");
                    let call = waiting.service.call(shared, request);
                    Guarded::started(call, starting.started())
                }
                Err(rejection) => Guarded::rejected(rejection),
            };
            self.set(Self::Calling { call });
        }
        Poll::Ready(())
    }
}

impl<P: ?Sized, S, Req, A, C, K> Cancel<P> for Queued<S, Req, A, C, K>
where
    C: Cancel<P>,
    K: InFlight<P>,
{
    fn cancel(self: Pin<&mut Self>, shared: &P) {
        // A wait releases its own state on drop.
        if let QueuedProj::Calling { call } = self.project() {
            call.cancel(shared);
        }
    }
}

impl<P: ?Sized, S, Req, A, K> CallFuture<P> for Queued<S, Req, A, S::Call, K>
where
    S: CallService<P, Req, Call: RejectCall>,
    A: Future<Output = Result<K, Rejection>>,
    K: Complete<P, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, shared: &P, cx: &mut Context<'_>, polled: &mut Poll<Self::Output>) {
        if let QueuedProj::Waiting { .. } = self.as_mut().project()
            && self.as_mut().poll_acquire(shared, cx).is_pending()
        {
            return;
        }
        if let QueuedProj::Calling { call } = self.project() {
            call.poll(shared, cx, polled);
        }
    }

    fn wakes_at(&self) -> u64 {
        match self {
            Self::Calling { call } => call.wakes_at(),
            Self::Waiting { .. } => NEVER,
        }
    }
}
