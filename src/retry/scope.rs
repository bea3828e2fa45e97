//! Retries inside of retries.
//!
//! Requests and results are of any type and pass by value, so what nested retries know of each
//! other follows the call stack of one task, as deadlines do. Each retry keeps its part with its
//! own call, and puts it into a thread-local while it polls an attempt.

use std::{
    cell::Cell,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use pin_project_lite::pin_project;

thread_local! {
    static SCOPE: ScopeCells = const { ScopeCells { counts: Cell::new(NO_LIMIT), payment: Cell::new(0) } };
}

/// What a retry sees of those around it, in two words: every poll of an attempt saves and sets
/// them.
struct ScopeCells {
    /// `[limit: 32 | used: 32]`: the retries that the outermost call may make, with all retries
    /// inside of it; and those that were made by the retries around, or in vain: by calls that did
    /// not succeed.
    counts: Cell<u64>,
    /// The address of the budget of the next retry outward, or 0; [`PAID`] if a success has been
    /// paid into it.
    payment: Cell<usize>,
}

/// The counts where there is no retry around.
const NO_LIMIT: u64 = (u32::MAX as u64) << 32;

/// The lowest bit of an address, which is always clear.
const PAID: usize = 1;

/// Adds retries that were used to `counts`.
#[inline(always)]
fn used(counts: u64, retries: u32) -> u64 {
    let used = (counts as u32).saturating_add(retries);
    counts & NO_LIMIT | u64::from(used)
}

/// Whether a call that allows `max_attempts` has used up the retries of the scope, after `retries`
/// of its own.
pub(super) fn is_exhausted(max_attempts: u32, retries: u32) -> bool {
    let counts = SCOPE.with(|scope| scope.counts.get());
    let limit = match (counts >> 32) as u32 {
        u32::MAX => max_attempts.saturating_sub(1),
        limit => limit,
    };
    used(counts, retries) as u32 >= limit
}

/// Counts the retries of a call that did not succeed. To the retries around, they are attempts of
/// their own.
#[inline]
pub(super) fn retried_in_vain(retries: u32) {
    if retries > 0 {
        SCOPE.with(|scope| {
            let counts = scope.counts.get();
            if counts < NO_LIMIT {
                scope.counts.set(used(counts, retries));
            }
        });
    }
}

/// Records that a success has been paid into `budget`, an address.
#[inline]
pub(super) fn paid_into(budget: usize) {
    SCOPE.with(|scope| {
        if scope.payment.get() == budget {
            scope.payment.set(budget | PAID);
        }
    });
}

/// Applies a retry's scope while it polls an attempt. Leaving it, or dropping it when the attempt
/// panics, restores the outer scope.
#[must_use]
pub(super) struct AttemptScope {
    outer_counts: u64,
    outer_payment: usize,
    counts: u64,
}

/// What happened in a poll of an attempt.
pub(super) struct InnerRetries {
    /// Retries that calls inside of the attempt made in vain.
    pub(super) in_vain: u32,
    /// A success has been paid into the retry's budget.
    pub(super) paid: bool,
}

impl AttemptScope {
    /// `retries` are those of the call and, in vain, of the calls inside of it so far. A retry that
    /// cannot retry has no `limit`, and bounds nothing. `budget` is the address of its budget.
    #[inline(always)]
    pub(super) fn enter(limit: Option<u32>, retries: u32, budget: Option<usize>) -> Self {
        SCOPE.with(|scope| {
            let (outer_counts, outer_payment) = (scope.counts.get(), scope.payment.get());
            let limited = match limit {
                Some(limit) if outer_counts >= NO_LIMIT => u64::from(limit) << 32 | u64::from(outer_counts as u32),
                _ => outer_counts,
            };
            let counts = used(limited, retries);
            scope.counts.set(counts);
            scope.payment.set(budget.unwrap_or(outer_payment & !PAID));
            Self { outer_counts, outer_payment, counts }
        })
    }

    /// Hides the retries around.
    fn outside() -> Self {
        SCOPE.with(|scope| Self {
            outer_counts: scope.counts.replace(NO_LIMIT),
            outer_payment: scope.payment.replace(0),
            counts: NO_LIMIT,
        })
    }

    #[inline(always)]
    pub(super) fn leave(self) -> InnerRetries {
        SCOPE.with(|scope| {
            let (counts, payment) = (scope.counts.get(), scope.payment.get());
            let paid = payment & PAID != 0;
            let outer_paid = paid && payment == self.outer_payment | PAID;
            scope.counts.set(self.outer_counts);
            scope.payment.set(if outer_paid { payment } else { self.outer_payment });
            let in_vain = (counts as u32).wrapping_sub(self.counts as u32);
            std::mem::forget(self);
            InnerRetries { in_vain, paid }
        })
    }
}

impl Drop for AttemptScope {
    // Not inlined, it would force the guard into memory.
    #[inline(always)]
    fn drop(&mut self) {
        SCOPE.with(|scope| {
            scope.counts.set(self.outer_counts);
            scope.payment.set(self.outer_payment);
        });
    }
}

/// Runs a side call: its retries do not count as attempts of the retries around.
///
/// To a retry, the retries of all calls inside of its attempt that end in a failure are attempts of
/// its own, since one of them may be the attempt's result. A call whose failure is handled, such as
/// one that fills a cache, should not use them up.
///
/// ```
/// use tower_rampart::retry::{Retry, side_call};
///
/// # async fn load() -> Result<String, std::io::Error> { Ok(String::new()) }
/// # async fn warm_cache() -> Result<(), std::io::Error> { Ok(()) }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let (retry, cache) = (Retry::attempts("page", 3)?, Retry::attempts("cache", 3)?);
/// let page = retry.run(|_| async {
///     let _ = side_call(cache.run(|_| warm_cache())).await;
///     load().await
/// });
/// # page.await?;
/// # Ok(()) }
/// ```
pub fn side_call<F: Future>(future: F) -> SideCall<F> {
    SideCall { future: Some(future) }
}

pin_project! {
    /// Future of [`side_call`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct SideCall<F> {
        // `None` while it is dropped.
        #[pin]
        future: Option<F>,
    }

    impl<F> PinnedDrop for SideCall<F> {
        fn drop(this: Pin<&mut Self>) {
            let _outer = AttemptScope::outside();
            this.project().future.set(None);
        }
    }
}

impl<F: Future> Future for SideCall<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let _outer = AttemptScope::outside();
        self.project().future.as_pin_mut().expect("it is not dropped").poll(cx)
    }
}
