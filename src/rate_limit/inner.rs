//! What all handles and futures of one limiter share, and the life of one call in it.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    sync::Mutex,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::Rate;
use crate::{
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{EventKind, Tell},
    guarded::{Entry, Held, Telling, Ticket, Told},
    hold::Hold,
    state::gcra::{Gcra, Refusal, Slot},
};

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) gcra: Gcra,
    /// As it was asked for. Locked by those who change or look at it, not by calls.
    pub(crate) rate: Mutex<Rate>,
    pub(crate) max_wait: Duration,
    pub(crate) tell: Tell,
    pub(crate) time: TimeSource,
}

impl Inner {
    pub(crate) fn now(&self) -> Nanos {
        self.time.now()
    }

    #[inline(never)]
    pub(crate) fn refuse(&self, refusal: Refusal) -> Rejection {
        let retry_after = match refusal {
            Refusal::Wait(wait) => Some(wait),
            Refusal::Never => None,
        };
        let limit = self.gcra.params().burst();
        self.tell.reject(|name| Rejection::rate_limited(name, retry_after, limit))
    }

    /// Takes tokens that are there now, for good.
    pub(crate) fn check(&self, cost: u32) -> Result<(), Rejection> {
        self.gcra.check(self.now(), cost).map_err(|refusal| self.refuse(refusal))
    }

    /// Lets a call in, or has it wait until its tokens are due, for up to `max_wait`.
    #[inline(always)]
    pub(crate) fn enter<H: Deref<Target = Self>>(
        &self,
        cost: u32,
        holder: impl FnOnce() -> H,
    ) -> Entry<Passed, Pace<H>> {
        match self.gcra.reserve(self.now(), cost, self.max_wait) {
            Ok((Duration::ZERO, _)) => Entry::Now(Some(Passed::admitted(&self.tell))),
            Ok((wait, slot)) => Entry::Later(Pace::new(holder(), slot, wait)),
            Err(refusal) => Entry::Never(self.refuse(refusal)),
        }
    }

    /// Takes tokens that are there now, and may be given back.
    pub(crate) fn take(&self, cost: u32) -> Result<Slot, Rejection> {
        match self.gcra.reserve(self.now(), cost, Duration::ZERO) {
            Ok((_, slot)) => Ok(slot),
            Err(refusal) => Err(self.refuse(refusal)),
        }
    }
}

/// Tokens that no call uses yet.
pub(crate) type Tokens<H> = Held<H, Slot>;

impl Ticket<Inner> for Slot {
    /// They are given back.
    fn cancel(self, inner: &Inner) {
        inner.gcra.cancel(self);
    }
}

/// A call that was let in. Nothing is to be released at its end.
pub(crate) type Passed = Told<Inner>;

impl Telling<Inner> for Inner {
    fn tell(&self) -> Option<&Tell> {
        Some(&self.tell)
    }
}

impl Telling<Inner> for Option<Hold<Inner>> {
    #[inline(always)]
    fn tell(&self) -> Option<&Tell> {
        self.as_ref().map(|inner| &inner.tell)
    }
}

pin_project! {
    /// Waits until the tokens that were reserved are due.
    ///
    /// Cancel-safe: dropping it gives them back.
    pub(crate) struct Pace<H>
    where
        H: Deref<Target = Inner>,
    {
        tokens: Option<Held<H, Awaited>>,
        #[pin]
        sleep: Sleep,
        wait: Duration,
    }
}

impl<H: Deref<Target = Inner>> Pace<H> {
    pub(crate) fn new(holder: H, slot: Slot, wait: Duration) -> Self {
        // Before the timer, which panics outside of a runtime.
        let tokens = Some(Held::new(holder, Awaited(slot)));
        Self { tokens, sleep: tokio::time::sleep(wait), wait }
    }
}

impl<H: Deref<Target = Inner>> Future for Pace<H> {
    type Output = Result<Passed, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        ready!(this.sleep.poll(cx));
        let (holder, _) = this.tokens.take().expect("polled after it ended").release();
        let waited = *this.wait;
        holder.tell.event(|| EventKind::PermitAwaited { waited });
        Poll::Ready(Ok(Passed::admitted(&holder.tell)))
    }
}

/// Tokens that are waited for: the call is cancelled if they are dropped meanwhile.
struct Awaited(Slot);

impl Ticket<Inner> for Awaited {
    fn cancel(self, inner: &Inner) {
        inner.gcra.cancel(self.0);
        inner.tell.event(|| EventKind::Cancelled { admitted: false, elapsed: None });
    }
}
