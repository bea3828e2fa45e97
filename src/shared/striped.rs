//! A striped `Arc`: a response future's reference to its handle.
//!
//! A future must own the state that it reports to, and an `Arc::clone` per call is two
//! read-modify-writes on a counter that all threads share: under load that costs more than the
//! whole state core. So a handle keeps one reference count per thread stripe, and a call counts on
//! the stripe of its thread, which few other threads use.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{Ordering, fence},
    },
};

use super::thread_id::{stripes, thread_number};

/// The shared state of a handle and its clones.
pub(crate) struct StripedArc<T> {
    value: Arc<T>,
    lines: Arc<[OnceLock<Arc<Line<T>>>]>,
}

/// A stripe's own reference count for `value`. The alignment gives the count, which `Arc` puts
/// before the data, a cache line of its own.
#[repr(align(128))]
struct Line<T> {
    value: Arc<T>,
}

impl<T> StripedArc<T> {
    pub(crate) fn new(value: T) -> Self {
        Self { value: Arc::new(value), lines: (0..stripes()).map(|_| OnceLock::new()).collect() }
    }

    /// Acquires a reference for one call: one read-modify-write now and one on drop, on this
    /// thread's stripe. The first call of a stripe allocates it.
    #[inline]
    pub(crate) fn acquire_ref(&self) -> StripedRef<T> {
        #[cfg(test)]
        tests::REFS.with(|refs| refs.set(refs.get() + 1));
        let line = &self.lines[thread_number() & (self.lines.len() - 1)];
        StripedRef(Arc::clone(line.get_or_init(|| Arc::new(Line { value: Arc::clone(&self.value) }))))
    }

    /// Whether anything but this handle and one clone of it refers to the value: a further clone,
    /// or a call. If not, the effects of all earlier references are visible.
    pub(crate) fn is_in_use(&self) -> bool {
        let lines = || self.lines.iter().filter_map(OnceLock::get);
        // In this order. A stripe that is initialized after they are counted makes the value seem
        // in use. Without a further handle, no call can begin, so the calls are counted last.
        let initialized = lines().count();
        let further_handle = Arc::strong_count(&self.value) > 2 + initialized;
        fence(Ordering::Acquire);
        let in_use = further_handle || lines().any(|line| Arc::strong_count(line) > 1);
        fence(Ordering::Acquire);
        in_use
    }
}

#[cfg(feature = "http")]
impl<T> StripedArc<T> {
    /// Counts the references of calls. References that other threads acquire or drop meanwhile may
    /// or may not be counted.
    pub(crate) fn count_refs(&self) -> usize {
        self.lines.iter().filter_map(OnceLock::get).map(|line| Arc::strong_count(line) - 1).sum()
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

/// A response future's reference to the state of a handle.
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
        /// References acquired by this thread: two read-modify-writes each, one now and one on
        /// drop.
        pub(crate) static REFS: Cell<u32> = const { Cell::new(0) };
    }

    #[test]
    fn a_reference_keeps_the_value_alive_and_the_last_owner_drops_it() {
        let dropped = Arc::new(());
        let shared = StripedArc::new(Arc::clone(&dropped));
        let (clone, reference) = (shared.clone(), shared.acquire_ref());
        #[cfg(feature = "http")]
        assert_eq!((shared.count_refs(), clone.count_refs()), (1, 1));
        drop((shared, clone));
        assert_eq!(Arc::strong_count(&reference), 2);
        drop(reference);
        assert_eq!(Arc::strong_count(&dropped), 1);
    }

    #[test]
    fn a_value_is_in_use_while_a_further_handle_or_a_call_refers_to_it() {
        let shared = StripedArc::new(());
        let _of_the_map = shared.clone();
        assert!(!shared.is_in_use());
        let further = shared.clone();
        assert!(shared.is_in_use());
        let call = further.acquire_ref();
        drop(further);
        assert!(shared.is_in_use());
        drop(call);
        assert!(!shared.is_in_use());
    }

    #[test]
    fn threads_count_on_stripes_of_their_own() {
        let shared = StripedArc::new(());
        let line = |shared: &StripedArc<()>| Arc::as_ptr(&shared.acquire_ref().0) as usize;
        let here = line(&shared);
        assert_eq!(here, line(&shared));
        // Threads have different numbers only while they live at the same time, so they wait for
        // each other. Other tests use numbers, too.
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
