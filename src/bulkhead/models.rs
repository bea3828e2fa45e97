//! The interleavings of permits and their wait queue, explored by loom.

use std::{
    task::{Context, Wake, Waker},
    time::Duration,
};

use loom::{sync::Arc, thread};

use super::inner::BulkheadInner;
use crate::{
    clock::{ManualClock, Nanos, TimeSource},
    event::EventEmitter,
    pattern::Pattern,
    shared::semaphore::{Semaphore, Waiter},
    state::{LAPSE_AFTER, models::model},
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

/// A bulkhead with all of its permits acquired.
fn full_bulkhead(limit: u32) -> Arc<BulkheadInner> {
    full_bulkhead_at(limit, &ManualClock::new())
}

fn full_bulkhead_at(limit: u32, clock: &ManualClock) -> Arc<BulkheadInner> {
    let bulkhead = BulkheadInner {
        semaphore: Semaphore::new(limit),
        built_limit: limit,
        max_wait: Duration::MAX,
        max_queue: u32::MAX,
        events: EventEmitter::new(Pattern::Bulkhead, "k".into(), None),
        time: TimeSource::custom(clock.clone()),
    };
    (0..limit).for_each(|_| assert!(bulkhead.semaphore.permits.try_acquire(|| Nanos::new(0))));
    Arc::new(bulkhead)
}

fn poll(waiter: &mut Waiter<Arc<BulkheadInner>>, waker: &Waker) -> bool {
    waiter.poll(&Context::from_waker(waker)).is_ready()
}

model! {
    /// Contract K14: a permit released while a caller joins the queue is seen by the caller, or
    /// wakes it.
    no_wakeup_is_lost, preemptions: None, refuted by [SplitSwap], {
        let bulkhead = full_bulkhead(1);
        let releasing = Arc::clone(&bulkhead);
        let released = thread::spawn(move || releasing.semaphore.release());
        let (woken, waker) = Woken::waker();
        let mut waiter = Waiter::new(Arc::clone(&bulkhead), u32::MAX);
        let immediately = poll(&mut waiter, &waker);
        released.join().unwrap();
        assert!(immediately || (woken.is() && poll(&mut waiter, &waker)));
        assert_eq!(bulkhead.semaphore.counts(), (1, 0, 0));
    }
}

model! {
    /// Contract K15: a permit granted to a waiter that is leaving is released, or goes to the next
    /// waiter.
    a_permit_granted_to_a_leaving_waiter_is_not_lost, preemptions: None, refuted by [SplitSwap], {
        let bulkhead = full_bulkhead(1);
        let (_, waker) = Woken::waker();
        let (woken, next_waker) = Woken::waker();
        let mut first = Waiter::new(Arc::clone(&bulkhead), u32::MAX);
        let mut next = Waiter::new(Arc::clone(&bulkhead), u32::MAX);
        assert!(!poll(&mut first, &waker));
        let releasing = Arc::clone(&bulkhead);
        let released = thread::spawn(move || releasing.semaphore.release());
        drop(first);
        let immediately = poll(&mut next, &next_waker);
        released.join().unwrap();
        assert!(immediately || (woken.is() && poll(&mut next, &next_waker)));
        assert_eq!(bulkhead.semaphore.counts(), (1, 0, 0));
    }
}

model! {
    /// Contract K23: raising the limit admits waiters, including one that is joining.
    raising_the_limit_admits_waiters, preemptions: None, refuted by [SplitSwap], {
        let bulkhead = full_bulkhead(1);
        let [raising, releasing] = [(); 2].map(|()| Arc::clone(&bulkhead));
        let raised = thread::spawn(move || raising.semaphore.set_limit(2));
        let released = thread::spawn(move || releasing.semaphore.release());
        let (woken, waker) = Woken::waker();
        let mut waiter = Waiter::new(Arc::clone(&bulkhead), u32::MAX);
        let immediately = poll(&mut waiter, &waker);
        raised.join().unwrap();
        released.join().unwrap();
        assert!(immediately || (woken.is() && poll(&mut waiter, &waker)));
        assert_eq!(bulkhead.semaphore.counts(), (1, 0, 0));
    }
}

/// A bulkhead of one permit, which was granted to this waiter and has lapsed, and another caller.
fn lapsed_grant() -> (Arc<BulkheadInner>, Waiter<Arc<BulkheadInner>>) {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(1));
    let bulkhead = full_bulkhead_at(1, &clock);
    let mut waiter = Waiter::new(Arc::clone(&bulkhead), u32::MAX);
    assert!(!poll(&mut waiter, Waker::noop()));
    bulkhead.semaphore.release();
    assert!(bulkhead.try_admit().is_none(), "it begins to lapse");
    clock.advance(LAPSE_AFTER);
    (bulkhead, waiter)
}

model! {
    /// Contract K35: a grant that has lapsed is used by its waiter, or taken by one other caller.
    /// The waiter then joins the queue again, and is woken by the next release.
    a_lapsed_grant_has_one_owner, preemptions: None, refuted by [SplitSwap], {
        let (bulkhead, mut waiter) = lapsed_grant();
        let taking = Arc::clone(&bulkhead);
        let taken = thread::spawn(move || {
            let taken = taking.try_admit().is_some();
            if taken {
                taking.semaphore.release();
            }
            taken
        });
        let (woken, waker) = Woken::waker();
        let immediately = poll(&mut waiter, &waker);
        let taken = taken.join().unwrap();
        assert!(immediately || (taken && woken.is() && poll(&mut waiter, &waker)));
        assert_eq!(bulkhead.semaphore.counts(), (1, 0, 0));
    }
}

model! {
    /// Contract K15, K35: a waiter leaves while its grant lapses.
    a_lapsed_grant_of_a_leaving_waiter_is_not_lost, preemptions: None, refuted by [SplitSwap], {
        let (bulkhead, waiter) = lapsed_grant();
        let taking = Arc::clone(&bulkhead);
        let taken = thread::spawn(move || taking.try_admit().is_some());
        drop(waiter);
        let taken = taken.join().unwrap();
        assert_eq!(bulkhead.semaphore.counts(), (u32::from(taken), 0, 0));
        assert_eq!(bulkhead.try_admit().is_some(), !taken);
    }
}
