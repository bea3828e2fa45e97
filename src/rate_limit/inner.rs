//! The state that all handles and calls of one limiter share, and the tokens of a call.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{
    Rate,
    queue::{GRACE, Joined, Ticket, Tokens, Turn},
};
use crate::{
    call::{Acquisition, CancelOnDrop, EventOnly, HasEvents, InFlight},
    clock::{self, Nanos, TimeSource},
    error::Rejection,
    event::{EventEmitter, EventKind},
    shared::striped::{StripedArc, StripedRef},
    state::gcra::{GcraRejection, Slot},
};

#[derive(Debug)]
pub(crate) struct RateLimiterInner {
    pub(crate) tokens: Tokens,
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

    /// The time at which a call has reached the limiter. If the clock panics, the call is
    /// cancelled.
    #[inline(always)]
    pub(crate) fn arrival_time(&self) -> Nanos {
        let arriving = self.events.arriving();
        let now = self.now();
        arriving.arrived();
        now
    }

    pub(crate) fn reject(&self, rejection: GcraRejection) -> Rejection {
        self.reject_as(rejection, |rejection| rejection)
    }

    #[inline(never)]
    fn reject_as<R>(&self, rejection: GcraRejection, reject: impl FnOnce(Rejection) -> R) -> R {
        let (limit, retry_after) = (self.tokens.params().burst(), rejection.retry_after());
        self.events.reject_as(|name| Rejection::RateLimited { limit, name, retry_after }, reject)
    }

    /// Consumes tokens that are available now, irrevocably, or rejects the call, and makes an `R`
    /// of it.
    #[inline(always)]
    pub(crate) fn check_as<R>(&self, cost: u32, admit: impl FnOnce() -> R, reject: impl FnOnce(Rejection) -> R) -> R {
        match self.tokens.check(self.arrival_time(), cost) {
            Ok(()) => admit(),
            Err(rejection) => self.reject_as(rejection, reject),
        }
    }

    /// Takes tokens that are available now. They can be returned.
    pub(crate) fn take(&self, cost: u32) -> Result<Slot, Rejection> {
        self.tokens.take(self.arrival_time(), cost).map_err(|rejection| self.reject(rejection))
    }

    /// Admits a call, queues it until its tokens are due if that is within `max_wait`, or rejects
    /// it.
    #[inline(always)]
    pub(crate) fn admit(
        handle: &StripedArc<Self>,
        cost: u32,
    ) -> Acquisition<SpentTokens, WaitForTokens<StripedRef<Self>>> {
        match handle.tokens.join(handle.arrival_time(), cost, handle.max_wait) {
            Ok(Joined::Admitted(_)) => Acquisition::Admitted(SpentTokens::admitted(&handle.events)),
            Ok(Joined::Waits(ticket)) => Acquisition::Queued(WaitForTokens::new(handle.acquire_ref(), ticket)),
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

/// Tokens that no call has used yet.
pub(crate) type UnusedTokens<H> = CancelOnDrop<H, Slot>;

impl InFlight<RateLimiterInner> for Slot {
    /// Returns the tokens.
    fn cancel(self, limiter: &RateLimiterInner) {
        limiter.tokens.cancel(self);
    }
}

impl InFlight<RateLimiterInner> for Ticket {
    /// Leaves the queue.
    fn cancel(self, limiter: &RateLimiterInner) {
        limiter.tokens.leave(&self);
    }
}

/// The ticket of a call, which reports that it is cancelled.
pub(crate) struct CallTicket(Ticket);

impl InFlight<RateLimiterInner> for CallTicket {
    fn cancel(self, limiter: &RateLimiterInner) {
        limiter.tokens.leave(&self.0);
        limiter.events.emit(|| EventKind::Cancelled { admitted: false, elapsed: None });
    }
}

/// The tokens of a call that is not admitted yet, which reports that it is cancelled.
struct CallTokens(Slot);

impl InFlight<RateLimiterInner> for CallTokens {
    fn cancel(self, limiter: &RateLimiterInner) {
        self.0.cancel(limiter);
        limiter.events.emit(|| EventKind::Cancelled { admitted: false, elapsed: None });
    }
}

impl AsRef<Ticket> for CallTicket {
    fn as_ref(&self) -> &Ticket {
        &self.0
    }
}

impl AsRef<Ticket> for Ticket {
    fn as_ref(&self) -> &Ticket {
        self
    }
}

pin_project! {
    /// Waits in the queue until tokens are due, and takes them.
    ///
    /// Cancel-safe: dropping it leaves the queue.
    pub(crate) struct Turns<H, K>
    where
        H: Deref<Target = RateLimiterInner>,
        K: InFlight<RateLimiterInner>,
    {
        ticket: Option<CancelOnDrop<H, K>>,
        #[pin]
        sleep: Sleep,
        joined: Instant,
        max_wait: Duration,
    }
}

impl<H, K> Turns<H, K>
where
    H: Deref<Target = RateLimiterInner>,
    K: InFlight<RateLimiterInner> + AsRef<Ticket>,
{
    pub(crate) fn new(limiter: H, ticket: K, max_wait: Duration) -> Self {
        // Guarded before the timer is created, which panics outside of a runtime.
        let ticket = Some(CancelOnDrop::new(limiter, ticket));
        Self { ticket, sleep: tokio::time::sleep(Duration::ZERO), joined: clock::instant(), max_wait }
    }
}

impl<H, K> Future for Turns<H, K>
where
    H: Deref<Target = RateLimiterInner>,
    K: InFlight<RateLimiterInner> + AsRef<Ticket>,
{
    type Output = Result<(H, Slot, Duration), (H, GcraRejection)>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let (limiter, ticket) =
                this.ticket.as_ref().and_then(CancelOnDrop::get).expect("polled after it completed");
            let elapsed = clock::instant().saturating_duration_since(*this.joined);
            // Timers are tokio's, so a manual clock that stands still must not stop the wait.
            let now = limiter.now().max(ticket.as_ref().arrived.saturating_add(elapsed));
            let patience = this.max_wait.saturating_add(GRACE).saturating_sub(elapsed);
            let rejection = match limiter.tokens.poll(ticket.as_ref(), now, cx.waker()) {
                Turn::Wait(wait) if !patience.is_zero() => {
                    let sleep = wait.min(patience).min(MAX_SLEEP);
                    let later = clock::instant().checked_add(sleep).expect("a month is representable");
                    this.sleep.as_mut().reset(later);
                    ready!(this.sleep.as_mut().poll(cx));
                    continue;
                }
                Turn::Wait(wait) => {
                    limiter.tokens.leave(ticket.as_ref());
                    GcraRejection::Wait(wait.into())
                }
                Turn::Taken { slot, waited } => {
                    let (limiter, _) = this.ticket.take().expect("checked above").disarm();
                    return Poll::Ready(Ok((limiter, slot, waited)));
                }
                Turn::Never => GcraRejection::Never,
            };
            let (limiter, _) = this.ticket.take().expect("checked above").disarm();
            return Poll::Ready(Err((limiter, rejection)));
        }
    }
}

/// The call looks again after this time at the latest.
const MAX_SLEEP: Duration = Duration::from_secs(30 * 86_400);

pin_project! {
    /// Waits until a call's tokens are due.
    ///
    /// Cancel-safe: dropping it leaves the queue.
    pub(crate) struct WaitForTokens<H>
    where
        H: Deref<Target = RateLimiterInner>,
    {
        #[pin]
        turns: Turns<H, CallTicket>,
    }
}

impl<H: Deref<Target = RateLimiterInner>> WaitForTokens<H> {
    pub(crate) fn new(limiter: H, ticket: Ticket) -> Self {
        let max_wait = limiter.max_wait;
        Self { turns: Turns::new(limiter, CallTicket(ticket), max_wait) }
    }
}

impl<H: Deref<Target = RateLimiterInner>> Future for WaitForTokens<H> {
    type Output = Result<SpentTokens, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().turns.poll(cx)) {
            Ok((limiter, slot, waited)) => {
                // Guarded until the observer has returned.
                let tokens = CancelOnDrop::new(limiter, CallTokens(slot));
                if let Some((limiter, _)) = tokens.get() {
                    limiter.events.emit(|| EventKind::WaitCompleted { waited });
                }
                let (limiter, _) = tokens.disarm();
                Ok(SpentTokens::admitted(&limiter.events))
            }
            Err((limiter, rejection)) => Err(limiter.reject(rejection)),
        })
    }
}
