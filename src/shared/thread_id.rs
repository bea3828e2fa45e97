//! Small numbers that tell living threads apart.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::BinaryHeap,
    num::NonZeroUsize,
    sync::{LazyLock, Mutex, PoisonError},
};

/// The number of stripes: a power of two, about one per processor.
pub(crate) fn stripes() -> usize {
    static STRIPES: LazyLock<usize> = LazyLock::new(|| {
        let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        processors.next_power_of_two().min(64)
    });
    *STRIPES
}

/// A small number that no other living thread has.
///
/// The numbers of threads that have ended are reused, the lowest first; a thread that gets one has
/// seen all writes of its last owner. [`NO_NUMBER`] for a thread whose destructors have run.
#[inline]
pub(crate) fn thread_number() -> usize {
    NUMBER.with(|number| match number.get() {
        UNASSIGNED => assign_number(),
        number => number,
    })
}

pub(crate) const NO_NUMBER: usize = usize::MAX;
const UNASSIGNED: usize = usize::MAX - 1;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(UNASSIGNED) };
}

/// The free numbers: the lowest that was never used, and those of threads that have ended.
static FREE: Mutex<(usize, BinaryHeap<Reverse<usize>>)> = Mutex::new((0, BinaryHeap::new()));

#[cold]
fn assign_number() -> usize {
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
    NUMBER.with(|assigned| assigned.set(number));
    let lease = Cell::new(Some(Lease(number)));
    // A thread whose destructors have run keeps no number: dropping the lease frees it immediately.
    let _ = LEASE.try_with(|kept| kept.set(lease.take()));
    drop(lease);
    NUMBER.with(Cell::get)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Barrier};

    use super::*;

    #[test]
    fn living_threads_have_different_numbers_and_reuse_those_of_ended_ones() {
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
        // Other tests run concurrently, but without hundreds of threads.
        assert!(highest < 4 * THREADS, "{highest}");
    }

    #[test]
    fn a_thread_whose_destructors_have_run_has_no_number() {
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
            // Destructors run in no fixed order, so the number may be freed before this one.
            LAST.with(|last| last.set(Some(Last(sender.clone()))));
            sender.send(thread_number()).unwrap();
        })
        .join()
        .unwrap();
        let [alive, at_the_end] = [receiver.recv().unwrap(), receiver.recv().unwrap()];
        assert!(at_the_end == alive || at_the_end == NO_NUMBER, "{at_the_end}");
    }
}
