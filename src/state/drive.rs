//! The compare-and-swap loop that applies a step to a word.

use super::atomics::{AtomicU64, Ordering};

/// The result of one step.
pub(crate) enum Step<T> {
    /// Leaves the word as it is: a load was enough.
    Keep(T),
    /// Writes this word, unless another thread has written since; then the step runs again.
    Write(u64, T),
}

/// Retries `step` until it keeps the word or its write succeeds.
///
/// One load, and one read-modify-write for each `Write` that is tried. Lock-free: a write fails
/// only when another one has succeeded. The linearization point is the write, or the load that led
/// to `Keep`. `step` may run several times, so it must not have side effects.
#[inline]
pub(crate) fn drive<T>(word: &AtomicU64, step: impl FnMut(u64) -> Step<T>) -> T {
    drive_from(word, word.load(Ordering::Acquire), step)
}

/// As [`drive`], from a value that the caller has loaded.
#[inline]
pub(crate) fn drive_from<T>(word: &AtomicU64, mut seen: u64, mut step: impl FnMut(u64) -> Step<T>) -> T {
    loop {
        match step(seen) {
            Step::Keep(result) => return result,
            Step::Write(next, result) => {
                match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return result,
                    Err(actual) => seen = actual,
                }
            }
        }
    }
}
