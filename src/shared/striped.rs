//! What a response future keeps of its handle.
//!
//! A future must own the state that it reports to, and the obvious `Arc::clone` per call is two read-modify-writes on
//! a counter that every thread shares: under load that costs more than the whole state core. So a handle keeps one
//! counted line per thread stripe, and a call counts on the line of the thread that makes it, which that thread has
//! nearly to itself.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

use super::thread_id::{stripes, thread_number};

/// The inside of a handle. Clones share it.
pub(crate) struct StripedArc<T> {
    value: Arc<T>,
    lines: Arc<[OnceLock<Arc<Line<T>>>]>,
}

/// A counter of its own for `value`. The alignment gives the counters, which `Arc` puts before the data, a cache line
/// to themselves.
#[repr(align(128))]
struct Line<T> {
    value: Arc<T>,
}

impl<T> StripedArc<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Arc::new(value), lines: (0..stripes()).map(|_| OnceLock::new()).collect() }
    }

    /// A share of the handle for one call: one read-modify-write now and one on drop, on this thread's line. The first
    /// call of a stripe allocates the line.
    #[inline]
    pub(crate) fn acquire_ref(&self) -> StripedRef<T> {
        #[cfg(test)]
        tests::REFS.with(|holds| holds.set(holds.get() + 1));
        let line = &self.lines[thread_number() & (self.lines.len() - 1)];
        StripedRef(Arc::clone(line.get_or_init(|| Arc::new(Line { value: Arc::clone(&self.value) }))))
    }
}

impl<T> Clone for StripedArc<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), lines: Arc::clone(&self.lines) }
    }
}

impl<T> Deref for StripedArc<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for StripedArc<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// A response future's share of a handle.
pub(crate) struct StripedRef<T>(Arc<Line<T>>);

impl<T> Deref for StripedRef<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for StripedRef<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for StripedRef<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{cell::Cell, sync::Barrier};

    use super::*;

    thread_local! {
        /// Holds taken by this thread: two read-modify-writes each, one now and one on drop.
        pub(crate) static REFS: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn a_hold_keeps_the_value_alive_and_the_last_owner_drops_it() {
        let dropped = Arc::new(());
        let shared = StripedArc::new(Arc::clone(&dropped));
        let (clone, hold) = (shared.clone(), shared.acquire_ref());
        drop((shared, clone));
        assert_eq!(Arc::strong_count(&hold), 2);
        drop(hold);
        assert_eq!(Arc::strong_count(&dropped), 1);
    }

    #[test]
    fn threads_hold_by_lines_of_their_own() {
        let shared = StripedArc::new(());
        let line = |shared: &StripedArc<()>| Arc::as_ptr(&shared.acquire_ref().0) as usize;
        let here = line(&shared);
        assert_eq!(here, line(&shared));
        // Threads that live at the same time have different numbers, though not those that follow each other: other tests
        // have theirs.
        let threads = 4 * stripes();
        let all = Barrier::new(threads);
        let there = || {
            all.wait();
            let there = (thread_number() % stripes(), line(&shared));
            all.wait();
            there
        };
        let elsewhere: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(there)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (stripe, there) in elsewhere {
            assert_eq!(there == here, stripe == thread_number() % stripes());
        }
    }
}
