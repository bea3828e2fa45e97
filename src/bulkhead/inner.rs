//! The state that all handles and calls of one bulkhead share, and the permit of a call.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Sleep;

use crate::{
    call::{Acquisition, CancelOnDrop, Complete, InFlight, emit_admitted},
    classify::{Classify, DefaultClassifier, Verdict},
    clock::{Nanos, TimeSource},
    error::Rejection,
    event::{EventEmitter, EventKind},
    shared::{
        striped::{StripedArc, StripedRef},
        wait_queue::{Queueable, WaitQueue, Waiter},
    },
    state::permits::{Permits, QueueFull},
};

#[derive(Debug)]
pub(crate) struct BulkheadInner {
    pub(crate) permits: Permits,
    /// The limit that it was built with.
    pub(crate) built_limit: u32,
    pub(crate) queue: WaitQueue,
    pub(crate) max_wait: Duration,
    pub(crate) max_queue: u32,
    pub(crate) events: EventEmitter,
    pub(crate) time: TimeSource,
}

impl BulkheadInner {
    /// Admits a call if a permit is free.
    #[inline(always)]
    pub(crate) fn try_admit(&self) -> Option<CallPermit> {
        self.permits.try_acquire().then(|| self.begin())
    }

    /// Admits a call, queues it if calls may wait, or rejects it.
    #[inline(always)]
    pub(crate) fn admit(handle: &StripedArc<Self>) -> Acquisition<CallPermit, WaitForPermit<StripedRef<Self>>> {
        match handle.try_admit() {
            Some(permit) => Acquisition::Admitted(permit),
            None if handle.may_wait() => Acquisition::Queued(WaitForPermit::new(handle.acquire_ref())),
            None => Acquisition::Rejected(handle.reject_full()),
        }
    }

    /// Begins a call that has acquired a permit. If the observer panics, the permit is released.
    #[inline(always)]
    pub(crate) fn begin(&self) -> CallPermit {
        if self.events.has_observer() { emit_admitted(&self.events, self, CallPermit) } else { CallPermit }
    }

    /// Releases a permit, or hands it to the first waiter.
    #[inline]
    pub(crate) fn release(&self) {
        if self.permits.release().is_err() {
            self.hand_over();
        }
    }

    #[cold]
    fn hand_over(&self) {
        self.queue.grant_one(|| self.permits.hand_off_or_release());
    }

    /// Changes the limit. A higher one admits waiters immediately; a lower one revokes nothing.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.queue.grant_while(|| self.permits.set_limit(limit), || self.permits.admit_waiter());
    }

    /// Whether a call that finds no free permit may wait for one.
    pub(crate) fn may_wait(&self) -> bool {
        !self.max_wait.is_zero() && self.max_queue > 0
    }

    /// Rejects a call that found neither a free permit nor a free queue slot.
    #[inline(never)]
    pub(crate) fn reject_full(&self) -> Rejection {
        self.events.reject(|name| Rejection::bulkhead_full(name, self.permits.limit()))
    }
}

impl Queueable for BulkheadInner {
    type Full = QueueFull;

    fn queue(&self) -> &WaitQueue {
        &self.queue
    }

    fn acquire_or_join(&self, max_waiting: u32) -> Result<bool, QueueFull> {
        self.permits.acquire_or_enqueue(max_waiting)
    }

    fn leave(&self) {
        self.permits.remove_waiter();
    }

    fn release(&self) {
        self.release();
    }
}

/// Gives a call access to its bulkhead.
pub(crate) trait HasBulkhead {
    fn bulkhead(&self) -> &BulkheadInner;
}

impl HasBulkhead for BulkheadInner {
    #[inline(always)]
    fn bulkhead(&self) -> &BulkheadInner {
        self
    }
}

/// The permit of a call in flight.
#[derive(Debug)]
pub(crate) struct CallPermit;

impl CallPermit {
    /// Releases the permit of a call that completed with this verdict.
    #[inline(always)]
    pub(super) fn finish(self, bulkhead: &BulkheadInner, verdict: Verdict) {
        bulkhead.release();
        bulkhead.events.emit(|| EventKind::Completed { verdict, elapsed: None });
    }
}

impl<P: HasBulkhead> InFlight<P> for CallPermit {
    fn cancel(self, shared: &P) {
        let bulkhead = shared.bulkhead();
        bulkhead.release();
        bulkhead.events.emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
    }
}

impl<P: HasBulkhead, T, E> Complete<P, T, E> for CallPermit {
    #[inline(always)]
    fn complete(self, shared: &P, result: Result<&T, &E>) {
        self.finish(shared.bulkhead(), DefaultClassifier.classify(result));
    }
}

/// A permit that no call has used yet.
#[derive(Debug)]
pub(crate) struct UnusedPermit;

impl InFlight<BulkheadInner> for UnusedPermit {
    fn cancel(self, bulkhead: &BulkheadInner) {
        bulkhead.release();
    }
}

pin_project! {
    /// Waits for a permit, within the bulkhead's limits on time and queue length.
    ///
    /// Cancel-safe: dropping it leaves the queue, and a permit that was granted meanwhile goes to
    /// the next waiter.
    pub(crate) struct WaitForPermit<H>
    where
        H: Deref<Target = BulkheadInner>,
    {
        waiter: Waiter<H>,
        #[pin]
        sleep: Sleep,
        started: Nanos,
        unadmitted: Unadmitted<H>,
    }
}

impl<H: Deref<Target = BulkheadInner> + Clone> WaitForPermit<H> {
    pub(crate) fn new(bulkhead: H) -> Self {
        Self {
            waiter: Waiter::new(bulkhead.clone(), bulkhead.max_queue),
            sleep: tokio::time::sleep(bulkhead.max_wait),
            started: bulkhead.time.now(),
            unadmitted: Unadmitted(Some(bulkhead)),
        }
    }
}

impl<H: Deref<Target = BulkheadInner> + Unpin> Future for WaitForPermit<H> {
    /// The permit, which must be guarded immediately: dropping it does not release it.
    type Output = Result<CallPermit, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        // A permit that is granted wins over the timer.
        let granted = match Pin::new(this.waiter).poll(cx) {
            Poll::Ready(granted) => granted.is_ok(),
            Poll::Pending => {
                ready!(this.sleep.poll(cx));
                let bulkhead = this.unadmitted.disarm();
                let rejection = bulkhead.events.reject(|name| Rejection::queue_timeout(name, bulkhead.max_wait));
                return Poll::Ready(Err(rejection));
            }
        };
        let bulkhead = this.unadmitted.disarm();
        if !granted {
            return Poll::Ready(Err(bulkhead.reject_full()));
        }
        let guard = CancelOnDrop::new(bulkhead, UnusedPermit);
        if let Some((bulkhead, _)) = guard.get() {
            let waited = bulkhead.time.now().saturating_since(*this.started);
            bulkhead.events.emit(|| EventKind::WaitCompleted { waited });
        }
        let (bulkhead, UnusedPermit) = guard.disarm();
        Poll::Ready(Ok(bulkhead.begin()))
    }
}

/// A call that is not admitted yet. Dropping it reports the call as cancelled.
struct Unadmitted<H: Deref<Target = BulkheadInner>>(Option<H>);

impl<H: Deref<Target = BulkheadInner>> Unadmitted<H> {
    fn disarm(&mut self) -> H {
        self.0.take().expect("polled after it completed")
    }
}

impl<H: Deref<Target = BulkheadInner>> Drop for Unadmitted<H> {
    fn drop(&mut self) {
        if let Some(bulkhead) = self.0.take() {
            bulkhead.events.emit(|| EventKind::Cancelled { admitted: false, elapsed: None });
        }
    }
}
