//! What all handles and futures of one bulkhead share, and the life of one call in it.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use super::queue::{PermitQueue, Waiter};
use crate::{
    call::{Acquisition, CancelOnDrop, Complete, InFlight, emit_admitted},
    classify::{Classify, ResultClassifier, Verdict},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{EventEmitter, EventKind},
    shared::striped::StripedRef,
};

#[derive(Debug)]
pub(crate) struct BulkheadInner {
    pub(crate) queue: PermitQueue,
    pub(crate) max_wait: Duration,
    pub(crate) max_queue: u32,
    pub(crate) events: EventEmitter,
    pub(crate) time: TimeSource,
}

impl BulkheadInner {
    /// The refusal of a call that found all permits out and no place to wait.
    #[inline(never)]
    pub(crate) fn full(&self) -> Rejection {
        self.events.reject(|name| Rejection::bulkhead_full(name, self.queue.permits().limit()))
    }

    /// Lets a call in that finds a permit.
    #[inline(always)]
    pub(crate) fn admit(&self) -> Option<CallPermit> {
        self.queue.try_acquire().then(|| self.begin())
    }

    /// Lets a call in, or has it wait if it may.
    #[inline(always)]
    pub(crate) fn enter<H: Deref<Target = Self> + Clone>(
        &self,
        holder: impl FnOnce() -> H,
    ) -> Acquisition<CallPermit, WaitForPermit<H>> {
        match self.admit() {
            Some(permitted) => Acquisition::Admitted(Some(permitted)),
            None if self.may_wait() => Acquisition::Queued(WaitForPermit::new(holder())),
            None => Acquisition::Rejected(self.full()),
        }
    }

    /// A call begins with a permit that was taken for it. If the observer panics, the permit comes home.
    #[inline(always)]
    pub(crate) fn begin(&self) -> CallPermit {
        if self.events.has_observer() { emit_admitted(&self.events, self, CallPermit) } else { CallPermit }
    }

    /// Whether a call that finds no free permit may wait for one.
    pub(crate) fn may_wait(&self) -> bool {
        !self.max_wait.is_zero() && self.max_queue > 0
    }
}

/// A permit that no call uses yet.
#[derive(Debug)]
pub(crate) struct UnusedPermit;

impl InFlight<BulkheadInner> for UnusedPermit {
    fn cancel(self, inner: &BulkheadInner) {
        inner.queue.release();
    }
}

/// A call's permit.
#[derive(Debug)]
pub(crate) struct CallPermit;

impl CallPermit {
    /// The call ended: the permit comes home now, however long the future's value is kept.
    #[inline(always)]
    pub(super) fn finish(self, inner: &BulkheadInner, verdict: Verdict) {
        inner.queue.release();
        inner.events.emit(|| EventKind::Completed { verdict, elapsed: None });
    }
}

/// What a call is lent.
pub(crate) trait HasBulkhead {
    /// `None` when the bulkhead was left out of the stack, or the call was refused.
    fn bulkhead(&self) -> Option<&BulkheadInner>;
}

impl HasBulkhead for BulkheadInner {
    #[inline(always)]
    fn bulkhead(&self) -> Option<&BulkheadInner> {
        Some(self)
    }
}

impl HasBulkhead for Option<StripedRef<BulkheadInner>> {
    #[inline(always)]
    fn bulkhead(&self) -> Option<&BulkheadInner> {
        self.as_deref()
    }
}

impl<P: HasBulkhead> InFlight<P> for CallPermit {
    fn cancel(self, shared: &P) {
        if let Some(inner) = shared.bulkhead() {
            inner.queue.release();
            inner.events.emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
        }
    }
}

impl<P: HasBulkhead, T, E> Complete<P, T, E> for CallPermit {
    #[inline(always)]
    fn complete(self, shared: &P, result: Result<&T, &E>) {
        if let Some(inner) = shared.bulkhead() {
            self.finish(inner, ResultClassifier.classify(result));
        }
    }
}

pin_project! {
    /// Waits for a permit, for as long and in as long a queue as the bulkhead allows.
    ///
    /// Cancel-safe: dropping it leaves the queue, and a permit that was just handed to it goes to the next.
    pub(crate) struct WaitForPermit<H>
    where
        H: Deref<Target = BulkheadInner>,
    {
        waiting: Waiter<H>,
        #[pin]
        sleep: Sleep,
        started: Nanos,
        cancelled: CancelledOnDrop<H>,
    }
}

impl<H: Deref<Target = BulkheadInner> + Clone> WaitForPermit<H> {
    pub(crate) fn new(holder: H) -> Self {
        Self {
            waiting: Waiter::new(holder.clone(), holder.max_queue),
            sleep: tokio::time::sleep(holder.max_wait),
            started: holder.time.now(),
            cancelled: CancelledOnDrop(Some(holder)),
        }
    }
}

impl<H: Deref<Target = BulkheadInner> + Unpin> Future for WaitForPermit<H> {
    /// To be used up at once: nothing gives a permit back that is dropped.
    type Output = Result<CallPermit, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A permit that is there wins over the timer.
        let granted = match Pin::new(this.waiting).poll(cx) {
            Poll::Ready(granted) => granted.is_ok(),
            Poll::Pending => {
                ready!(this.sleep.poll(cx));
                let holder = this.cancelled.disarm();
                let rejection = holder.events.reject(|name| Rejection::queue_timeout(name, holder.max_wait));
                return Poll::Ready(Err(rejection));
            }
        };
        let holder = this.cancelled.disarm();
        if !granted {
            return Poll::Ready(Err(holder.full()));
        }
        let held = CancelOnDrop::new(holder, UnusedPermit);
        if let Some((inner, _)) = held.get() {
            let waited = inner.time.now().saturating_since(*this.started);
            inner.events.emit(|| EventKind::WaitCompleted { waited });
        }
        let (holder, UnusedPermit) = held.release();
        Poll::Ready(Ok(holder.begin()))
    }
}

/// Says that the call was cancelled if it is dropped while it waits.
struct CancelledOnDrop<H: Deref<Target = BulkheadInner>>(Option<H>);

impl<H: Deref<Target = BulkheadInner>> CancelledOnDrop<H> {
    fn disarm(&mut self) -> H {
        self.0.take().expect("polled after it ended")
    }
}

impl<H: Deref<Target = BulkheadInner>> Drop for CancelledOnDrop<H> {
    fn drop(&mut self) {
        if let Some(holder) = self.0.take() {
            holder.events.emit(|| EventKind::Cancelled { admitted: false, elapsed: None });
        }
    }
}
