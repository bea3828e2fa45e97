//! Tasks that wait for a change of state.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

/// The tasks that wait until a handle changes its state.
///
/// Behind a lock, which only waiting tasks and changes of state take; both are rare. No wake-up is lost if a task
/// registers first and looks at the state afterwards, and a change is made before [`wake_all`](Self::wake_all): either
/// the registration comes first under the lock and is woken, or the change does and is seen.
#[derive(Debug, Default)]
pub(crate) struct WakerList {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    wakers: Vec<(u64, Waker)>,
}

/// A task's place in the list. Give it back with [`WakerList::deregister`].
#[derive(Debug)]
pub(crate) struct Place(u64);

impl WakerList {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `waker` woken at the next change. Registering again replaces the waker.
    pub(crate) fn register(&self, place: &mut Option<Place>, waker: &Waker) {
        let mut waiting = self.lock();
        let known = place.as_ref().and_then(|place| waiting.wakers.iter_mut().find(|(id, _)| *id == place.0));
        match known {
            Some((_, old)) => old.clone_from(waker),
            None => {
                let id = waiting.next;
                waiting.next += 1;
                waiting.wakers.push((id, waker.clone()));
                *place = Some(Place(id));
            }
        }
    }

    /// Forgets the task.
    pub(crate) fn deregister(&self, place: &mut Option<Place>) {
        if let Some(Place(id)) = place.take() {
            self.lock().wakers.retain(|(other, _)| *other != id);
        }
    }

    /// Wakes and forgets all.
    pub(crate) fn wake_all(&self) {
        let wakers = std::mem::take(&mut self.lock().wakers);
        // Outside the lock: a waker may run the task, or drop it.
        for (_, waker) in wakers {
            waker.wake();
        }
    }
}
