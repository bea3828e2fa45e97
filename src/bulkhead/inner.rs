//! The state that all handles and calls of one bulkhead share, and the permit of a call.

use std::{
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use crate::{
    call::{Acquisition, CancelOnDrop, Complete, Finish, InFlight, emit_admitted},
    classify::{Classify, DefaultClassifier, Verdict},
    clock::{self, Nanos, TimeSource},
    error::Rejection,
    event::{EventEmitter, EventKind},
    shared::{
        semaphore::{HasSemaphore, Semaphore, Waiter},
        striped::{StripedArc, StripedRef},
        timer::Timer,
        unwind::{self, finally},
    },
    state::{permits::Reservation, time::nanos_of},
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

    /// Reports that a call that began to wait at `started` has acquired a permit. If the observer
    /// panics, the permit is released.
    #[inline]
    fn emit_waited(&self, started: Nanos) {
        if self.events.has_observer() {
            let guard = CancelOnDrop::new(self, AcquiredPermit);
            let waited = self.time.now().saturating_since(started);
            self.events.emit(|| EventKind::WaitCompleted { waited });
            guard.disarm();
        }
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

/// Waits for a permit, which the caller must release.
///
/// Cancel-safe: dropping it leaves the queue, and a permit that was granted meanwhile goes to the
/// next waiter.
pub(crate) struct PermitWait<H>
where
    H: Deref<Target = BulkheadInner>,
{
    waiter: Waiter<H>,
    /// Fires at the deadline, or when a grant to another waiter may have lapsed.
    timer: Timer,
    /// When the timer fires. While it is not armed, the latest reading of the clock.
    fires_at: u64,
    /// `u64::MAX` without a limit.
    deadline: u64,
}

impl<H: Deref<Target = BulkheadInner>> PermitWait<H> {
    pub(crate) fn new(bulkhead: H, max_waiting: u32, max_wait: Duration) -> Self {
        let now = clock::nanos();
        let deadline = now.saturating_add(nanos_of(max_wait));
        Self { waiter: Waiter::new(bulkhead, max_waiting), timer: Timer::default(), fires_at: now, deadline }
    }

    fn bulkhead(&self) -> &BulkheadInner {
        self.waiter.resource()
    }

    fn leave_and_emit(&mut self, kind: EventKind<'_>) {
        unwind::contain(|| self.waiter.leave_then(|bulkhead| bulkhead.events.emit(|| kind)));
    }

    /// # Panics
    ///
    /// If it has to wait outside of a tokio runtime with time enabled.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NotAcquired>> {
        loop {
            // A permit that is granted wins over the timer.
            if let Poll::Ready(acquired) = self.waiter.poll(cx) {
                return Poll::Ready(acquired.map_err(|_| NotAcquired::QueueFull));
            }
            if !self.timer.is_armed() {
                let check_at = self.fires_at.saturating_add(nanos_of(self.waiter.check_again_after()));
                self.fires_at = self.deadline.min(check_at);
            }
            ready!(self.timer.poll(self.fires_at, cx));
            self.timer = Timer::default();
            self.fires_at = clock::nanos();
            if self.fires_at >= self.deadline {
                // Before the caller reports it: an observer sees the queue without this waiter.
                self.waiter.leave();
                return Poll::Ready(Err(NotAcquired::TimedOut));
            }
        }
    }
}

/// A call that waits for a permit, within the bulkhead's limits on time and queue length. Dropping
/// it reports the call as cancelled.
pub(crate) struct WaitForPermit<H>
where
    H: Deref<Target = BulkheadInner>,
{
    wait: PermitWait<H>,
    /// Read only for an observer.
    started: Nanos,
    has_completed: bool,
}

impl<H: Deref<Target = BulkheadInner>> WaitForPermit<H> {
    pub(crate) fn new(bulkhead: H) -> Self {
        let arriving = bulkhead.events.arriving();
        let started = if bulkhead.events.has_observer() { bulkhead.time.now() } else { Nanos::new(0) };
        arriving.arrived();
        let (max_queue, max_wait) = (bulkhead.max_queue, bulkhead.max_wait);
        Self { wait: PermitWait::new(bulkhead, max_queue, max_wait), started, has_completed: false }
    }
}

impl<H: Deref<Target = BulkheadInner> + Unpin> Future for WaitForPermit<H> {
    /// The permit, which must be guarded immediately: dropping it does not release it.
    type Output = Result<CallPermit, Rejection>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let acquired = ready!(self.wait.poll(cx));
        if acquired.is_ok() {
            self.wait.bulkhead().emit_waited(self.started);
        }
        self.has_completed = true;
        let bulkhead = self.wait.bulkhead();
        Poll::Ready(match acquired {
            Ok(()) => Ok(bulkhead.begin()),
            Err(NotAcquired::QueueFull) => Err(bulkhead.reject_full()),
            Err(NotAcquired::TimedOut) => {
                Err(bulkhead.events.reject(|name| Rejection::queue_timeout(name, bulkhead.max_wait)))
            }
        })
    }
}

impl<H: Deref<Target = BulkheadInner>> Drop for WaitForPermit<H> {
    fn drop(&mut self) {
        if !self.has_completed {
            self.wait.leave_and_emit(EventKind::Cancelled { admitted: false, elapsed: None });
        }
    }
}
