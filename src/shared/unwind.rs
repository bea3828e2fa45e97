//! Foreign code that may panic, where a panic must not cut short what follows.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code from a destructor. While a panic unwinds, a second one is contained: if it
/// left the destructor, the process would abort.
#[inline(always)]
pub(crate) fn contain(foreign: impl FnOnce()) {
    if std::thread::panicking() { contain_panic(foreign) } else { foreign() }
}

#[cold]
#[inline(never)]
fn contain_panic(foreign: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(foreign));
}

/// Runs `finish` when it is dropped: after the code that follows, even if that panics.
#[must_use]
pub(crate) fn finally<F: FnOnce()>(finish: F) -> Finally<F> {
    Finally(Some(finish))
}

/// The value of [`finally`].
pub(crate) struct Finally<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for Finally<F> {
    #[inline(always)]
    fn drop(&mut self) {
        if let Some(finish) = self.0.take() {
            finish();
        }
    }
}
