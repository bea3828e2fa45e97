//! The state that all handles and calls of one limiter share, and the tokens of a call.

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
    shared::striped::{StripedArc, StripedRef},
    state::gcra::{Gcra, GcraRejection, Slot},
};

#[derive(Debug)]
pub(crate) struct RateLimiterInner {
    pub(crate) gcra: Gcra,
    /// The rate as it was configured. Locked to change or inspect it, not by calls.
    pub(crate) rate: Mutex<Rate>,
    /// The rate and the burst that it was built with.
    pub(crate) built_rate: (Rate, u32),
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

    /// Consumes tokens that are available now, irrevocably.
    pub(crate) fn check(&self, cost: u32) -> Result<(), Rejection> {
        self.gcra.check(self.now(), cost).map_err(|rejection| self.reject(rejection))
    }

    /// Reserves tokens that are available now. The reservation can be cancelled.
    pub(crate) fn reserve(&self, cost: u32) -> Result<Slot, Rejection> {
        match self.gcra.reserve(self.now(), cost, Duration::ZERO) {
            Ok((_, slot)) => Ok(slot),
            Err(rejection) => Err(self.reject(rejection)),
        }
    }

    /// Admits a call, queues it until its tokens are due if that is within `max_wait`, or rejects
    /// it.
    #[inline(always)]
    pub(crate) fn admit(
        handle: &StripedArc<Self>,
        cost: u32,
    ) -> Acquisition<SpentTokens, WaitForTokens<StripedRef<Self>>> {
        match handle.gcra.reserve(handle.now(), cost, handle.max_wait) {
            Ok((Duration::ZERO, _)) => Acquisition::Admitted(SpentTokens::admitted(&handle.events)),
            Ok((wait, slot)) => Acquisition::Queued(WaitForTokens::new(handle.acquire_ref(), slot, wait)),
            Err(rejection) => Acquisition::Rejected(handle.reject(rejection)),
        }
    }
}

/// The in-flight state of an admitted call. Its tokens are spent, so nothing is released when it
/// completes.
pub(crate) type SpentTokens = EventOnly<RateLimiterInner>;

impl HasEvents<RateLimiterInner> for RateLimiterInner {
    fn events(&self) -> Option<&EventEmitter> {
        Some(&self.events)
    }
}

impl HasEvents<RateLimiterInner> for Option<StripedRef<RateLimiterInner>> {
    #[inline(always)]
    fn events(&self) -> Option<&EventEmitter> {
        self.as_ref().map(|limiter| &limiter.events)
    }
}

/// Reserved tokens that no call has used yet.
pub(crate) type UnusedTokens<H> = CancelOnDrop<H, Slot>;

impl InFlight<RateLimiterInner> for Slot {
    /// Returns the tokens.
    fn cancel(self, limiter: &RateLimiterInner) {
        limiter.gcra.cancel(self);
    }
}

/// Reserved tokens of a call that waits until they are due.
struct AwaitedTokens(Slot);

impl InFlight<RateLimiterInner> for AwaitedTokens {
    /// Returns the tokens and reports that the call was cancelled.
    fn cancel(self, limiter: &RateLimiterInner) {
        limiter.gcra.cancel(self.0);
        limiter.events.emit(|| EventKind::Cancelled { admitted: false, elapsed: None });
    }
}

pin_project! {
    /// Waits until reserved tokens are due.
    ///
    /// Cancel-safe: dropping it returns them.
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
    pub(crate) fn new(limiter: H, slot: Slot, wait: Duration) -> Self {
        // Guarded before the timer is created, which panics outside of a runtime.
        let tokens = Some(CancelOnDrop::new(limiter, AwaitedTokens(slot)));
        Self { tokens, sleep: tokio::time::sleep(wait), wait }
    }
}

impl<H: Deref<Target = RateLimiterInner>> Future for WaitForTokens<H> {
    type Output = Result<SpentTokens, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        ready!(this.sleep.poll(cx));
        let (limiter, _) = this.tokens.take().expect("polled after it completed").disarm();
        let waited = *this.wait;
        limiter.events.emit(|| EventKind::WaitCompleted { waited });
        Poll::Ready(Ok(SpentTokens::admitted(&limiter.events)))
    }
}
