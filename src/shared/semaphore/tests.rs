use std::{
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    task::Wake,
};

use super::*;
use crate::state::atomics::count;

struct Resource(Semaphore);

impl HasSemaphore for Resource {
    fn semaphore(&self) -> &Semaphore {
        &self.0
    }

    fn now(&self) -> Nanos {
        Nanos::new(0)
    }
}

type Queued = Waiter<Arc<Resource>>;

fn full(limit: u32) -> Arc<Resource> {
    let resource = Resource(Semaphore::new(limit));
    (0..limit).for_each(|_| assert!(resource.0.permits.try_acquire(|| Nanos::new(0))));
    Arc::new(resource)
}

fn waiter(resource: &Arc<Resource>) -> Queued {
    Waiter::new(Arc::clone(resource), u32::MAX)
}

fn poll(waiter: &mut Queued, waker: &Waker) -> bool {
    waiter.poll(&Context::from_waker(waker)).is_ready()
}

fn crowd(resource: &Arc<Resource>, size: usize) -> Vec<Queued> {
    let mut crowd: Vec<_> = (0..size).map(|_| waiter(resource)).collect();
    crowd.iter_mut().for_each(|waiter| assert!(!poll(waiter, Waker::noop())));
    crowd
}

/// The steps in the list that `work` takes.
fn steps(resource: &Resource, work: impl FnOnce()) -> u64 {
    let steps = || resource.0.waiters.take(|waiters| waiters.steps);
    let before = steps();
    work();
    steps() - before
}

#[test]
fn the_steps_of_an_operation_do_not_depend_on_the_number_of_waiters() {
    const CONSTANT: u64 = 10;
    for size in [10, 1_000, 30_000] {
        let resource = full(1);
        let each = |name: &str, work: &mut dyn FnMut()| {
            let steps = steps(&resource, work);
            assert!(steps <= CONSTANT * size as u64, "{name}: {steps} steps for {size} waiters");
        };
        let mut waiting = Vec::new();
        each("join", &mut || waiting = crowd(&resource, size));
        each("spurious poll", &mut || waiting.iter_mut().for_each(|waiter| assert!(!poll(waiter, Waker::noop()))));
        each("leave, last first", &mut || while waiting.pop().is_some() {});
        waiting = crowd(&resource, size);
        each("leave in order", &mut || waiting.drain(..).for_each(drop));
        waiting = crowd(&resource, size);
        // Every seventh, again and again: far apart in the queue.
        waiting.sort_by_key(|waiter| waiter.key.map(|key| key.ticket() % 7));
        each("leave from the middle", &mut || waiting.drain(..).for_each(drop));
        waiting = crowd(&resource, size);
        each("release", &mut || {
            for waiter in &mut waiting {
                resource.0.release();
                assert!(poll(waiter, Waker::noop()));
            }
        });
        waiting = crowd(&resource, size);
        each("resize", &mut || resource.0.set_limit(size as u32 + 1));
        each("take up grants", &mut || waiting.iter_mut().for_each(|waiter| assert!(poll(waiter, Waker::noop()))));
        drop(waiting);
        assert_eq!(resource.0.counts(), (size as u32 + 1, 0, 0));
    }
}

#[test]
fn a_wait_writes_the_permit_word_when_it_is_granted_and_when_it_is_claimed() {
    let resource = full(1);
    let first = crowd(&resource, 1);
    let mut waiting = waiter(&resource);
    let writes = |work: &mut dyn FnMut()| {
        let ((), ops) = count(work);
        (ops.rmws, ops.stores)
    };
    assert_eq!(writes(&mut || assert!(!poll(&mut waiting, Waker::noop()))), (0, 0), "another waiter has left the mark");
    assert_eq!(writes(&mut || assert!(!poll(&mut waiting, Waker::noop()))), (0, 0), "a spurious poll");
    drop(first);
    assert_eq!(writes(&mut || resource.0.release()), (1, 0));
    assert_eq!(writes(&mut || assert!(poll(&mut waiting, Waker::noop()))), (1, 0));
}

/// A waker that owns another waiter of the same queue, and drops it when it is dropped.
struct Owner {
    owned: Mutex<Option<Queued>>,
    dropped: Arc<AtomicUsize>,
}

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Owner {
    fn drop(&mut self) {
        drop(self.owned.get_mut().unwrap().take());
        self.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_waker_may_own_a_waiter_of_the_same_queue() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let resource = full(1);
    let owner = || -> Waker {
        let mut owned = waiter(&resource);
        assert!(!poll(&mut owned, Waker::noop()));
        Arc::new(Owner { owned: Mutex::new(Some(owned)), dropped: Arc::clone(&dropped) }).into()
    };
    let mut waiting = waiter(&resource);
    assert!(!poll(&mut waiting, &owner()));
    assert!(!poll(&mut waiting, &owner()), "the first waker is replaced, and dropped");
    assert_eq!((dropped.load(Ordering::SeqCst), resource.0.counts().2), (1, 2));
    drop(waiting);
    assert_eq!((dropped.load(Ordering::SeqCst), resource.0.counts().2), (2, 0));
    let mut waiting = waiter(&resource);
    assert!(!poll(&mut waiting, &owner()));
    // The waker is consumed, and with it a waiter that is granted the permit.
    resource.0.set_limit(3);
    assert_eq!(dropped.load(Ordering::SeqCst), 3);
    assert!(poll(&mut waiting, Waker::noop()));
    resource.0.release();
    assert_eq!(resource.0.counts(), (1, 0, 0));
}

/// A waker that polls its waiter and others when it is woken, as a task that runs at once.
struct Reenter {
    resource: Weak<Resource>,
    woken: AtomicUsize,
}

impl Wake for Reenter {
    fn wake(self: Arc<Self>) {
        self.woken.fetch_add(1, Ordering::SeqCst);
        let Some(resource) = self.resource.upgrade() else { return };
        let mut other = waiter(&resource);
        let acquired = poll(&mut other, Waker::noop());
        drop(other);
        if acquired {
            resource.0.release();
        }
        resource.0.set_limit(resource.0.permits.limit());
    }
}

#[test]
fn a_waker_may_run_its_task_at_once() {
    let resource = full(1);
    let reenter = Arc::new(Reenter { resource: Arc::downgrade(&resource), woken: AtomicUsize::new(0) });
    let waker: Waker = reenter.clone().into();
    let mut waiting: Vec<_> = (0..40).map(|_| waiter(&resource)).collect();
    waiting.iter_mut().for_each(|waiter| assert!(!poll(waiter, &waker)));
    resource.0.release();
    resource.0.set_limit(40);
    assert_eq!(reenter.woken.load(Ordering::SeqCst), 40);
    assert!(waiting.iter_mut().all(|waiter| poll(waiter, Waker::noop())));
    assert_eq!(resource.0.counts(), (40, 0, 0));
}

struct Panics;

impl Wake for Panics {
    fn wake(self: Arc<Self>) {
        panic!("deliberate panic");
    }
}

#[test]
fn a_waker_that_panics_does_not_keep_the_others_asleep() {
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    let resource = full(1);
    let woken = Arc::new(Woken(AtomicUsize::new(0)));
    let mut waiting: Vec<_> = (0..10).map(|_| waiter(&resource)).collect();
    for (number, waiter) in waiting.iter_mut().enumerate() {
        let waker = if number % 3 == 0 { Arc::new(Panics).into() } else { woken.clone().into() };
        assert!(!poll(waiter, &waker));
    }
    let resize = std::panic::AssertUnwindSafe(|| resource.0.set_limit(11));
    assert!(std::panic::catch_unwind(resize).is_err());
    assert_eq!(woken.0.load(Ordering::SeqCst), 6);
    assert!(waiting.iter_mut().all(|waiter| poll(waiter, Waker::noop())));
}
