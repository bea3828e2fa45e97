//! The atomics of the state core: the standard library's, counting ones in unit tests, loom's in
//! models.

#[cfg(rampart_loom)]
#[allow(unused_imports)] // only tests inject faults
pub(crate) use faulty::{AtomicU32, AtomicU64, Fault, Ordering, any_fault, has, with_fault};
#[cfg(rampart_loom)]
pub(crate) use loom::sync::Mutex;
#[cfg(not(rampart_loom))]
pub(crate) use std::sync::Mutex;

#[cfg(not(any(test, rampart_loom)))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(all(test, not(rampart_loom)))]
pub(crate) use counting::{AtomicU32, AtomicU64, Ops, Ordering, count};

/// A value on cache lines of its own, so that writes to its neighbors do not invalidate it.
///
/// 128 bytes: the adjacent-line prefetcher of x86-64 and the cache lines of some AArch64 cores make
/// 64 too few.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

impl<T> std::ops::Deref for Padded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod counting {
    //! Atomics that count operations per thread, to assert the cost contract.

    use std::cell::Cell;
    pub(crate) use std::sync::atomic::Ordering;

    /// The operations of one thread on shared words.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(crate) struct Ops {
        pub(crate) loads: u32,
        pub(crate) stores: u32,
        /// Read-modify-writes, including failed compare-and-swaps.
        pub(crate) rmws: u32,
    }

    thread_local! {
        static OPS: Cell<Ops> = const { Cell::new(Ops { loads: 0, stores: 0, rmws: 0 }) };
    }

    fn update(change: impl FnOnce(&mut Ops)) {
        OPS.with(|cell| {
            let mut ops = cell.get();
            change(&mut ops);
            cell.set(ops);
        });
    }

    /// Runs `work` and returns the operations of this thread in the meantime.
    pub(crate) fn count<R>(work: impl FnOnce() -> R) -> (R, Ops) {
        let before = OPS.replace(Ops::default());
        let out = work();
        (out, OPS.replace(before))
    }

    macro_rules! counting_atomic {
        ($name:ident, $int:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(std::sync::atomic::$name);

            #[allow(dead_code)] // the same operations for all integers
            impl $name {
                pub(crate) fn new(value: $int) -> Self {
                    Self(std::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, order: Ordering) -> $int {
                    update(|ops| ops.loads += 1);
                    self.0.load(order)
                }

                pub(crate) fn store(&self, value: $int, order: Ordering) {
                    update(|ops| ops.stores += 1);
                    self.0.store(value, order);
                }

                pub(crate) fn swap(&self, value: $int, order: Ordering) -> $int {
                    update(|ops| ops.rmws += 1);
                    self.0.swap(value, order)
                }

                pub(crate) fn fetch_add(&self, value: $int, order: Ordering) -> $int {
                    update(|ops| ops.rmws += 1);
                    self.0.fetch_add(value, order)
                }

                pub(crate) fn fetch_sub(&self, value: $int, order: Ordering) -> $int {
                    update(|ops| ops.rmws += 1);
                    self.0.fetch_sub(value, order)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $int,
                    new: $int,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$int, $int> {
                    update(|ops| ops.rmws += 1);
                    self.0.compare_exchange(current, new, success, failure)
                }

                // Never fails spuriously here, so that the counts are exact on every architecture.
                pub(crate) fn compare_exchange_weak(
                    &self,
                    current: $int,
                    new: $int,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$int, $int> {
                    self.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    counting_atomic!(AtomicU32, u32);
    counting_atomic!(AtomicU64, u64);
}

#[cfg(rampart_loom)]
mod faulty {
    //! loom's atomics with injectable faults: a model that passes with a fault proves nothing.
    #![allow(dead_code)] // only tests inject faults

    use std::cell::Cell;

    pub(crate) use loom::sync::atomic::Ordering;

    /// A fault in all words of a structure, or in its use.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Fault {
        /// Read-modify-writes are split into a load and a store.
        SplitSwap,
        /// All orderings are relaxed.
        Relaxed,
        /// A task checks the state before it registers its waker.
        CheckBeforeRegister,
    }

    thread_local! {
        // loom runs all threads of a model on the thread that calls it.
        static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    }

    /// Runs `model` with a fault in every word.
    pub(crate) fn with_fault<R>(fault: Fault, model: impl FnOnce() -> R) -> R {
        struct Restore;

        impl Drop for Restore {
            fn drop(&mut self) {
                FAULT.set(None);
            }
        }

        FAULT.set(Some(fault));
        let _restore = Restore;
        model()
    }

    pub(crate) fn any_fault() -> bool {
        FAULT.get().is_some()
    }

    pub(crate) fn has(fault: Fault) -> bool {
        FAULT.get() == Some(fault)
    }

    fn order(order: Ordering) -> Ordering {
        if has(Fault::Relaxed) { Ordering::Relaxed } else { order }
    }

    macro_rules! faulty_atomic {
        ($name:ident, $int:ty) => {
            #[derive(Debug, Default)]
            pub(crate) struct $name(loom::sync::atomic::$name);

            impl $name {
                pub(crate) fn new(value: $int) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }

                pub(crate) fn load(&self, ordering: Ordering) -> $int {
                    self.0.load(order(ordering))
                }

                pub(crate) fn store(&self, value: $int, ordering: Ordering) {
                    self.0.store(value, order(ordering));
                }

                pub(crate) fn fetch_add(&self, value: $int, ordering: Ordering) -> $int {
                    if has(Fault::SplitSwap) {
                        let seen = self.0.load(Ordering::Acquire);
                        self.0.store(seen.wrapping_add(value), Ordering::Release);
                        return seen;
                    }
                    self.0.fetch_add(value, order(ordering))
                }

                pub(crate) fn fetch_sub(&self, value: $int, ordering: Ordering) -> $int {
                    self.fetch_add(value.wrapping_neg(), ordering)
                }

                pub(crate) fn compare_exchange(
                    &self,
                    current: $int,
                    new: $int,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$int, $int> {
                    if has(Fault::SplitSwap) {
                        let seen = self.0.load(failure);
                        if seen != current {
                            return Err(seen);
                        }
                        self.0.store(new, Ordering::Release);
                        return Ok(seen);
                    }
                    self.0.compare_exchange(current, new, order(success), order(failure))
                }

                pub(crate) fn compare_exchange_weak(
                    &self,
                    current: $int,
                    new: $int,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$int, $int> {
                    self.compare_exchange(current, new, success, failure)
                }
            }
        };
    }

    faulty_atomic!(AtomicU32, u32);
    faulty_atomic!(AtomicU64, u64);
}
