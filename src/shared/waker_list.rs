//! Tasks that wait for a change of state.

use std::task::Waker;

use super::{
    linked_slab::{Key, LinkedSlab},
    lock::{Lock, wake_all},
};

/// The wakers of the tasks that wait until a handle changes its state.
///
/// Behind a lock, which only waiting tasks and changes of state take; both are rare. No wakeup is
/// lost if a task registers before it checks the state, and the state changes before
/// [`wake_all`](Self::wake_all): either `wake_all` finds the registration under the lock, or the
/// task sees the change.
#[derive(Debug, Default)]
pub(crate) struct WakerList {
    registered: Lock<LinkedSlab<Waker>>,
}

/// A task's key in the list, to be returned to [`WakerList::deregister`].
#[derive(Debug)]
pub(crate) struct WakerKey(Key);

impl WakerList {
    /// Registers `waker` for the next change. Registering again replaces it.
    pub(crate) fn register(&self, key: &mut Option<WakerKey>, waker: &Waker) {
        if let Some(WakerKey(key)) = key
            && self.registered.take(|list| list.get_mut(*key).is_some_and(|old| old.will_wake(waker)))
        {
            return;
        }
        let mut waker = waker.clone();
        // Returns the waker that was replaced, to be dropped without the lock.
        let _replaced = self.registered.take(|list| {
            if let Some(WakerKey(key)) = key
                && let Some(old) = list.get_mut(*key)
            {
                std::mem::swap(old, &mut waker);
                return Some(waker);
            }
            *key = Some(WakerKey(list.push_back(waker)));
            None
        });
    }

    /// Removes the task's waker.
    pub(crate) fn deregister(&self, key: &mut Option<WakerKey>) {
        if let Some(WakerKey(key)) = key.take() {
            let _removed = self.registered.take(|list| list.remove(key));
        }
    }

    /// Wakes all tasks and removes their wakers.
    pub(crate) fn wake_all(&self) {
        wake_all(self.registered.take(LinkedSlab::take_all));
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.registered.take(|list| list.linked())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc, Mutex, PoisonError,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn counter() -> (Arc<Count>, Waker) {
        let count = Arc::new(Count::default());
        (count.clone(), count.into())
    }

    #[test]
    fn each_task_is_woken_once_by_its_latest_waker() {
        let (list, (old, old_waker), (new, new_waker)) = (WakerList::default(), counter(), counter());
        let mut key = None;
        list.register(&mut key, &old_waker);
        list.register(&mut key, &new_waker);
        list.wake_all();
        list.wake_all();
        assert_eq!((old.0.load(Ordering::SeqCst), new.0.load(Ordering::SeqCst)), (0, 1));
        // The key is no longer registered, so the task gets another.
        list.register(&mut key, &new_waker);
        list.wake_all();
        assert_eq!(new.0.load(Ordering::SeqCst), 2);
    }

    #[test]
    fn deregister_removes_only_that_waker() {
        let (list, (left, left_waker), (stays, stays_waker)) = (WakerList::default(), counter(), counter());
        let (mut leaving, mut staying) = (None, None);
        list.register(&mut leaving, &left_waker);
        list.register(&mut staying, &stays_waker);
        list.deregister(&mut leaving);
        list.deregister(&mut leaving);
        assert_eq!(list.len(), 1);
        list.wake_all();
        // Already woken: deregistering removes no waker of another task.
        let mut other = None;
        list.register(&mut other, &left_waker);
        list.deregister(&mut staying);
        assert_eq!(list.len(), 1);
        assert_eq!((left.0.load(Ordering::SeqCst), stays.0.load(Ordering::SeqCst)), (0, 1));
    }

    /// A waker that uses the list when it is woken, like that of a task that is polled or dropped
    /// immediately.
    struct Reenter(Arc<WakerList>);

    impl Wake for Reenter {
        fn wake(self: Arc<Self>) {
            let mut key = None;
            self.0.register(&mut key, Waker::noop());
            self.0.deregister(&mut key);
        }
    }

    #[test]
    fn a_woken_task_may_register_again_immediately() {
        let list = Arc::new(WakerList::default());
        list.register(&mut None, &Arc::new(Reenter(list.clone())).into());
        list.wake_all();
        assert_eq!(list.len(), 0);
    }

    /// A waker that owns its task, which deregisters when it is dropped.
    struct Owner(Arc<WakerList>, Mutex<Option<WakerKey>>);

    impl Wake for Owner {
        fn wake(self: Arc<Self>) {}
    }

    impl Drop for Owner {
        fn drop(&mut self) {
            let key = self.1.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.0.deregister(key);
        }
    }

    #[test]
    fn dropping_a_waker_may_deregister_its_task() {
        let list = Arc::new(WakerList::default());
        let mut keys = [None, None];
        for key in &mut keys {
            let mut owned = None;
            list.register(&mut owned, Waker::noop());
            let owner = Arc::new(Owner(list.clone(), Mutex::new(owned)));
            list.register(key, &owner.into());
        }
        let [mut replaced, mut left] = keys;
        list.register(&mut replaced, Waker::noop());
        list.deregister(&mut left);
        assert_eq!(list.len(), 1, "the waker registered last");
    }

    #[test]
    fn many_tasks_register_and_deregister_in_any_order() {
        let (list, mut keys) = (WakerList::default(), [const { None }; 100]);
        for round in 0..3 {
            keys.iter_mut().for_each(|key| list.register(key, Waker::noop()));
            assert_eq!(list.len(), 100);
            keys.iter_mut().step_by(round + 2).for_each(|key| list.deregister(key));
            keys.iter_mut().rev().for_each(|key| list.register(key, Waker::noop()));
            assert_eq!(list.len(), 100);
        }
        list.wake_all();
        keys.iter_mut().for_each(|key| list.deregister(key));
        assert_eq!(list.len(), 0);
    }

    #[test]
    fn a_task_that_registers_before_it_checks_is_woken_or_sees_the_change() {
        for _ in 0..500 {
            let (list, changed, (woken, waker)) = (WakerList::default(), AtomicBool::new(false), counter());
            let seen = std::thread::scope(|scope| {
                scope.spawn(|| {
                    changed.store(true, Ordering::Release);
                    list.wake_all();
                });
                list.register(&mut None, &waker);
                changed.load(Ordering::Acquire)
            });
            assert!(seen || woken.0.load(Ordering::SeqCst) == 1);
        }
    }
}

#[cfg(all(test, rampart_loom))]
mod models {
    use std::task::Wake;

    use loom::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
        thread,
    };

    use super::*;
    use crate::state::{
        atomics::{AtomicU64, Fault, Ordering as Order, has},
        models::model,
    };

    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.store(true, Ordering::Release);
        }
    }

    model! {
        /// A task that registers before it checks the state sees a change, or is woken by it.
        no_wakeup_is_lost, preemptions: None, refuted by [CheckBeforeRegister], {
            let list = Arc::new((WakerList::default(), AtomicU64::new(0)));
            let changing = Arc::clone(&list);
            let changed = thread::spawn(move || {
                changing.1.store(1, Order::Release);
                changing.0.wake_all();
            });
            let woken = std::sync::Arc::new(Woken(AtomicBool::new(false)));
            let (mut key, waker) = (None, woken.clone().into());
            let check = || list.1.load(Order::Acquire) == 1;
            let early = has(Fault::CheckBeforeRegister).then(check);
            list.0.register(&mut key, &waker);
            let seen = early.unwrap_or_else(check);
            changed.join().unwrap();
            assert!(seen || woken.0.load(Ordering::Acquire));
            list.0.deregister(&mut key);
        }
    }
}
