//! Waiters for a counted resource, first come, first served.

use std::{
    collections::VecDeque,
    future::Future,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use crate::state::atomics::Mutex;

/// A counted resource, such as permits, whose units go to waiters in order of arrival.
///
/// The resource keeps its own count of waiters, beside its free units, and changes it only where
/// this trait says so.
pub(crate) trait Queueable {
    /// The error of a full queue.
    type Full;

    fn queue(&self) -> &WaitQueue;

    /// Acquires a unit (`true`), or counts the caller as a waiter (`false`) if fewer than
    /// `max_waiting` wait. Called with the queue locked.
    ///
    /// # Errors
    ///
    /// [`Self::Full`] if no unit is free and the queue is full.
    fn acquire_or_join(&self, max_waiting: u32) -> Result<bool, Self::Full>;

    /// A counted waiter leaves without a unit. Called with the queue locked.
    fn leave(&self);

    /// Releases a unit, or grants it to the first waiter. Called with the queue unlocked.
    fn release(&self);
}

/// A queue of waiters.
///
/// Waiters take the lock, and so does a release that finds waiters. A resource with free units
/// never takes it. (tokio's `Semaphore` takes its lock on every release, which is why it is not
/// used here.)
///
/// No wakeup is lost: a caller acquires a unit or joins the waiters in one atomic step of the
/// resource, and the number of waiters changes only under the lock. So a release either finds no
/// waiter, and later callers see the free unit; or it finds one and takes the lock, and by then the
/// waiter is in the queue.
#[derive(Debug, Default)]
pub(crate) struct WaitQueue {
    waiters: Mutex<Waiters>,
}

#[derive(Debug, Default)]
struct Waiters {
    next_id: u64,
    /// In order of arrival. As many as the resource counts.
    waiting: VecDeque<WaitingTask>,
    /// Waiters that were granted a unit and have not been polled since.
    granted: Vec<u64>,
}

#[derive(Debug)]
struct WaitingTask {
    id: u64,
    waker: Waker,
}

impl WaitQueue {
    fn lock(&self) -> impl DerefMut<Target = Waiters> {
        // Nothing panics while it is held.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants a unit to the first waiter if `grant` takes it from the resource. `grant` runs with
    /// the queue locked.
    pub(crate) fn grant_one(&self, grant: impl FnOnce() -> bool) {
        let waker = {
            let mut waiters = self.lock();
            if grant() { waiters.grant_first() } else { None }
        };
        // With the queue unlocked: a waker may run its task, or drop it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Grants units to waiters as long as `grant` takes them from the resource, after `change`.
    /// Both run with the queue locked.
    pub(crate) fn grant_while(&self, change: impl FnOnce(), mut grant: impl FnMut() -> bool) {
        let mut wakers = Vec::new();
        {
            let mut waiters = self.lock();
            change();
            while grant() {
                wakers.extend(waiters.grant_first());
            }
        }
        for waker in wakers {
            waker.wake();
        }
    }
}

impl Waiters {
    fn join(&mut self, waker: &Waker) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        self.waiting.push_back(WaitingTask { id, waker: waker.clone() });
        id
    }

    fn grant_first(&mut self) -> Option<Waker> {
        let WaitingTask { id, waker } = self.waiting.pop_front()?;
        self.granted.push(id);
        Some(waker)
    }

    fn take_grant(&mut self, id: u64) -> bool {
        let at = self.granted.iter().position(|granted| *granted == id);
        at.map(|at| self.granted.swap_remove(at)).is_some()
    }
}

/// A place in the queue of the resource that `H` refers to. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiter<H: Deref<Target: Queueable>> {
    resource: H,
    max_waiting: u32,
    /// `None` until the first poll.
    id: Option<u64>,
}

impl<H: Deref<Target: Queueable>> Waiter<H> {
    /// Joins the queue at the first poll, if fewer than `max_waiting` wait at that time.
    pub(crate) fn new(resource: H, max_waiting: u32) -> Self {
        Self { resource, max_waiting, id: None }
    }

    /// Leaves the queue. A unit that was granted meanwhile goes to the next waiter.
    fn leave(&self, id: u64) {
        let mut waiters = self.resource.queue().lock();
        if let Some(at) = waiters.waiting.iter().position(|task| task.id == id) {
            waiters.waiting.remove(at);
            self.resource.leave();
        } else if waiters.take_grant(id) {
            drop(waiters);
            self.resource.release();
        }
    }
}

impl<H: Deref<Target: Queueable> + Unpin> Future for Waiter<H> {
    /// A unit, which the caller must release.
    type Output = Result<(), <H::Target as Queueable>::Full>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut waiters = this.resource.queue().lock();
        let Some(id) = this.id else {
            if this.resource.acquire_or_join(this.max_waiting)? {
                return Poll::Ready(Ok(()));
            }
            this.id = Some(waiters.join(cx.waker()));
            return Poll::Pending;
        };
        if waiters.take_grant(id) {
            this.id = None;
            return Poll::Ready(Ok(()));
        }
        if let Some(task) = waiters.waiting.iter_mut().find(|task| task.id == id) {
            task.waker.clone_from(cx.waker());
        }
        Poll::Pending
    }
}

impl<H: Deref<Target: Queueable>> Drop for Waiter<H> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.leave(id);
        }
    }
}
