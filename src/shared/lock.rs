//! A lock under which no foreign code runs.

use std::{
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::PoisonError,
    task::Waker,
};

use crate::state::atomics::Mutex;

/// State behind a lock, under which no foreign code may run.
///
/// Cloning, dropping or waking a waker runs foreign code: it may run a task or drop one, and so
/// call this crate again with any handle. The same holds for keys, requests, services, errors,
/// clocks and users' handles. So a value that enters the state is cloned before the lock is taken,
/// and one that leaves it is returned by [`take`](Self::take) or put into an [`Outbox`], and
/// dropped or woken once the lock is released.
#[derive(Default)]
pub(crate) struct Lock<T> {
    state: Mutex<T>,
}

/// Does not show the state: what it is written to is foreign, too.
impl<T> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").finish_non_exhaustive()
    }
}

impl<T> Lock<T> {
    /// Runs `work` under the lock, then wakes the wakers in its outbox.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut T, &mut Outbox) -> R) -> R {
        let mut outbox = Outbox::default();
        // Nothing panics under the lock.
        let result = work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner), &mut outbox);
        outbox.empty();
        result
    }

    /// Runs `work` under the lock and returns what it takes out of the state.
    pub(crate) fn take<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        work(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The most wakers that leave under one lock, so that other callers are not held up for long, and
/// an outbox needs no allocation.
const BATCH: usize = 16;

/// Wakers to be woken once the lock is released.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    wake: [Option<Waker>; BATCH],
    waking: usize,
}

impl Outbox {
    pub(crate) fn is_full(&self) -> bool {
        self.waking == BATCH
    }

    /// Wakes `waker` later. The outbox must not be full.
    pub(crate) fn wake(&mut self, waker: Waker) {
        debug_assert!(self.wake[self.waking].is_none());
        self.wake[self.waking] = Some(waker);
        self.waking += 1;
    }

    fn empty(&mut self) {
        wake_all(self.wake[..self.waking].iter_mut().filter_map(Option::take));
    }
}

/// Wakes every task. A waker that panics does not keep the others asleep: the first panic continues
/// once all of them are woken.
pub(crate) fn wake_all(wakers: impl Iterator<Item = Waker>) {
    let mut panic = None;
    for waker in wakers {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            match panic {
                None => panic = Some(payload),
                // Its destructor may panic, too.
                Some(_) => mem::forget(payload),
            }
        }
    }
    if let Some(payload) = panic {
        resume_unwind(payload);
    }
}
