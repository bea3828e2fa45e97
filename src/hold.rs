//! What a response future keeps of its handle.
//!
//! A future must own the state that it reports to, and the obvious `Arc::clone` per call is two read-modify-writes on
//! a counter that every thread shares: under load that costs more than the whole state core. So a handle keeps one
//! counted line per thread stripe, and a call counts on the line of the thread that makes it, which that thread has
//! nearly to itself.

use std::{
    cell::Cell,
    fmt,
    num::NonZeroUsize,
    ops::Deref,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

/// The inside of a handle. Clones share it.
pub(crate) struct Shared<T> {
    value: Arc<T>,
    lines: Arc<[OnceLock<Arc<Line<T>>>]>,
}

/// A counter of its own for `value`. The alignment gives the counters, which `Arc` puts before the data, a cache line
/// to themselves.
#[repr(align(128))]
struct Line<T> {
    value: Arc<T>,
}

impl<T> Shared<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Arc::new(value), lines: (0..stripes()).map(|_| OnceLock::new()).collect() }
    }

    /// A share of the handle for one call: one read-modify-write now and one on drop, on this thread's line. The first
    /// call of a stripe allocates the line.
    #[inline]
    pub(crate) fn hold(&self) -> Hold<T> {
        let line = &self.lines[stripe() & (self.lines.len() - 1)];
        Hold(Arc::clone(line.get_or_init(|| Arc::new(Line { value: Arc::clone(&self.value) }))))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { value: Arc::clone(&self.value), lines: Arc::clone(&self.lines) }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

/// A response future's share of a handle.
pub(crate) struct Hold<T>(Arc<Line<T>>);

impl<T> Deref for Hold<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for Hold<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: fmt::Debug> fmt::Debug for Hold<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.value.fmt(f)
    }
}

/// How many stripes there are: a power of two, about one per processor.
pub(crate) fn stripes() -> usize {
    static STRIPES: LazyLock<usize> = LazyLock::new(|| {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        processors.next_power_of_two().min(64)
    });
    *STRIPES
}

/// A small number that is the calling thread's own. Mask it to the number of stripes.
#[inline]
pub(crate) fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    STRIPE.with(|cell| {
        let mut stripe = cell.get();
        if stripe == usize::MAX {
            stripe = NEXT.fetch_add(1, Ordering::Relaxed) & (usize::MAX >> 1);
            cell.set(stripe);
        }
        stripe
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hold_keeps_the_value_alive_and_the_last_owner_drops_it() {
        let dropped = Arc::new(());
        let shared = Shared::new(Arc::clone(&dropped));
        let (clone, hold) = (shared.clone(), shared.hold());
        drop((shared, clone));
        assert_eq!(Arc::strong_count(&hold), 2);
        drop(hold);
        assert_eq!(Arc::strong_count(&dropped), 1);
    }

    #[test]
    fn threads_hold_by_lines_of_their_own() {
        let shared = Shared::new(());
        let line = |shared: &Shared<()>| Arc::as_ptr(&shared.hold().0) as usize;
        let here = line(&shared);
        assert_eq!(here, line(&shared));
        if stripes() > 1 {
            // Threads are numbered as they come, so among the next `stripes()` ones all lines occur.
            let elsewhere = (0..stripes()).map(|_| {
                let shared = shared.clone();
                std::thread::spawn(move || line(&shared)).join().unwrap()
            });
            assert!(elsewhere.into_iter().any(|there| there != here));
        }
    }
}
