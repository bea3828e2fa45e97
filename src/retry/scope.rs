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
    static SCOPE: Cell<RetryScope> = const { Cell::new(RetryScope::NONE) };
}

/// What a retry sees of those around it.
#[derive(Clone, Copy)]
pub(super) struct RetryScope {
    /// The retries that the outermost call may make, with all retries inside of it; `u32::MAX` if
    /// there is no retry around.
    limit: u32,
    /// Those that were made by the retries around, or in vain: by calls that did not succeed.
    used: u32,
    /// The budget of the next retry outward, or 0.
    budget: usize,
    /// A success has been paid into that budget.
    paid: bool,
}

impl RetryScope {
    const NONE: Self = Self { limit: u32::MAX, used: 0, budget: 0, paid: false };

    /// The scope that this thread is polling in.
    pub(super) fn current() -> Self {
        SCOPE.get()
    }

    /// Whether another retry would exceed the limit, after `retries` of a call whose retry allows
    /// `max_attempts`.
    pub(super) fn is_exhausted(self, max_attempts: u32, retries: u32) -> bool {
        let limit = if self.limit == u32::MAX { max_attempts.saturating_sub(1) } else { self.limit };
        self.used.saturating_add(retries) >= limit
    }
}

/// Counts the retries of a call that did not succeed. To the retries around, they are attempts of
/// their own.
#[inline]
pub(super) fn retried_in_vain(retries: u32) {
    let scope = SCOPE.get();
    if retries > 0 && scope.limit != u32::MAX {
        SCOPE.set(RetryScope { used: scope.used.saturating_add(retries), ..scope });
    }
}

/// Records that a success has been paid into `budget`, an address.
#[inline]
pub(super) fn paid_into(budget: usize) {
    let scope = SCOPE.get();
    if scope.budget == budget {
        SCOPE.set(RetryScope { paid: true, ..scope });
    }
}

/// Applies a retry's scope while it polls an attempt. Leaving it, or dropping it when the attempt
/// panics, restores the outer scope.
#[must_use]
pub(super) struct AttemptScope {
    outer: RetryScope,
    used: u32,
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
        let outer = SCOPE.get();
        let limit = if outer.limit == u32::MAX { limit.unwrap_or(u32::MAX) } else { outer.limit };
        let used = outer.used.saturating_add(retries);
        SCOPE.set(RetryScope { limit, used, budget: budget.unwrap_or(outer.budget), paid: false });
        Self { outer, used }
    }

    /// Hides the retries around.
    fn outside() -> Self {
        Self { outer: SCOPE.replace(RetryScope::NONE), used: 0 }
    }

    #[inline(always)]
    pub(super) fn leave(self) -> InnerRetries {
        let RetryScope { used, budget, paid, .. } = SCOPE.get();
        let outer_paid = self.outer.paid || paid && budget == self.outer.budget;
        SCOPE.set(RetryScope { paid: outer_paid, ..self.outer });
        let in_vain = used - self.used;
        std::mem::forget(self);
        InnerRetries { in_vain, paid }
    }
}

impl Drop for AttemptScope {
    fn drop(&mut self) {
        SCOPE.set(self.outer);
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
