//! The one compare-and-swap loop.

use super::atomics::{AtomicU64, Ordering};

/// What a pure step wants done with the word it was shown.
pub(crate) enum Step<T> {
    /// Leave the word as it is and answer: a load was enough.
    Keep(T),
    /// Install the new word; answer if nobody was faster, or look again.
    Write(u64, T),
}

/// Shows `step` the word until its wish comes true.
///
/// One load, and one read-modify-write per `Write` tried. Lock-free: a failed swap means that another one succeeded.
/// The linearization point is the swap, or the load that led to `Keep`. `step` may run several times: it must be pure
/// but for reading the clock once.
#[inline]
pub(crate) fn drive<T>(word: &AtomicU64, mut step: impl FnMut(u64) -> Step<T>) -> T {
    let mut seen = word.load(Ordering::Acquire);
    loop {
        match step(seen) {
            Step::Keep(answer) => return answer,
            Step::Write(next, answer) => {
                match word.compare_exchange_weak(seen, next, Ordering::AcqRel, Ordering::Acquire) {
                    Ok(_) => return answer,
                    Err(actual) => seen = actual,
                }
            }
        }
    }
}
