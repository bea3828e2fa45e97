//! Permits, and a queue of waiters for them: first come, first served.

use std::{
    mem,
    ops::Deref,
    task::{Context, Poll, Waker},
    time::Duration,
};

use super::{
    linked_slab::{Key, LinkedSlab},
    lock::Lock,
    unwind::{self, finally},
};
use crate::state::{
    LAPSE_AFTER,
    permits::{Grant, Permits, QueueFull, Reservation},
    time::Nanos,
};

/// Permits and their waiters.
///
/// Waiters take the lock, and so does a release that finds waiters. Callers that find a free permit
/// never take it. (tokio's `Semaphore` takes its lock on every release, which is why it is not used
/// here.)
///
/// No wakeup is lost: a caller acquires a permit or announces a waiter in one atomic step, and the
/// mark of waiters changes only under the lock. So a release either finds no waiter, and later
/// callers see the free permit; or it finds one and takes the lock, and by then the waiter is in
/// the queue.
///
/// A permit granted to a waiter is [reserved](Permits) for it, so that a waiter that is never
/// polled again does not keep it. A waiter whose grant has lapsed rejoins at the front when it is
/// polled, and its next grant is exclusive.
#[derive(Debug)]
pub(crate) struct Semaphore {
    pub(crate) permits: Permits,
    waiters: Lock<LinkedSlab<WaiterState>>,
}

#[derive(Debug)]
enum WaiterState {
    /// Linked, in order of arrival.
    Waiting {
        waker: Waker,
        /// It has been polled since a grant lapsed, so it is still wanted.
        rejoined: bool,
    },
    /// Not linked, and not polled since.
    Granted(Reservation),
    /// Not linked: its grant has lapsed.
    Lapsed,
}

impl Semaphore {
    pub(crate) fn new(limit: u32) -> Self {
        Self { permits: Permits::new(limit), waiters: Lock::default() }
    }

    /// The permits in flight, those of them that are reserved, and the waiters, at one moment.
    pub(crate) fn counts(&self) -> (u32, u32, u32) {
        self.waiters.take(|waiters| {
            let (in_flight, reserved) = self.permits.counts();
            (in_flight, reserved, waiters.linked() as u32)
        })
    }

    /// Releases a permit, or grants it to the first waiter.
    #[inline]
    pub(crate) fn release(&self) {
        if self.permits.release().is_err() {
            self.hand_off();
        }
    }

    /// Releases a reserved permit, unless its reservation has lapsed.
    #[inline]
    pub(crate) fn release_reservation(&self, reservation: Reservation) {
        if self.permits.release_reservation(reservation).is_err() {
            self.hand_off();
        }
    }

    /// Grants a permit to the first waiter.
    #[cold]
    pub(crate) fn hand_off(&self) {
        let granted = self.waiters.take(|waiters| {
            let granted = self.grant_first(waiters, |grant, is_last| self.permits.hand_off_or_release(grant, is_last));
            if let Granted::NoWaiter = granted {
                // The waiters have left meanwhile.
                let released = self.permits.release();
                debug_assert!(released.is_ok(), "there are no waiters");
            }
            granted
        });
        if let Granted::Wake(waker) = granted {
            waker.wake();
        }
    }

    /// Changes the limit. A higher one admits waiters immediately; a lower one revokes nothing.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.waiters.take(|_| self.permits.set_limit(limit));
        let admit = |grant, is_last| self.permits.admit_waiter(grant, is_last);
        let mut more = true;
        while more {
            more = self.waiters.with(|waiters, outbox| {
                while !outbox.is_full() {
                    match self.grant_first(waiters, admit) {
                        Granted::Wake(waker) => outbox.wake(waker),
                        Granted::NoPermit | Granted::NoWaiter => return false,
                    }
                }
                true
            });
        }
    }

    /// Grants the permit that `acquire` provides to the first waiter.
    fn grant_first(
        &self,
        waiters: &mut LinkedSlab<WaiterState>,
        acquire: impl Fn(Grant, bool) -> Option<Reservation>,
    ) -> Granted {
        let is_last = waiters.linked() == 1;
        let Some(WaiterState::Waiting { rejoined, .. }) = waiters.first_mut() else { return Granted::NoWaiter };
        let grant = if *rejoined { Grant::Exclusive } else { self.permits.grant_to_new() };
        let Some(reservation) = acquire(grant, is_last) else { return Granted::NoPermit };
        let granted = waiters.unlink_first().map(|first| mem::replace(first, WaiterState::Granted(reservation)));
        let Some(WaiterState::Waiting { waker, .. }) = granted else { unreachable!("the first waiter waits") };
        Granted::Wake(waker)
    }
}

/// Whether the first waiter was granted a permit.
enum Granted {
    /// The waker is to be woken once the lock is released.
    Wake(Waker),
    NoPermit,
    NoWaiter,
}

/// Gives a waiter access to its semaphore.
pub(crate) trait HasSemaphore {
    fn semaphore(&self) -> &Semaphore;

    /// The current time, by which reservations lapse.
    fn now(&self) -> Nanos;
}

/// A queue slot at the semaphore of the resource that `H` refers to. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiter<H: Deref<Target: HasSemaphore>> {
    resource: H,
    /// `None` while it is not in the queue.
    key: Option<Key>,
    max_waiting: u32,
    /// The waiters that were ahead when it was last polled, at most.
    ahead: u32,
}

impl<H: Deref<Target: HasSemaphore>> Waiter<H> {
    /// Joins the queue at the first poll, if fewer than `max_waiting` wait at that time.
    pub(crate) fn new(resource: H, max_waiting: u32) -> Self {
        Self { resource, key: None, max_waiting, ahead: 0 }
    }

    pub(crate) fn resource(&self) -> &H::Target {
        &self.resource
    }

    /// The time after which a pending waiter must be polled again even if it is not woken: the
    /// grant of another waiter may have lapsed by then.
    ///
    /// Longer at the back of the queue, so that a long queue does not keep its runtime busy.
    pub(crate) fn check_again_after(&self) -> Duration {
        // Each waiter ahead, idle or not, uses one permit at a time.
        LAPSE_AFTER.saturating_mul(1 + self.ahead / self.resource.semaphore().permits.limit())
    }

    /// Acquires a permit, which the caller must release, or registers the task.
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), QueueFull>> {
        let in_queue = match self.key {
            None => false,
            Some(key) => match self.check_grant(key, cx.waker()) {
                Checked::Claimed => {
                    self.key = None;
                    self.resource.semaphore().permits.grant_was_claimed();
                    return Poll::Ready(Ok(()));
                }
                Checked::Waiting => true,
                Checked::Lapsed => false,
            },
        };
        if self.resource.semaphore().permits.try_acquire(|| self.resource.now()) {
            self.leave();
            return Poll::Ready(Ok(()));
        }
        if in_queue {
            return Poll::Pending;
        }
        if self.join(cx.waker().clone())? {
            self.leave();
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }

    /// Claims the permit of a waiter that was granted one. The waker of one that still waits is
    /// replaced if its task has another.
    fn check_grant(&mut self, key: Key, waker: &Waker) -> Checked {
        let Semaphore { permits, waiters } = self.resource.semaphore();
        let mut cloned = None;
        loop {
            let checked = waiters.take(|waiters| {
                let first = waiters.first();
                let Some(state) = waiters.get_mut(key) else { return Some(Checked::Lapsed) };
                match state {
                    WaiterState::Waiting { waker: registered, .. } => {
                        if let Some(cloned) = &mut cloned {
                            mem::swap(registered, cloned);
                        } else if !registered.will_wake(waker) {
                            return None;
                        }
                        self.ahead = ahead_of(key, first);
                        Some(Checked::Waiting)
                    }
                    WaiterState::Granted(reservation) if permits.claim(*reservation) => {
                        waiters.remove(key);
                        Some(Checked::Claimed)
                    }
                    WaiterState::Granted(_) | WaiterState::Lapsed => {
                        *state = WaiterState::Lapsed;
                        Some(Checked::Lapsed)
                    }
                }
            });
            match checked {
                Some(checked) => return checked,
                // Not under the lock: cloning a waker is foreign code.
                None => cloned = Some(waker.clone()),
            }
        }
    }

    /// Joins the queue: at the front if a grant has lapsed. Returns whether it acquired a permit
    /// instead.
    fn join(&mut self, waker: Waker) -> Result<bool, QueueFull> {
        let Semaphore { permits, waiters } = self.resource.semaphore();
        // Dropped after the lock is released, unless it joins.
        let mut waker = Some(waker);
        waiters.take(|waiters| {
            let may_join = self.key.is_some() || waiters.linked() < self.max_waiting as usize;
            if permits.acquire_or_enqueue(may_join)? {
                return Ok(true);
            }
            let Some(waker) = waker.take() else { unreachable!("it is taken once") };
            let state = WaiterState::Waiting { waker, rejoined: self.key.is_some() };
            let key = match self.key {
                Some(key) => {
                    if let Some(lapsed) = waiters.get_mut(key) {
                        *lapsed = state;
                    }
                    waiters.link_first(key);
                    key
                }
                None => waiters.push_back(state),
            };
            self.key = Some(key);
            self.ahead = ahead_of(key, waiters.first());
            Ok(false)
        })
    }

    /// Leaves the queue. A permit that was granted meanwhile goes to the next waiter.
    pub(crate) fn leave(&mut self) {
        self.leave_then(|_| ());
    }

    /// Leaves the queue, then runs `then`: even if the waker of the next waiter panics.
    pub(crate) fn leave_then(&mut self, then: impl FnOnce(&H::Target)) {
        let _then = finally(|| then(&self.resource));
        let Some(key) = self.key.take() else { return };
        let semaphore = self.resource.semaphore();
        let left = semaphore.waiters.take(|waiters| {
            if waiters.unlink(key) && waiters.linked() == 0 {
                semaphore.permits.last_waiter_left();
            }
            waiters.remove(key)
        });
        if let Some(WaiterState::Granted(reservation)) = left {
            semaphore.release_reservation(reservation);
        }
    }
}

/// The state of a waiter that is polled.
enum Checked {
    Claimed,
    Waiting,
    Lapsed,
}

fn ahead_of(waiter: Key, first: Option<Key>) -> u32 {
    let ahead = first.map_or(0, |first| waiter.distance_from(first));
    ahead.try_into().unwrap_or(u32::MAX - 1)
}

impl<H: Deref<Target: HasSemaphore>> Drop for Waiter<H> {
    fn drop(&mut self) {
        unwind::contain(|| self.leave());
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests;
