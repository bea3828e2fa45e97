//! The state that all handles and calls of one bulkhead share, and the permit of a call.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use crate::{
    call::{Acquisition, CancelOnDrop, Complete, Finish, InFlight, emit_admitted},
    classify::{Classify, DefaultClassifier, Verdict},
    clock::{self, Nanos, TimeSource},
    error::Rejection,
    event::{EventEmitter, EventKind},
    shared::{
        semaphore::{HasSemaphore, Semaphore, Waiter},
        striped::{StripedArc, StripedRef},
        unwind::finally,
    },
    state::{LAPSE_AFTER, permits::Reservation},
};

#[derive(Debug)]
pub(crate) struct BulkheadInner {
    pub(crate) semaphore: Semaphore,
    /// The limit that it was built with.
    pub(crate) built_limit: u32,
    pub(crate) max_wait: Duration,
    pub(crate) max_queue: u32,
    pub(crate) events: EventEmitter,
    pub(crate) time: TimeSource,
}

impl BulkheadInner {
    /// Admits a call if a permit is free.
    #[inline(always)]
    pub(crate) fn try_admit(&self) -> Option<CallPermit> {
        self.semaphore.permits.try_acquire(|| self.time.now()).then(|| self.begin())
    }

    /// Reserves a permit if one is free.
    #[inline(always)]
    pub(crate) fn try_reserve(&self) -> Option<UnusedPermit> {
        self.semaphore.permits.try_reserve(|| self.time.now()).map(UnusedPermit)
    }

    /// Reserves a permit that was acquired.
    pub(crate) fn reserve(&self) -> UnusedPermit {
        UnusedPermit(self.semaphore.permits.reserve())
    }

    /// Admits a call that has a reservation. If it has lapsed, the call is admitted if another
    /// permit is free.
    #[inline(always)]
    pub(crate) fn admit_reserved(&self, UnusedPermit(reservation): UnusedPermit) -> Option<CallPermit> {
        if self.semaphore.permits.claim(reservation) { Some(self.begin()) } else { self.try_admit() }
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

    /// Releases the permit of a call, and emits its terminal event.
    #[inline(always)]
    fn release_and_emit(&self, kind: impl FnOnce() -> EventKind<'static>) {
        if self.semaphore.permits.release().is_err() {
            return self.hand_over_and_emit(kind());
        }
        #[allow(clippy::redundant_closure)] // it shortens the event's lifetime
        self.events.emit(|| kind());
    }

    #[cold]
    fn hand_over_and_emit(&self, kind: EventKind<'static>) {
        // Emitted even if the waker of the next waiter panics.
        let _event = finally(|| self.events.emit(|| kind));
        self.semaphore.hand_off();
    }

    /// Whether a call that finds no free permit may wait for one.
    pub(crate) fn may_wait(&self) -> bool {
        !self.max_wait.is_zero() && self.max_queue > 0
    }

    /// Rejects a call that found neither a free permit nor a free queue slot.
    pub(crate) fn reject_full(&self) -> Rejection {
        self.reject_full_as(|rejection| rejection)
    }

    /// As [`reject_full`](Self::reject_full), as part of an `R`.
    #[inline(never)]
    pub(crate) fn reject_full_as<R>(&self, reject: impl FnOnce(Rejection) -> R) -> R {
        self.events.reject_as(|name| Rejection::bulkhead_full(name, self.semaphore.permits.limit()), reject)
    }
}

impl HasSemaphore for BulkheadInner {
    fn semaphore(&self) -> &Semaphore {
        &self.semaphore
    }

    fn now(&self) -> Nanos {
        self.time.now()
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

impl<P: HasBulkhead> InFlight<P> for CallPermit {
    fn cancel(self, shared: &P) {
        shared.bulkhead().release_and_emit(|| EventKind::Cancelled { admitted: true, elapsed: None });
    }
}

impl<P: HasBulkhead> Finish<P> for CallPermit {
    #[inline(always)]
    fn finish(self, shared: &P, verdict: Verdict) {
        shared.bulkhead().release_and_emit(|| EventKind::Completed { verdict, elapsed: None });
    }
}

impl<P: HasBulkhead, T, E> Complete<P, T, E> for CallPermit {
    #[inline(always)]
    fn verdict(_shared: &P, result: Result<&T, &E>) -> Verdict {
        DefaultClassifier.classify(result)
    }
}

/// A permit that no call has used yet. It may lapse.
#[derive(Debug)]
pub(crate) struct UnusedPermit(Reservation);

impl UnusedPermit {
    /// Renews the reservation, which its owner still wants. Returns whether it has not lapsed.
    #[inline]
    pub(crate) fn renew(&mut self, bulkhead: &BulkheadInner) -> bool {
        bulkhead.semaphore.permits.renew(self.0).map(|renewed| self.0 = renewed).is_some()
    }
}

impl InFlight<BulkheadInner> for UnusedPermit {
    fn cancel(self, bulkhead: &BulkheadInner) {
        bulkhead.semaphore.release_reservation(self.0);
    }
}

/// A permit in use that no call has begun with yet.
struct AcquiredPermit;

impl InFlight<BulkheadInner> for AcquiredPermit {
    fn cancel(self, bulkhead: &BulkheadInner) {
        bulkhead.semaphore.release();
    }
}

/// A waiter that got no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAcquired {
    QueueFull,
    TimedOut,
}

pin_project! {
    /// Waits for a permit, which the caller must release.
    ///
    /// Cancel-safe: dropping it leaves the queue, and a permit that was granted meanwhile goes to
    /// the next waiter.
    pub(crate) struct PermitWait<H>
    where
        H: Deref<Target = BulkheadInner>,
    {
        waiter: Waiter<H>,
        // Fires at the deadline, or when a grant to another waiter may have lapsed.
        #[pin]
        sleep: Sleep,
        // `None` without a limit.
        deadline: Option<Instant>,
    }
}

impl<H: Deref<Target = BulkheadInner>> PermitWait<H> {
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    pub(crate) fn new(bulkhead: H, max_waiting: u32, max_wait: Duration) -> Self {
        Self {
            waiter: Waiter::new(bulkhead, max_waiting),
            sleep: tokio::time::sleep(max_wait.min(LAPSE_AFTER)),
            deadline: clock::instant().checked_add(max_wait),
        }
    }
}

impl<H: Deref<Target = BulkheadInner>> Future for PermitWait<H> {
    type Output = Result<(), NotAcquired>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            // A permit that is granted wins over the timer.
            if let Poll::Ready(acquired) = this.waiter.poll(cx) {
                return Poll::Ready(acquired.map_err(|_| NotAcquired::QueueFull));
            }
            ready!(this.sleep.as_mut().poll(cx));
            let now = clock::instant();
            if this.deadline.is_some_and(|deadline| now >= deadline) {
                // Before the caller reports it: an observer sees the queue without this waiter.
                this.waiter.leave();
                return Poll::Ready(Err(NotAcquired::TimedOut));
            }
            let wake_at = now + this.waiter.check_again_after();
            this.sleep.as_mut().reset(this.deadline.map_or(wake_at, |deadline| deadline.min(wake_at)));
        }
    }
}

pin_project! {
    /// A call that waits for a permit, within the bulkhead's limits on time and queue length.
    pub(crate) struct WaitForPermit<H>
    where
        H: Deref<Target = BulkheadInner>,
    {
        #[pin]
        wait: PermitWait<H>,
        started: Nanos,
        unadmitted: Unadmitted<H>,
    }
}

impl<H: Deref<Target = BulkheadInner> + Clone> WaitForPermit<H> {
    pub(crate) fn new(bulkhead: H) -> Self {
        // Guarded before the timer is created, which panics outside of a runtime.
        let unadmitted = Unadmitted(Some(bulkhead.clone()));
        Self {
            wait: PermitWait::new(bulkhead.clone(), bulkhead.max_queue, bulkhead.max_wait),
            started: bulkhead.time.now(),
            unadmitted,
        }
    }
}

impl<H: Deref<Target = BulkheadInner>> Future for WaitForPermit<H> {
    /// The permit, which must be guarded immediately: dropping it does not release it.
    type Output = Result<CallPermit, Rejection>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let acquired = ready!(this.wait.poll(cx));
        match acquired {
            Ok(()) => {}
            Err(NotAcquired::QueueFull) => return Poll::Ready(Err(this.unadmitted.disarm().reject_full())),
            Err(NotAcquired::TimedOut) => {
                let bulkhead = this.unadmitted.disarm();
                let rejection = bulkhead.events.reject(|name| Rejection::queue_timeout(name, bulkhead.max_wait));
                return Poll::Ready(Err(rejection));
            }
        }
        let bulkhead = this.unadmitted.get();
        let guard = CancelOnDrop::new(bulkhead, AcquiredPermit);
        let waited = bulkhead.time.now().saturating_since(*this.started);
        bulkhead.events.emit(|| EventKind::WaitCompleted { waited });
        guard.disarm();
        Poll::Ready(Ok(this.unadmitted.disarm().begin()))
    }
}

/// A call that is not admitted yet. Dropping it reports the call as cancelled.
struct Unadmitted<H: Deref<Target = BulkheadInner>>(Option<H>);

impl<H: Deref<Target = BulkheadInner>> Unadmitted<H> {
    fn get(&self) -> &BulkheadInner {
        self.0.as_deref().expect("polled after it completed")
    }

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
