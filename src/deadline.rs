//! The deadline of the running call, as the code inside it sees it.
//!
//! A [`Timeout`](crate::timeout) sets a deadline while it polls the call. Layers and handlers below
//! read it with [`current`] and [`remaining`], in the same task and regardless of the layers in
//! between, and a retry starts no attempt that the deadline would end immediately. A nested
//! deadline can only shorten an outer one.
//!
//! The deadline follows the call stack of one task. Work that is handed to another task
//! (`tokio::spawn`, `tower::buffer`) does not see it, unless [`scope`] carries it over:
//!
//! ```
//! use tower_rampart::deadline;
//!
//! # async fn work() {}
//! # async fn example() {
//! let work = work();
//! match deadline::current() {
//!     Some(at) => drop(tokio::spawn(deadline::scope(at, work))),
//!     None => drop(tokio::spawn(work)),
//! }
//! # }
//! ```

use std::{
    cell::Cell,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::clock;

thread_local! {
    static CONTEXT: DeadlineContext = const { DeadlineContext::none() };
}

/// A limit, in nanoseconds, that is never reached, or a point in time that never comes. The longest
/// finite value is 584 years.
pub(crate) const NEVER: u64 = u64::MAX;

/// The deadline of the code that this thread is polling. Points in time are nanoseconds on the
/// handles' timeline: a number moves through registers, an `Instant` through memory.
///
/// Each field is a cell of its own: a call that is ready immediately enters twice, and copying all
/// fields each time would cost more than the rest.
struct DeadlineContext {
    /// The shortest limit whose clock has not started, in nanoseconds, or [`NEVER`]. The clock
    /// starts when code asks for the deadline, so a call that is ready immediately reads no clock.
    pending_limit: Cell<u64>,
    /// Whether `started_at` or `unenforced` is set, which takes the slow path on entering and
    /// leaving.
    slow_path: Cell<bool>,
    /// The earliest deadline that is a point in time, or [`NEVER`].
    deadline: Cell<u64>,
    /// When the clocks of the limits in their first poll started; [`NEVER`] while `pending_limit`
    /// is set.
    started_at: Cell<u64>,
    /// The earliest deadline that no timer enforces yet, because [`scope`] set it.
    unenforced: Cell<u64>,
    /// The earliest deadline that [`scope`] set, enforced or not: the caller's. Only scopes change
    /// it.
    callers: Cell<u64>,
}

impl DeadlineContext {
    const fn none() -> Self {
        Self {
            pending_limit: Cell::new(NEVER),
            slow_path: Cell::new(false),
            deadline: Cell::new(NEVER),
            started_at: Cell::new(NEVER),
            unenforced: Cell::new(NEVER),
            callers: Cell::new(NEVER),
        }
    }

    /// Starts all clocks that have not started.
    fn start(&self, now: u64) {
        let limit = self.pending_limit.replace(NEVER);
        if limit != NEVER {
            self.deadline.set(self.deadline.get().min(now.saturating_add(limit)));
            self.started_at.set(now);
            self.slow_path.set(true);
        }
    }

    /// Sets the values around a limit that is entered, or those to restore when it is left.
    fn set(&self, deadline: u64, started_at: u64, unenforced: u64) {
        self.deadline.set(deadline);
        self.started_at.set(started_at);
        self.unenforced.set(unenforced);
        self.slow_path.set(started_at != NEVER || unenforced != NEVER);
    }
}

/// Returns the deadline of the running call, if it has one.
///
/// If the clock of a surrounding timeout has not started, this starts it, which reads the clock
/// once.
pub fn current() -> Option<Instant> {
    clock::instant_of(current_nanos())
}

/// As [`current`], in nanoseconds, or [`NEVER`].
pub(crate) fn current_nanos() -> u64 {
    CONTEXT.with(|context| {
        if context.pending_limit.get() != NEVER {
            context.start(clock::nanos());
        }
        context.deadline.get()
    })
}

/// Returns the time left until the deadline of the running call, if it has one; zero if it has
/// passed.
pub fn remaining() -> Option<Duration> {
    let deadline = current_nanos();
    (deadline != NEVER).then(|| Duration::from_nanos(deadline.saturating_sub(clock::nanos())))
}

/// Runs `future` with a deadline that the code inside sees.
///
/// Only timeouts inside enforce it: each fires at this deadline if it is earlier than its own. A
/// timeout that is called after the deadline has passed rejects without calling its service; a call
/// that was made before the scope was put around it is polled once. An earlier deadline around the
/// scope stays in force.
///
/// A call that such a deadline ends before the timeout's own limit is [cut
/// short](crate::Rejection::TimedOut::cut_short): it says nothing about the service, and a breaker
/// ignores it.
pub fn scope<F: Future>(at: Instant, future: F) -> Scope<F> {
    Scope { at, future }
}

pin_project! {
    /// Future of [`scope`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        at: Instant,
        #[pin]
        future: F,
    }
}

impl<F> fmt::Debug for Scope<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scope").field("at", &self.at).finish_non_exhaustive()
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        within_callers(*this.at, || this.future.poll(cx))
    }
}

/// Runs `inside` with this deadline of the caller's, as a [`Scope`] does with its future.
pub(crate) fn within_callers<R>(at: Instant, inside: impl FnOnce() -> R) -> R {
    /// Restores the outer scopes' deadline, even if the code inside panics.
    struct Restore(u64);

    impl Drop for Restore {
        fn drop(&mut self) {
            CONTEXT.with(|context| context.callers.set(self.0));
        }
    }

    let _outer = CONTEXT.with(|context| {
        let outer = context.callers.get();
        context.callers.set(outer.min(clock::nanos_at(at)));
        Restore(outer)
    });
    within(at, inside)
}

/// Runs `inside` with this deadline, which the timeouts inside enforce.
pub(crate) fn within<R>(at: Instant, inside: impl FnOnce() -> R) -> R {
    let mut saved = None;
    let guard = CONTEXT.with(|context| {
        let (outer, at) = (saved.insert(SavedDeadline::of(context)), clock::nanos_at(at));
        let (pending_limit, deadline) = (context.pending_limit.get(), context.deadline.get());
        context.set(deadline.min(at), outer.started_at, outer.unenforced.min(at));
        DeadlineGuard { limit: Limit::None, pending_limit, deadline, saved: &mut saved }
    });
    let output = inside();
    guard.leave();
    output
}

/// Returns the earliest surrounding deadline that no timer enforces, or [`NEVER`]. The next timeout
/// inside must enforce it.
#[inline(always)]
pub(crate) fn unenforced() -> u64 {
    CONTEXT.with(|context| context.unenforced.get())
}

/// Returns the earliest surrounding deadline that a [`scope`] set, or [`NEVER`].
pub(crate) fn callers() -> u64 {
    CONTEXT.with(|context| context.callers.get())
}

/// Whether the earliest deadline that a [`scope`] set has passed, or will within a millisecond: the
/// resolution of timers and of the headers by which a remote service learns of it. A call that was
/// ended by a time limit was then ended by its caller's. Reads the clock if there is such a
/// deadline.
#[cfg(feature = "http")]
pub(crate) fn callers_has_passed() -> bool {
    let callers = callers();
    callers != NEVER && is_over(callers)
}

/// Whether a deadline, in nanoseconds, has passed, or will within a millisecond.
#[cfg(feature = "http")]
pub(crate) fn is_over(deadline: u64) -> bool {
    const RESOLUTION: u64 = 1_000_000;

    clock::nanos().saturating_add(RESOLUTION) >= deadline
}

/// A time limit. Its clock starts when code inside or outside asks for the deadline.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// The clock has not started: the limit in nanoseconds, or [`NEVER`].
    Within(u64),
    /// The clock has started: the deadline, or [`NEVER`].
    Until(u64),
    /// No limit: the surrounding deadline stays as it is.
    None,
}

impl Limit {
    /// Applies this limit until [`DeadlineGuard::leave`]. `saved` keeps outer values that the slow
    /// path restores. Costs a few moves to and from a thread-local, and no clock read.
    #[inline(always)]
    pub(crate) fn enter(self, saved: &mut Option<SavedDeadline>) -> DeadlineGuard<'_> {
        let (pending_limit, deadline) = CONTEXT.with(|context| {
            let (pending_limit, deadline) = (context.pending_limit.get(), context.deadline.get());
            if !matches!(self, Self::None) && context.slow_path.get() {
                *saved = Some(SavedDeadline::of(context));
                self.hide_outer(context);
            }
            match self {
                Self::Within(limit) => context.pending_limit.set(limit.min(pending_limit)),
                Self::Until(limit) => context.deadline.set(limit.min(deadline)),
                Self::None => {}
            }
            (pending_limit, deadline)
        });
        DeadlineGuard { limit: self, pending_limit, deadline, saved }
    }

    #[cold]
    fn hide_outer(self, context: &DeadlineContext) {
        // This limit enforces the unenforced deadline. If its own clock has not started, a start
        // that is already there was an earlier sibling's in this poll.
        let started_at = if let Self::Within(_) = self { NEVER } else { context.started_at.get() };
        context.set(context.deadline.get(), started_at, NEVER);
    }

    /// Returns the deadline, or [`NEVER`]. Starts the clock if it has not started.
    pub(crate) fn deadline(&mut self) -> u64 {
        if let Self::Within(limit) = *self {
            let now = clock::nanos();
            // Surrounding limits that are in their first poll, too, share the reading.
            CONTEXT.with(|context| context.start(now));
            *self = Self::Until(now.saturating_add(limit));
        }
        match *self {
            Self::Until(deadline) => deadline,
            Self::Within(_) | Self::None => NEVER,
        }
    }
}

/// Values outside a limit or a scope that are hidden inside it.
pub(crate) struct SavedDeadline {
    started_at: u64,
    unenforced: u64,
}

impl SavedDeadline {
    fn of(context: &DeadlineContext) -> Self {
        Self { started_at: context.started_at.get(), unenforced: context.unenforced.get() }
    }
}

/// Applies a limit or a scope while it exists. Leaving, or dropping it when the code inside panics,
/// restores the outer values, and passes on whether the clocks were started inside.
#[must_use]
pub(crate) struct DeadlineGuard<'a> {
    limit: Limit,
    pending_limit: u64,
    deadline: u64,
    /// `None` if there was nothing to hide.
    saved: &'a mut Option<SavedDeadline>,
}

impl DeadlineGuard<'_> {
    /// Returns the limit, with its clock started if code inside has started it.
    #[inline(always)]
    pub(crate) fn leave(self) -> Limit {
        let limit = self.restore();
        mem::forget(self);
        limit
    }

    #[inline(always)]
    fn restore(&self) -> Limit {
        CONTEXT.with(|context| {
            context.pending_limit.set(self.pending_limit);
            context.deadline.set(self.deadline);
            if context.slow_path.get() || self.saved.is_some() {
                return restore_slow(context, self.limit, self.pending_limit, self.deadline, self.saved);
            }
            self.limit
        })
    }
}

impl Drop for DeadlineGuard<'_> {
    // Not inlined, it would force the guard into memory.
    #[inline(always)]
    fn drop(&mut self) {
        self.restore();
    }
}

#[inline(never)]
fn restore_slow(
    context: &DeadlineContext,
    limit: Limit,
    pending_limit: u64,
    deadline: u64,
    saved: &Option<SavedDeadline>,
) -> Limit {
    let started_at = context.started_at.get();
    match saved {
        Some(outer) => context.set(deadline, outer.started_at, outer.unenforced),
        None => context.set(deadline, NEVER, NEVER),
    }
    if started_at == NEVER {
        return limit;
    }
    // With an outer limit pending, no outer clock had started: this start was made inside.
    if pending_limit != NEVER {
        context.start(started_at);
    }
    match limit {
        Limit::Within(limit) => Limit::Until(started_at.saturating_add(limit)),
        limit => limit,
    }
}
