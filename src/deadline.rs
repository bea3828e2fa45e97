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
    mem,
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

/// A limit, in nanoseconds, that is never reached; or a point in time that never comes. The longest that can be is 584
/// years.
pub(crate) const NEVER: u64 = u64::MAX;

/// What surrounds the code that is being polled on this thread. Points in time are nanoseconds on the handles'
/// time-line: a number moves through registers, an `Instant` through memory.
///
/// A cell a field: a call that is ready at once enters twice, and copying all of it each time costs more than the rest.
struct Ambient {
    /// The shortest limit whose clock has not started, in nanoseconds, or [`NEVER`]: it starts when somebody asks. A
    /// call that is ready at once reads no clock that way.
    within: Cell<u64>,
    /// `started` or `advised` is there.
    marked: Cell<bool>,
    /// A retry inside has given up and returned its last result: whoever retries outside should not multiply it.
    exhausted: Cell<bool>,
    /// The earliest deadline that has a point in time.
    until: Cell<u64>,
    /// When the clocks of the limits in their first poll have started; [`NEVER`] while `within` is there.
    started: Cell<u64>,
    /// The earliest deadline that nobody enforces yet: it was set by [`scope`].
    advised: Cell<u64>,
}

impl Ambient {
    const fn none() -> Self {
        Self {
            within: Cell::new(NEVER),
            marked: Cell::new(false),
            exhausted: Cell::new(false),
            until: Cell::new(NEVER),
            started: Cell::new(NEVER),
            advised: Cell::new(NEVER),
        }
    }

    /// Starts all clocks that have not started.
    fn start(&self, now: u64) {
        let within = self.within.replace(NEVER);
        if within != NEVER {
            self.until.set(self.until.get().min(now.saturating_add(within)));
            self.started.set(now);
            self.marked.set(true);
        }
    }

    /// Sets what lies outside of a limit that is entered anew, or of one that is left.
    fn set(&self, until: u64, started: u64, advised: u64) {
        self.until.set(until);
        self.started.set(started);
        self.advised.set(advised);
        self.marked.set(started != NEVER || advised != NEVER);
    }
}

/// The deadline of the running call, if it has one.
///
/// Starts the clock of a surrounding timeout that has not started it yet; reads the clock for that at most once.
pub fn current() -> Option<Instant> {
    clock::instant_of(until())
}

fn until() -> u64 {
    AMBIENT.with(|ambient| {
        if ambient.within.get() != NEVER {
            ambient.start(clock::nanos());
        }
        ambient.until.get()
    })
}

/// The time left until the deadline of the running call, if it has one; zero when it has passed.
pub fn remaining() -> Option<Duration> {
    let until = until();
    (until != NEVER).then(|| Duration::from_nanos(until.saturating_sub(clock::nanos())))
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
    let mut outer = None;
    let entered = AMBIENT.with(|ambient| {
        let (marks, at) = (outer.insert(Marks::of(ambient)), clock::nanos_at(at));
        let (within, until) = (ambient.within.get(), ambient.until.get());
        ambient.set(until.min(at), marks.started, marks.advised.min(at));
        Entered { limit: Limit::None, within, until, marks: &mut outer }
    });
    let output = inside();
    entered.leave();
    output
}

/// The earliest deadline around that nobody enforces, or [`NEVER`]: the next timeout inside has to.
#[inline(always)]
pub(crate) fn advised() -> u64 {
    AMBIENT.with(|ambient| ambient.advised.get())
}

/// A retry calls this as it returns a result that it would have repeated, had it been allowed to.
pub(crate) fn mark_exhausted() {
    AMBIENT.with(|ambient| ambient.exhausted.set(true));
}

/// Looks out for retries inside that give up: beginning with a mark of `false`, and ending with the mark that this
/// returned, for whoever is around. Returns the mark as it was.
///
/// A mark is meant for the innermost retry around, which sets it again if it gives up itself.
#[inline]
pub(crate) fn swap_exhausted(mark: bool) -> bool {
    AMBIENT.with(|ambient| ambient.exhausted.replace(mark))
}

/// A limit of time and its clock, which starts when somebody asks for the deadline, inside or outside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// The clock has not started; in nanoseconds, or [`NEVER`].
    Within(u64),
    /// It has; the point in time, or [`NEVER`].
    Until(u64),
    /// There is none: what is around stays as it is.
    None,
}

impl Limit {
    /// Puts this limit around what runs until [`Entered::leave`]; `marks` is where it keeps those that are outside, if there
    /// are any. Costs a few moves to and from a thread-local, and no clock.
    #[inline(always)]
    pub(crate) fn enter(self, marks: &mut Option<Marks>) -> Entered<'_> {
        let (within, until) = AMBIENT.with(|ambient| {
            let (within, until) = (ambient.within.get(), ambient.until.get());
            if !matches!(self, Self::None) && ambient.marked.get() {
                *marks = Some(Marks::of(ambient));
                self.hide_marks(ambient);
            }
            match self {
                Self::Within(limit) => ambient.within.set(limit.min(within)),
                Self::Until(limit) => ambient.until.set(limit.min(until)),
                Self::None => {}
            }
            (within, until)
        });
        Entered { limit: self, within, until, marks }
    }

    #[cold]
    fn hide_marks(self, ambient: &Ambient) {
        // This limit enforces what was advised. And where its own clock has not started, a start that is there already
        // was that of an earlier sibling in this poll.
        let started = if let Self::Within(_) = self { NEVER } else { ambient.started.get() };
        ambient.set(ambient.until.get(), started, NEVER);
    }

    /// The deadline, or [`NEVER`]; starts the clock if it has not started.
    pub(crate) fn deadline(&mut self) -> u64 {
        if let Self::Within(within) = *self {
            let now = clock::nanos();
            // Limits around this one that are in their first poll too have started just now: they share the reading.
            AMBIENT.with(|ambient| ambient.start(now));
            *self = Self::Until(now.saturating_add(within));
        }
        match *self {
            Self::Until(until) => until,
            Self::Within(_) | Self::None => NEVER,
        }
    }
}

/// What is marked outside of a limit or a scope.
pub(crate) struct Marks {
    started: u64,
    advised: u64,
}

impl Marks {
    fn of(ambient: &Ambient) -> Self {
        Self { started: ambient.started.get(), advised: ambient.advised.get() }
    }
}

/// While it is there, a limit or a scope is around what runs. Leaving, or dropping it because what is inside panics,
/// puts the surroundings back, and passes on what was learnt inside: the start of the clocks.
#[must_use]
pub(crate) struct Entered<'a> {
    limit: Limit,
    within: u64,
    until: u64,
    /// `None` where nothing was marked.
    marks: &'a mut Option<Marks>,
}

impl Entered<'_> {
    /// What the limit has become: if somebody inside started the clock, it has started for this limit too.
    #[inline(always)]
    pub(crate) fn leave(self) -> Limit {
        let limit = self.restore();
        mem::forget(self);
        limit
    }

    #[inline(always)]
    fn restore(&self) -> Limit {
        AMBIENT.with(|ambient| {
            ambient.within.set(self.within);
            ambient.until.set(self.until);
            if ambient.marked.get() || self.marks.is_some() {
                return restore_marks(ambient, self.limit, self.within, self.until, self.marks);
            }
            self.limit
        })
    }
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.restore();
    }
}

#[inline(never)]
fn restore_marks(ambient: &Ambient, limit: Limit, within: u64, until: u64, marks: &Option<Marks>) -> Limit {
    let started = ambient.started.get();
    match marks {
        Some(outside) => ambient.set(until, outside.started, outside.advised),
        None => ambient.set(until, NEVER, NEVER),
    }
    if started == NEVER {
        return limit;
    }
    // With `within` there, no clock had started outside: it was inside.
    if within != NEVER {
        ambient.start(started);
    }
    match limit {
        Limit::Within(limit) => Limit::Until(started.saturating_add(limit)),
        limit => limit,
    }
}

pin_project! {
    /// Future of an attempt, with whether a retry inside gave up as it returned.
    pub(crate) struct DetectExhausted<F> {
        #[pin]
        future: F,
    }
}

impl<F> DetectExhausted<F> {
    pub(crate) fn new(future: F) -> Self {
        Self { future }
    }
}

impl<F: Future> Future for DetectExhausted<F> {
    type Output = (F::Output, bool);

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outer = swap_exhausted(false);
        let polled = self.project().future.poll(cx);
        let exhausted = swap_exhausted(outer);
        polled.map(|output| (output, exhausted))
    }
}
