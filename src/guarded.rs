//! A call under guard: what a pattern keeps while the call runs.

use std::{
    future::Future,
    marker::PhantomData,
    mem,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::{
    classify::{Classify, ResultClassifier},
    error::Rejection,
    event::{EventEmitter, EventKind},
    lent::{CallFuture, CallService, Cancel},
};

/// What a pattern keeps of one call, such as a permit. Plain data: to be used up by [`Complete::complete`] or by this.
pub(crate) trait InFlight<P: ?Sized> {
    /// The call was dropped before it ended, by whoever waited for it or by a panic.
    fn cancel(self, shared: &P);
}

/// A [`InFlight`] for calls with such results.
pub(crate) trait Complete<P: ?Sized, T, E>: InFlight<P> {
    /// The call ended so: release now, however long the future's value is kept.
    fn complete(self, shared: &P, result: Result<&T, &E>);
}

/// What lends the voice of the pattern `K`, which keeps nothing of a call.
pub(crate) trait HasEvents<K> {
    /// `None` when nobody listens, or the pattern was left out of the stack.
    fn events(&self) -> Option<&EventEmitter>;
}

/// The ticket of a pattern that keeps nothing of a call: says how it ended, to those who listen.
pub(crate) struct EventOnly<K>(PhantomData<fn() -> K>);

impl<K> EventOnly<K> {
    /// The call is let in.
    #[inline(always)]
    pub(crate) fn admitted(events: &EventEmitter) -> Self {
        if events.has_observer() { emit_admitted(events, events, Self(PhantomData)) } else { Self(PhantomData) }
    }
}

impl<K> HasEvents<K> for EventEmitter {
    fn events(&self) -> Option<&EventEmitter> {
        Some(self)
    }
}

/// Tells those who listen that a call was admitted: if one of them panics, the call is cancelled.
#[inline(never)]
pub(crate) fn emit_admitted<P: ?Sized, K: InFlight<P>>(events: &EventEmitter, shared: &P, ticket: K) -> K {
    let held = CancelOnDrop::new(shared, ticket);
    events.emit(|| EventKind::Admitted);
    held.release().1
}

impl<K, P: HasEvents<K> + ?Sized> InFlight<P> for EventOnly<K> {
    fn cancel(self, shared: &P) {
        if let Some(events) = shared.events() {
            events.emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}

impl<K, P: HasEvents<K> + ?Sized, T, E> Complete<P, T, E> for EventOnly<K> {
    #[inline(always)]
    fn complete(self, shared: &P, result: Result<&T, &E>) {
        if let Some(events) = shared.events() {
            events.emit(|| EventKind::Completed { verdict: ResultClassifier.classify(result), elapsed: None });
        }
    }
}

/// A ticket with its handle, which cancels itself when it is dropped.
#[derive(Debug)]
pub(crate) struct CancelOnDrop<H, K>(Option<(H, K)>)
where
    H: Deref,
    K: InFlight<H::Target>;

impl<H, K> CancelOnDrop<H, K>
where
    H: Deref,
    K: InFlight<H::Target>,
{
    #[inline(always)]
    pub(crate) fn new(holder: H, ticket: K) -> Self {
        Self(Some((holder, ticket)))
    }

    /// Both, while the ticket is there.
    pub(crate) fn get(&self) -> Option<(&H::Target, &K)> {
        self.0.as_ref().map(|(holder, ticket)| (&**holder, ticket))
    }

    /// The ticket, to change it.
    #[inline(always)]
    pub(crate) fn ticket(&mut self) -> &mut K {
        &mut self.0.as_mut().expect("a ticket is used up last").1
    }

    /// Hands the ticket to somebody else.
    #[inline(always)]
    pub(crate) fn release(mut self) -> (H, K) {
        self.0.take().expect("a ticket is handed on once")
    }

    /// The call ended so.
    #[inline(always)]
    pub(crate) fn complete<T, E>(self, result: Result<&T, &E>)
    where
        K: Complete<H::Target, T, E>,
    {
        let (holder, ticket) = self.release();
        ticket.complete(&holder, result);
    }

    /// Uses the ticket up in another way.
    #[inline(always)]
    pub(crate) fn with(&mut self, use_up: impl FnOnce(&H::Target, K)) {
        if let Some((holder, ticket)) = self.0.take() {
            use_up(&holder, ticket);
        }
    }
}

impl<H, K> Drop for CancelOnDrop<H, K>
where
    H: Deref,
    K: InFlight<H::Target>,
{
    #[inline]
    fn drop(&mut self) {
        self.with(|shared, ticket| ticket.cancel(shared));
    }
}

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
