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
    call::{Acquisition, CancelOnDrop, EventOnly, HasEvents, InFlight},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{EventEmitter, EventKind},
    shared::striped::StripedRef,
    state::gcra::{Gcra, GcraRejection, Slot},
};

#[derive(Debug)]
pub(crate) struct RateLimiterInner {
    pub(crate) gcra: Gcra,
    /// As it was asked for. Locked by those who change or look at it, not by calls.
    pub(crate) rate: Mutex<Rate>,
    pub(crate) max_wait: Duration,
    pub(crate) events: EventEmitter,
    pub(crate) time: TimeSource,
}

impl RateLimiterInner {
    pub(crate) fn now(&self) -> Nanos {
        self.time.now()
    }

    #[inline(never)]
    pub(crate) fn reject(&self, rejection: GcraRejection) -> Rejection {
        let retry_after = match rejection {
            GcraRejection::Wait(wait) => Some(wait),
            GcraRejection::Never => None,
        };
        let limit = self.gcra.params().burst();
        self.events.reject(|name| Rejection::rate_limited(name, retry_after, limit))
    }

    /// Takes tokens that are there now, for good.
    pub(crate) fn check(&self, cost: u32) -> Result<(), Rejection> {
        self.gcra.check(self.now(), cost).map_err(|rejection| self.reject(rejection))
    }

    /// Lets a call in, or has it wait until its tokens are due, for up to `max_wait`.
    #[inline(always)]
    pub(crate) fn enter<H: Deref<Target = Self>>(
        &self,
        cost: u32,
        holder: impl FnOnce() -> H,
    ) -> Acquisition<SpentTokens, WaitForTokens<H>> {
        match self.gcra.reserve(self.now(), cost, self.max_wait) {
            Ok((Duration::ZERO, _)) => Acquisition::Admitted(Some(SpentTokens::admitted(&self.events))),
            Ok((wait, slot)) => Acquisition::Queued(WaitForTokens::new(holder(), slot, wait)),
            Err(rejection) => Acquisition::Rejected(self.reject(rejection)),
        }
    }

    /// Takes tokens that are there now, and may be given back.
    pub(crate) fn take(&self, cost: u32) -> Result<Slot, Rejection> {
        match self.gcra.reserve(self.now(), cost, Duration::ZERO) {
            Ok((_, slot)) => Ok(slot),
            Err(rejection) => Err(self.reject(rejection)),
        }
    }
}

/// UnusedTokens that no call uses yet.
pub(crate) type UnusedTokens<H> = CancelOnDrop<H, Slot>;

impl InFlight<RateLimiterInner> for Slot {
    /// They are given back.
    fn cancel(self, inner: &RateLimiterInner) {
        inner.gcra.cancel(self);
    }
}

/// A call that was let in. Nothing is to be released at its end.
pub(crate) type SpentTokens = EventOnly<RateLimiterInner>;

impl HasEvents<RateLimiterInner> for RateLimiterInner {
    fn events(&self) -> Option<&EventEmitter> {
        Some(&self.events)
    }
}

impl HasEvents<RateLimiterInner> for Option<StripedRef<RateLimiterInner>> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        self.as_ref().map(|inner| &inner.events)
    }
}

pin_project! {
    /// Waits until the tokens that were reserved are due.
    ///
    /// Cancel-safe: dropping it gives them back.
    pub(crate) struct WaitForTokens<H>
    where
        H: Deref<Target = RateLimiterInner>,
    {
        tokens: Option<CancelOnDrop<H, AwaitedTokens>>,
        #[pin]
        sleep: Sleep,
        wait: Duration,
    }
}

impl<H: Deref<Target = RateLimiterInner>> WaitForTokens<H> {
    pub(crate) fn new(holder: H, slot: Slot, wait: Duration) -> Self {
        // Before the timer, which panics outside of a runtime.
        let tokens = Some(CancelOnDrop::new(holder, AwaitedTokens(slot)));
        Self { tokens, sleep: tokio::time::sleep(wait), wait }
    }
}

impl<H: Deref<Target = RateLimiterInner>> Future for WaitForTokens<H> {
    type Output = Result<SpentTokens, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        ready!(this.sleep.poll(cx));
        let (holder, _) = this.tokens.take().expect("polled after it ended").release();
        let waited = *this.wait;
        holder.events.emit(|| EventKind::WaitCompleted { waited });
        Poll::Ready(Ok(SpentTokens::admitted(&holder.events)))
    }
}

/// UnusedTokens that are waited for: the call is cancelled if they are dropped meanwhile.
struct AwaitedTokens(Slot);

impl InFlight<RateLimiterInner> for AwaitedTokens {
    fn cancel(self, inner: &RateLimiterInner) {
        inner.gcra.cancel(self.0);
        inner.events.emit(|| EventKind::Cancelled { admitted: false, elapsed: None });
    }
}
