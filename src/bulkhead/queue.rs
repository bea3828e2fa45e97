//! Those who wait for a permit, first come first served.

use std::{
    collections::VecDeque,
    future::Future,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::PoisonError,
    task::{Context, Poll, Waker},
};

use super::inner::BulkheadInner;
use crate::state::{
    atomics::Mutex,
    permits::{Permits, QueueFull},
};

/// Permits, and a queue for them.
///
/// The lock is taken by those who wait, by a permit that comes home while somebody does, and by a change of the limit.
/// A bulkhead that is not full never takes it (tokio's `Semaphore` takes its lock at every release, which is why it is
/// not used here).
///
/// No wake-up is lost. A caller looks for a permit and joins the queue in one step of the permit word, and the number of
/// those who wait changes only under the lock. So a release either finds nobody waiting, and whoever comes later sees
/// the free permit; or it finds somebody, takes the lock, and by then the waiter's entry is in the queue.
#[derive(Debug)]
pub(crate) struct PermitQueue {
    permits: Permits,
    waiters: Mutex<WaitList>,
}

#[derive(Debug, Default)]
struct WaitList {
    next: u64,
    /// In order of arrival. As many as the permit word says are waiting.
    queue: VecDeque<QueueEntry>,
    /// WaitList that were handed a permit and have not been polled since.
    granted: Vec<u64>,
}

#[derive(Debug)]
struct QueueEntry {
    id: u64,
    waker: Waker,
}

impl PermitQueue {
    pub(crate) fn new(limit: u32) -> Self {
        Self { permits: Permits::new(limit), waiters: Mutex::default() }
    }

    fn lock(&self) -> impl DerefMut<Target = WaitList> {
        // Nothing panics while it is held.
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn permits(&self) -> &Permits {
        &self.permits
    }

    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        self.permits.try_acquire()
    }

    /// Gives a permit back, or hands it to the first who waits.
    #[inline]
    pub(crate) fn release(&self) {
        if self.permits.release().is_err() {
            self.hand_over();
        }
    }

    /// Somebody waits, or did.
    #[cold]
    fn hand_over(&self) {
        let waker = {
            let mut waiters = self.lock();
            if self.permits.hand_off_or_release() { waiters.grant_first() } else { None }
        };
        // Outside the lock: a waker may run the task, or drop it.
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Changes the limit; a higher one lets in those who wait, a lower one revokes nothing.
    pub(crate) fn set_limit(&self, limit: u32) {
        let mut wakers = Vec::new();
        {
            let mut waiters = self.lock();
            self.permits.set_limit(limit);
            while self.permits.admit_waiter() {
                wakers.extend(waiters.grant_first());
            }
        }
        for waker in wakers {
            waker.wake();
        }
    }

    /// A waiter leaves. If a permit was handed to it in the same moment, the next one gets it.
    fn leave(&self, id: u64) {
        let mut waiters = self.lock();
        if let Some(at) = waiters.queue.iter().position(|entry| entry.id == id) {
            waiters.queue.remove(at);
            self.permits.remove_waiter();
        } else if waiters.take_grant(id) {
            drop(waiters);
            self.release();
        }
    }
}

impl WaitList {
    fn grant_first(&mut self) -> Option<Waker> {
        let QueueEntry { id, waker } = self.queue.pop_front()?;
        self.granted.push(id);
        Some(waker)
    }

    fn take_grant(&mut self, id: u64) -> bool {
        let at = self.granted.iter().position(|granted| *granted == id);
        at.map(|at| self.granted.swap_remove(at)).is_some()
    }
}

/// A place in the queue. `H` is how it holds on to the bulkhead. Dropping it leaves the queue.
#[derive(Debug)]
pub(crate) struct Waiter<H: Deref<Target = BulkheadInner>> {
    holder: H,
    max_waiting: u32,
    /// Nobody yet, until the first poll.
    id: Option<u64>,
}

impl<H: Deref<Target = BulkheadInner>> Waiter<H> {
    /// Joins the queue at the first poll, if fewer than `max_waiting` are in it then.
    pub(crate) fn new(holder: H, max_waiting: u32) -> Self {
        Self { holder, max_waiting, id: None }
    }
}

impl<H: Deref<Target = BulkheadInner> + Unpin> Future for Waiter<H> {
    /// A permit, which is the caller's to release.
    type Output = Result<(), QueueFull>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let queue = &this.holder.queue;
        let mut waiters = queue.lock();
        let Some(id) = this.id else {
            if queue.permits.acquire_or_enqueue(this.max_waiting)? {
                return Poll::Ready(Ok(()));
            }
            let id = waiters.next;
            waiters.next += 1;
            waiters.queue.push_back(QueueEntry { id, waker: cx.waker().clone() });
            this.id = Some(id);
            return Poll::Pending;
        };
        if waiters.take_grant(id) {
            this.id = None;
            return Poll::Ready(Ok(()));
        }
        if let Some(entry) = waiters.queue.iter_mut().find(|entry| entry.id == id) {
            entry.waker.clone_from(cx.waker());
        }
        Poll::Pending
    }
}

impl<H: Deref<Target = BulkheadInner>> Drop for Waiter<H> {
    fn drop(&mut self) {
        if let Some(id) = self.id.take() {
            self.holder.queue.leave(id);
        }
    }
}

#[cfg(all(test, rampart_loom))]
mod models {
    use std::{task::Wake, time::Duration};

    use loom::{sync::Arc, thread};

    use super::*;
    use crate::{
        clock::TimeSource,
        event::{EventEmitter, Pattern},
        state::models::model,
    };

    struct Woken(loom::sync::atomic::AtomicBool);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, loom::sync::atomic::Ordering::Release);
        }
    }

    impl Woken {
        fn waker() -> (std::sync::Arc<Self>, Waker) {
            let woken = std::sync::Arc::new(Self(loom::sync::atomic::AtomicBool::new(false)));
            (woken.clone(), woken.into())
        }

        fn is(&self) -> bool {
            self.0.load(loom::sync::atomic::Ordering::Acquire)
        }
    }

    /// All of `limit` permits are out.
    fn taken(limit: u32) -> Arc<BulkheadInner> {
        let inner = BulkheadInner {
            queue: PermitQueue::new(limit),
            max_wait: Duration::MAX,
            max_queue: u32::MAX,
            events: EventEmitter::new(Pattern::Bulkhead, "k".into(), None),
            time: TimeSource::default(),
        };
        (0..limit).for_each(|_| assert!(inner.queue.try_acquire()));
        Arc::new(inner)
    }

    fn poll(waiting: &mut Waiter<Arc<BulkheadInner>>, waker: &Waker) -> bool {
        Pin::new(waiting).poll(&mut Context::from_waker(waker)).is_ready()
    }

    model! {
        /// contract K14: a permit that comes home while somebody joins the queue is seen by the one or wakes it.
        no_wake_up_is_lost, preemptions: None, refuted by [SplitSwap], {
            let inner = taken(1);
            let releasing = Arc::clone(&inner);
            let released = thread::spawn(move || releasing.queue.release());
            let (woken, waker) = Woken::waker();
            let mut waiting = Waiter::new(Arc::clone(&inner), u32::MAX);
            let at_once = poll(&mut waiting, &waker);
            released.join().unwrap();
            assert!(at_once || (woken.is() && poll(&mut waiting, &waker)));
            assert_eq!(inner.queue.permits().counts(), (1, 0));
        }
    }

    model! {
        /// contract K15: a permit that is handed to somebody who leaves at that moment comes home, or goes to the next.
        a_permit_for_one_who_leaves_is_not_lost, preemptions: None, refuted by [SplitSwap], {
            let inner = taken(1);
            let (_, waker) = Woken::waker();
            let (woken, next_waker) = Woken::waker();
            let mut first = Waiter::new(Arc::clone(&inner), u32::MAX);
            let mut next = Waiter::new(Arc::clone(&inner), u32::MAX);
            assert!(!poll(&mut first, &waker));
            let releasing = Arc::clone(&inner);
            let released = thread::spawn(move || releasing.queue.release());
            drop(first);
            let at_once = poll(&mut next, &next_waker);
            released.join().unwrap();
            assert!(at_once || (woken.is() && poll(&mut next, &next_waker)));
            assert_eq!(inner.queue.permits().counts(), (1, 0));
        }
    }

    model! {
        /// contract K23: a limit that is raised lets in who waits, also who joins at that moment.
        a_raised_limit_lets_in_who_waits, preemptions: None, refuted by [SplitSwap], {
            let inner = taken(1);
            let [raising, releasing] = [(); 2].map(|()| Arc::clone(&inner));
            let raised = thread::spawn(move || raising.queue.set_limit(2));
            let released = thread::spawn(move || releasing.queue.release());
            let (woken, waker) = Woken::waker();
            let mut waiting = Waiter::new(Arc::clone(&inner), u32::MAX);
            let at_once = poll(&mut waiting, &waker);
            raised.join().unwrap();
            released.join().unwrap();
            assert!(at_once || (woken.is() && poll(&mut waiting, &waker)));
            assert_eq!(inner.queue.permits().counts(), (1, 0));
        }
    }
}
