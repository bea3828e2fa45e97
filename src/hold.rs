//! What a response future keeps of its handle.
//!
//! A future must own the state that it reports to, and the obvious `Arc::clone` per call is two read-modify-writes on
//! a counter that every thread shares: under load that costs more than the whole state core. So a handle keeps one
//! counted line per thread stripe, and a call counts on the line of the thread that makes it, which that thread has
//! nearly to itself.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::BinaryHeap,
    fmt,
    num::NonZeroUsize,
    ops::Deref,
    sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError},
};

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

/// How many stripes there are: a power of two, about one per processor.
pub(crate) fn stripes() -> usize {
    static STRIPES: LazyLock<usize> = LazyLock::new(|| {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        processors.next_power_of_two().min(64)
    });
    *STRIPES
}

/// A small number that no other living thread has. Numbers of threads that have ended are given out again, the lowest
/// first; who gets one has seen all that its last owner did. [`NO_NUMBER`] for what a thread does at its very end.
#[inline]
pub(crate) fn thread_number() -> usize {
    NUMBER.with(|number| match number.get() {
        NOT_YET => first_number(),
        number => number,
    })
}

pub(crate) const NO_NUMBER: usize = usize::MAX;
const NOT_YET: usize = usize::MAX - 1;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(NOT_YET) };
}

/// Numbers that are free: the lowest that was never given out, and those that came back.
static FREE: Mutex<(usize, BinaryHeap<Reverse<usize>>)> = Mutex::new((0, BinaryHeap::new()));

#[cold]
fn first_number() -> usize {
    struct Lease(usize);

    impl Drop for Lease {
        fn drop(&mut self) {
            NUMBER.with(|number| number.set(NO_NUMBER));
            FREE.lock().unwrap_or_else(PoisonError::into_inner).1.push(Reverse(self.0));
        }
    }

    thread_local! {
        static LEASE: Cell<Option<Lease>> = const { Cell::new(None) };
    }

    let number = {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        match free.1.pop() {
            Some(Reverse(number)) => number,
            None => {
                free.0 += 1;
                free.0 - 1
            }
        }
    };
    NUMBER.with(|own| own.set(number));
    let lease = Cell::new(Some(Lease(number)));
    // A thread whose destructors have run already keeps none: dropping the lease gives the number back at once.
    let _ = LEASE.try_with(|own| own.set(lease.take()));
    drop(lease);
    NUMBER.with(Cell::get)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::{collections::HashSet, sync::Barrier};

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

    #[test]
    fn living_threads_have_different_numbers_and_dead_ones_leave_theirs() {
        const THREADS: usize = 32;
        let all = Barrier::new(THREADS);
        let mut highest = 0;
        for _ in 0..8 {
            let numbers: HashSet<usize> = std::thread::scope(|scope| {
                let number = || {
                    let number = thread_number();
                    all.wait();
                    assert_eq!(number, thread_number());
                    number
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(number)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(numbers.len(), THREADS);
            highest = highest.max(numbers.into_iter().max().unwrap());
        }
        // Other tests run beside this one, but not hundreds of threads of them.
        assert!(highest < 4 * THREADS, "{highest}");
    }

    #[test]
    fn a_thread_at_its_end_has_no_number() {
        struct Last(std::sync::mpsc::Sender<usize>);

        impl Drop for Last {
            fn drop(&mut self) {
                let _ = self.0.send(thread_number());
            }
        }

        thread_local! {
            static LAST: Cell<Option<Last>> = const { Cell::new(None) };
        }

        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            // Destructors run in an order of their own, so one of the two may find the number gone.
            LAST.with(|last| last.set(Some(Last(sender.clone()))));
            sender.send(thread_number()).unwrap();
        })
        .join()
        .unwrap();
        let [alive, at_the_end] = [receiver.recv().unwrap(), receiver.recv().unwrap()];
        assert!(at_the_end == alive || at_the_end == NO_NUMBER, "{at_the_end}");
    }
}
