//! The deadline of the call that is running, for whoever is inside.
//!
//! A [`Timeout`](crate::timeout) sets a deadline while it polls what is inside it. Layers and handlers below see it
//! with [`current`] and [`remaining`], in the same task and whatever lies between, and a retry starts no attempt that it
//! would kill. A deadline inside another one can only make it shorter.
//!
//! It follows the call stack of one task: work that is handed to another task (`tokio::spawn`, `tower::buffer`) is
//! outside of it, unless it is carried over with [`scope`]:
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
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::clock;

thread_local! {
    static AMBIENT: Ambient = const { Ambient::none() };
}

/// What surrounds the code that is being polled on this thread.
///
/// A cell a field: a call that is ready at once enters twice, and copying all of it each time costs more than the rest.
struct Ambient {
    /// The earliest deadline that has a point in time.
    until: Cell<Option<Instant>>,
    /// The shortest limit whose clock has not started, in nanoseconds, or [`NEVER`]: it starts when somebody asks. A
    /// call that is ready at once reads no clock that way.
    within: Cell<u64>,
    /// When the clocks of the limits in their first poll have started; `None` while `within` is there.
    started: Cell<Option<Instant>>,
    /// The earliest deadline that nobody enforces yet: it was set by [`scope`].
    advised: Cell<Option<Instant>>,
    /// A retry inside has given up and returned its last result: whoever retries outside should not multiply it.
    exhausted: Cell<bool>,
}

impl Ambient {
    const fn none() -> Self {
        Self {
            until: Cell::new(None),
            within: Cell::new(NEVER),
            started: Cell::new(None),
            advised: Cell::new(None),
            exhausted: Cell::new(false),
        }
    }

    /// Starts all clocks that have not started.
    fn start(&self, now: Instant) {
        let within = self.within.replace(NEVER);
        if within != NEVER {
            self.until.set(earlier(self.until.get(), after(now, within)));
            self.started.set(Some(now));
        }
    }
}

/// A limit, in nanoseconds, that is never reached. The longest that can be is 584 years.
pub(crate) const NEVER: u64 = u64::MAX;

fn after(start: Instant, nanos: u64) -> Option<Instant> {
    if nanos == NEVER { None } else { start.checked_add(Duration::from_nanos(nanos)) }
}

fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The deadline of the running call, if it has one.
///
/// Starts the clock of a surrounding timeout that has not started it yet; reads the clock for that at most once.
pub fn current() -> Option<Instant> {
    AMBIENT.with(|ambient| {
        if ambient.within.get() != NEVER {
            ambient.start(clock::instant());
        }
        ambient.until.get()
    })
}

/// The time left until the deadline of the running call, if it has one; zero when it has passed.
pub fn remaining() -> Option<Duration> {
    current().map(|at| at.saturating_duration_since(clock::instant()))
}

/// Runs `future` with a deadline that the code inside sees.
///
/// Nothing enforces it but the timeouts inside: each of them fires at this deadline if it is earlier than its own. If it
/// has passed before a call is made inside, the call's timeout answers without making it; a call that was made before
/// the scope was put around it is polled once. A deadline that surrounds the scope stays in force when it is the
/// earlier one.
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
        within(*this.at, || this.future.poll(cx))
    }
}

/// Runs `inside` with this deadline around it, as a [`Scope`] does with its future.
pub(crate) fn within<R>(at: Instant, inside: impl FnOnce() -> R) -> R {
    let mut outer = Outer::save();
    outer.changed = true;
    AMBIENT.with(|ambient| {
        ambient.until.set(earlier(outer.until, Some(at)));
        ambient.advised.set(earlier(outer.advised, Some(at)));
    });
    inside()
}

/// The earliest deadline around that nobody enforces: the next timeout inside has to.
#[inline]
pub(crate) fn advised() -> Option<Instant> {
    AMBIENT.with(|ambient| ambient.advised.get())
}

/// A retry calls this as it returns a result that it would have repeated, had it been allowed to.
pub(crate) fn mark_exhausted() {
    AMBIENT.with(|ambient| ambient.exhausted.set(true));
}

/// Polls an attempt, and tells whether a retry inside gave up as it returned.
///
/// The mark is meant for the innermost retry around, which sets it again if it gives up itself: what is around both
/// finds it as it was before.
pub(crate) fn watch_exhausted<R>(poll: impl FnOnce() -> R) -> (R, bool) {
    AMBIENT.with(|ambient| {
        let outer = ambient.exhausted.replace(false);
        let output = poll();
        (output, ambient.exhausted.replace(outer))
    })
}

/// A limit of time and its clock, which starts when somebody asks for the deadline, inside or outside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// The clock has not started; in nanoseconds, or [`NEVER`].
    Within(u64),
    /// It has; `None` is a limit so long that it is never reached.
    Until(Option<Instant>),
    /// There is none: what is around stays as it is.
    None,
}

impl Limit {
    /// Runs `inside` with this limit around it. If somebody inside started the clock, it has started for this limit
    /// too. Costs a few moves to and from a thread-local, and no clock.
    #[inline]
    pub(crate) fn enter<R>(&mut self, inside: impl FnOnce() -> R) -> R {
        if let Self::None = self {
            return inside();
        }
        let mut outer = Outer::save();
        AMBIENT.with(|ambient| {
            if let Self::Within(within) = *self {
                ambient.within.set(within.min(outer.within));
                if outer.started.is_none() && outer.advised.is_none() {
                    return;
                }
                // A start that is there already was that of an earlier sibling in this poll, not of this limit.
                ambient.started.set(None);
            }
            if let Self::Until(until) = *self {
                ambient.until.set(earlier(outer.until, until));
            }
            ambient.advised.set(None);
            outer.changed = true;
        });
        let output = inside();
        if let Self::Within(within) = *self
            && let Some(started) = AMBIENT.with(|ambient| ambient.started.get())
        {
            *self = Self::Until(after(started, within));
        }
        output
    }

    /// The deadline; starts the clock if it has not started. `None` is never.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        if let Self::Within(within) = *self {
            let now = clock::instant();
            // Limits around this one that are in their first poll too have started just now: they share the reading.
            AMBIENT.with(|ambient| ambient.start(now));
            *self = Self::Until(after(now, within));
        }
        match *self {
            Self::Until(until) => until,
            Self::Within(_) | Self::None => None,
        }
    }
}

/// The surroundings outside of a limit or a scope. Dropping it puts them back, also when what is inside panics, and
/// passes on what was learnt inside: the start of the clocks.
///
/// A limit whose clock does not start changes `within` only, and that is all that is written back then: a call that is
/// ready at once does not pay for the rest.
struct Outer {
    within: u64,
    until: Option<Instant>,
    started: Option<Instant>,
    advised: Option<Instant>,
    /// More than `within` was changed from outside.
    changed: bool,
}

impl Outer {
    #[inline]
    fn save() -> Self {
        AMBIENT.with(|ambient| Self {
            within: ambient.within.get(),
            until: ambient.until.get(),
            started: ambient.started.get(),
            advised: ambient.advised.get(),
            changed: false,
        })
    }

    #[cold]
    fn restore(&self, ambient: &Ambient) {
        let started = ambient.started.replace(self.started);
        ambient.until.set(self.until);
        ambient.advised.set(self.advised);
        // With `within` there, no clock had started outside: it was inside.
        if self.within != NEVER
            && let Some(started) = started
        {
            ambient.start(started);
        }
    }
}

impl Drop for Outer {
    #[inline]
    fn drop(&mut self) {
        AMBIENT.with(|ambient| {
            ambient.within.set(self.within);
            if self.changed || ambient.started.get().is_some() {
                self.restore(ambient);
            }
        });
    }
}

pin_project! {
    /// Future of an attempt, with whether a retry inside gave up as it returned.
    pub(crate) struct Watched<F> {
        #[pin]
        future: F,
    }
}

impl<F> Watched<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for Watched<F> {
    type Output = (F::Output, bool);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (polled, exhausted) = watch_exhausted(|| self.project().future.poll(cx));
        polled.map(|output| (output, exhausted))
    }
}
