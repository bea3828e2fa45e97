//! The interleavings of permits and their wait queue, explored by loom.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Wake, Waker},
    time::Duration,
};

use loom::{sync::Arc, thread};

use super::inner::BulkheadInner;
use crate::{
    clock::TimeSource,
    event::EventEmitter,
    pattern::Pattern,
    shared::wait_queue::{WaitQueue, Waiter},
    state::{models::model, permits::Permits},
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
    let bulkhead = BulkheadInner {
        permits: Permits::new(limit),
        queue: WaitQueue::default(),
        max_wait: Duration::MAX,
        max_queue: u32::MAX,
        events: EventEmitter::new(Pattern::Bulkhead, "k".into(), None),
        time: TimeSource::default(),
    };
    (0..limit).for_each(|_| assert!(bulkhead.permits.try_acquire()));
    Arc::new(bulkhead)
}

fn poll(waiter: &mut Waiter<Arc<BulkheadInner>>, waker: &Waker) -> bool {
    Pin::new(waiter).poll(&mut Context::from_waker(waker)).is_ready()
}

model! {
    /// Contract K14: a permit released while a caller joins the queue is seen by the caller, or
    /// wakes it.
    no_wakeup_is_lost, preemptions: None, refuted by [SplitSwap], {
        let bulkhead = full_bulkhead(1);
        let releasing = Arc::clone(&bulkhead);
        let released = thread::spawn(move || releasing.release());
        let (woken, waker) = Woken::waker();
        let mut waiter = Waiter::new(Arc::clone(&bulkhead), u32::MAX);
        let immediately = poll(&mut waiter, &waker);
        released.join().unwrap();
        assert!(immediately || (woken.is() && poll(&mut waiter, &waker)));
        assert_eq!(bulkhead.permits.counts(), (1, 0));
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
        let released = thread::spawn(move || releasing.release());
        drop(first);
        let immediately = poll(&mut next, &next_waker);
        released.join().unwrap();
        assert!(immediately || (woken.is() && poll(&mut next, &next_waker)));
        assert_eq!(bulkhead.permits.counts(), (1, 0));
    }
}

model! {
    /// Contract K23: raising the limit admits waiters, including one that is joining.
    raising_the_limit_admits_waiters, preemptions: None, refuted by [SplitSwap], {
        let bulkhead = full_bulkhead(1);
        let [raising, releasing] = [(); 2].map(|()| Arc::clone(&bulkhead));
        let raised = thread::spawn(move || raising.set_limit(2));
        let released = thread::spawn(move || releasing.release());
        let (woken, waker) = Woken::waker();
        let mut waiter = Waiter::new(Arc::clone(&bulkhead), u32::MAX);
        let immediately = poll(&mut waiter, &waker);
        raised.join().unwrap();
        released.join().unwrap();
        assert!(immediately || (woken.is() && poll(&mut waiter, &waker)));
        assert_eq!(bulkhead.permits.counts(), (1, 0));
    }
}
