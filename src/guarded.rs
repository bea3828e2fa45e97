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
    event::{EventKind, Tell},
    lent::{Cancel, Lent, Stage},
};

/// What a pattern keeps of one call, such as a permit. Plain data: to be used up by [`Guard::end`] or by this.
pub(crate) trait Ticket<P: ?Sized> {
    /// The call was dropped before it ended, by whoever waited for it or by a panic.
    fn cancel(self, parts: &P);
}

/// A [`Ticket`] for calls with such results.
pub(crate) trait Guard<P: ?Sized, T, E>: Ticket<P> {
    /// The call ended so: release now, however long the future's value is kept.
    fn end(self, parts: &P, result: Result<&T, &E>);
}

/// What lends the voice of the pattern `K`, which keeps nothing of a call.
pub(crate) trait Telling<K> {
    /// `None` when nobody listens, or the pattern was left out of the stack.
    fn tell(&self) -> Option<&Tell>;
}

/// The ticket of a pattern that keeps nothing of a call: says how it ended, to those who listen.
pub(crate) struct Told<K>(PhantomData<fn() -> K>);

impl<K> Told<K> {
    /// The call is let in.
    #[inline(always)]
    pub(crate) fn admitted(tell: &Tell) -> Self {
        if tell.is_on() { tell_admitted(tell, tell, Self(PhantomData)) } else { Self(PhantomData) }
    }
}

impl<K> Telling<K> for Tell {
    fn tell(&self) -> Option<&Tell> {
        Some(self)
    }
}

/// Tells those who listen that a call was admitted: if one of them panics, the call is cancelled.
#[inline(never)]
pub(crate) fn tell_admitted<P: ?Sized, K: Ticket<P>>(tell: &Tell, parts: &P, ticket: K) -> K {
    let held = Held::new(parts, ticket);
    tell.event(|| EventKind::Admitted);
    held.release().1
}

impl<K, P: Telling<K> + ?Sized> Ticket<P> for Told<K> {
    fn cancel(self, parts: &P) {
        if let Some(tell) = parts.tell() {
            tell.event(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}

impl<K, P: Telling<K> + ?Sized, T, E> Guard<P, T, E> for Told<K> {
    #[inline(always)]
    fn end(self, parts: &P, result: Result<&T, &E>) {
        if let Some(tell) = parts.tell() {
            tell.event(|| EventKind::Completed { verdict: ResultClassifier.classify(result), elapsed: None });
        }
    }
}

/// A ticket with its handle, which cancels itself when it is dropped.
#[derive(Debug)]
pub(crate) struct Held<H, K>(Option<(H, K)>)
where
    H: Deref,
    K: Ticket<H::Target>;

impl<H, K> Held<H, K>
where
    H: Deref,
    K: Ticket<H::Target>,
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
    pub(crate) fn end<T, E>(self, result: Result<&T, &E>)
    where
        K: Guard<H::Target, T, E>,
    {
        let (holder, ticket) = self.release();
        ticket.end(&holder, result);
    }

    /// Uses the ticket up in another way.
    #[inline(always)]
    pub(crate) fn with(&mut self, use_up: impl FnOnce(&H::Target, K)) {
        if let Some((holder, ticket)) = self.0.take() {
            use_up(&holder, ticket);
        }
    }
}

impl<H, K> Drop for Held<H, K>
where
    H: Deref,
    K: Ticket<H::Target>,
{
    #[inline]
    fn drop(&mut self) {
        self.with(|parts, ticket| ticket.cancel(parts));
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
        Refused {
            rejection: Option<Rejection>,
        },
        // It was dropped.
        Over,
    }
}

impl<C, K> Guarded<C, K> {
    /// A call that has begun, under the ticket if there is one. The ticket was held meanwhile: had the call panicked as it
    /// began, that would have been its cancellation.
    //
    // Not a closure that begins the call: closures are not inlined for sure, and each one that is not costs a copy of
    // the call, which is as long as the futures of all that is within.
    #[inline(always)]
    pub(crate) fn begun<P: ?Sized>(call: C, held: Option<Held<&P, K>>) -> Self
    where
        K: Ticket<P>,
    {
        Self::Calling { call, ticket: held.map(|held| held.release().1) }
    }

    #[inline(always)]
    pub(crate) fn refused(rejection: Rejection) -> Self {
        Self::Refused { rejection: Some(rejection) }
    }
}

impl<P: ?Sized, C, K> Cancel<P> for Guarded<C, K>
where
    C: Cancel<P>,
    K: Ticket<P>,
{
    fn cancel(mut self: Pin<&mut Self>, parts: &P) {
        if let GuardedProj::Calling { call, ticket } = self.as_mut().project() {
            // Cancelled after the call within has been dropped, also when that panics.
            let _held = ticket.take().map(|ticket| Held::new(parts, ticket));
            call.cancel(parts);
            self.set(Self::Over);
        }
    }
}

impl<P: ?Sized, C, K, T, E> Stage<P> for Guarded<C, K>
where
    C: Stage<P, Output = Result<T, E>>,
    K: Guard<P, T, E>,
    E: From<Rejection>,
{
    type Output = Result<T, E>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, parts: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            GuardedProj::Calling { call, ticket } => {
                let result = ready!(call.poll(parts, cx));
                if let Some(ticket) = ticket.take() {
                    ticket.end(parts, result.as_ref());
                }
                Poll::Ready(result)
            }
            GuardedProj::Refused { rejection } => {
                Poll::Ready(Err(rejection.take().expect("polled after it ended").into()))
            }
            GuardedProj::Over => unreachable!("polled after it was dropped"),
        }
    }

    fn wakes_at(&self) -> Option<Instant> {
        match self {
            Self::Calling { call, .. } => call.wakes_at(),
            Self::Refused { .. } | Self::Over => None,
        }
    }
}

/// How a call gets past a pattern that may have it wait.
pub(crate) enum Entry<K, A> {
    /// It is let in now; without a ticket where the pattern was left out of the stack.
    Now(Option<K>),
    /// It has to wait for its ticket.
    Later(A),
    /// It is refused.
    Never(Rejection),
}

pin_project! {
    /// A call that waits for its ticket, in `A`, before `S` makes it.
    #[project = DeferredProj]
    pub(crate) enum Deferred<S, Req, A, C, K> {
        Waiting {
            // Allocated by those who wait, so that the calls of those who do not are small.
            wait: Pin<Box<Wait<S, Req, A>>>,
        },
        Calling {
            #[pin]
            call: Guarded<C, K>,
        },
    }
}

pin_project! {
    pub(crate) struct Wait<S, Req, A> {
        #[pin]
        acquire: A,
        service: S,
        request: Option<Req>,
    }
}

impl<S, Req, A, C, K> Deferred<S, Req, A, C, K> {
    /// Calls the service, now or later. The instance that was polled ready makes the call; if that is later, its clone
    /// takes its place.
    #[inline(always)]
    pub(crate) fn enter<P>(parts: &P, entry: Entry<K, A>, service: &mut S, request: Req) -> Self
    where
        S: Lent<P, Req, Call = C> + Clone,
        K: Ticket<P>,
    {
        match entry {
            Entry::Now(ticket) => {
                let held = ticket.map(|ticket| Held::new(parts, ticket));
                Self::Calling { call: Guarded::begun(service.call(parts, request), held) }
            }
            Entry::Never(rejection) => Self::Calling { call: Guarded::refused(rejection) },
            Entry::Later(acquire) => Self::Waiting { wait: wait(acquire, service, request) },
        }
    }
}

#[cold]
fn wait<S: Clone, Req, A>(acquire: A, service: &mut S, request: Req) -> Pin<Box<Wait<S, Req, A>>> {
    let clone = service.clone();
    let service = mem::replace(service, clone);
    Box::pin(Wait { acquire, service, request: Some(request) })
}

impl<P: ?Sized, S, Req, A, C, K> Cancel<P> for Deferred<S, Req, A, C, K>
where
    C: Cancel<P>,
    K: Ticket<P>,
{
    fn cancel(self: Pin<&mut Self>, parts: &P) {
        // A wait cleans up behind itself.
        if let DeferredProj::Calling { call } = self.project() {
            call.cancel(parts);
        }
    }
}

impl<P: ?Sized, S, Req, A, K> Stage<P> for Deferred<S, Req, A, S::Call, K>
where
    S: Lent<P, Req>,
    S::Error: From<Rejection>,
    A: Future<Output = Result<K, Rejection>>,
    K: Guard<P, S::Response, S::Error>,
{
    type Output = Result<S::Response, S::Error>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, parts: &P, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let call = match self.as_mut().project() {
                DeferredProj::Calling { call } => return call.poll(parts, cx),
                DeferredProj::Waiting { wait } => {
                    let wait = wait.as_mut().project();
                    match ready!(wait.acquire.poll(cx)) {
                        Ok(ticket) => {
                            let request = wait.request.take().expect("polled after it ended");
                            let held = Held::new(parts, ticket);
                            Guarded::begun(wait.service.call(parts, request), Some(held))
                        }
                        Err(rejection) => Guarded::refused(rejection),
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
