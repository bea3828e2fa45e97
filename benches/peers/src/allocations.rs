//! Counts heap allocations per thread.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{audit, harness::Candidate, rows::Row};

/// The system allocator, with counters.
pub struct Counting;

thread_local! {
    static COUNT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
}

/// Bytes currently allocated by all threads.
static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: delegates to the system allocator; the counters are plain cells, which do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = COUNT.try_with(|count| {
            let (allocations, bytes) = count.get();
            count.set((allocations + 1, bytes + layout.size() as u64));
        });
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        let pointer = unsafe { System.alloc(layout) };
        audit::allocated(pointer as usize, layout.size());
        pointer
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Returns this thread's allocations and allocated bytes while `work` runs.
pub fn of(work: impl FnOnce()) -> (u64, u64) {
    let before = COUNT.get();
    work();
    let after = COUNT.get();
    (after.0 - before.0, after.1 - before.1)
}

/// Returns the bytes currently allocated.
pub fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// Returns the allocations and bytes per operation of each candidate.
pub fn per_call(row: &Row) -> Vec<(f64, f64)> {
    const OPERATIONS: u64 = 1000;
    let per_call = |candidate: &Candidate| {
        let mut worker = candidate.worker();
        worker(OPERATIONS);
        let (allocations, bytes) = of(|| worker(OPERATIONS));
        (allocations as f64 / OPERATIONS as f64, bytes as f64 / OPERATIONS as f64)
    };
    row.candidates.iter().map(per_call).collect()
}
