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
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::Instant;

use crate::clock;

thread_local! {
    static AMBIENT: Cell<Ambient> = const { Cell::new(Ambient::NONE) };
}

/// What surrounds the code that is being polled on this thread.
#[derive(Clone, Copy)]
struct Ambient {
    /// The earliest deadline that has a point in time.
    until: Option<Instant>,
    /// The shortest limit whose clock has not started: it starts when somebody asks. A call that is ready at once
    /// reads no clock that way.
    within: Option<Duration>,
    /// When the clocks of the limits in their first poll have started; `None` while `within` is there.
    started: Option<Instant>,
    /// The earliest deadline that nobody enforces yet: it was set by [`scope`].
    advised: Option<Instant>,
    /// A retry inside has given up and returned its last result: whoever retries outside should not multiply it.
    exhausted: bool,
}

impl Ambient {
    const NONE: Self = Self { until: None, within: None, started: None, advised: None, exhausted: false };

    /// Starts all clocks that have not started.
    fn start(&mut self, now: Instant) {
        if let Some(within) = self.within.take() {
            self.until = earlier(self.until, now.checked_add(within));
            self.started = Some(now);
        }
    }
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
    let mut ambient = AMBIENT.get();
    if ambient.within.is_some() {
        ambient.start(clock::instant());
        AMBIENT.set(ambient);
    }
    ambient.until
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
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct Scope<F> {
        at: Instant,
        #[pin]
        future: F,
    }
}

impl<F: Future> Future for Scope<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let outer = AMBIENT.get();
        let restore = Restore(outer);
        AMBIENT.set(Ambient {
            until: earlier(outer.until, Some(*this.at)),
            advised: earlier(outer.advised, Some(*this.at)),
            ..outer
        });
        let output = this.future.poll(cx);
        restore.finish();
        output
    }
}

/// The earliest deadline around that nobody enforces: the next timeout inside has to.
pub(crate) fn advised() -> Option<Instant> {
    AMBIENT.get().advised
}

/// A retry calls this as it returns a result that it would have repeated, had it been allowed to.
pub(crate) fn mark_exhausted() {
    AMBIENT.set(Ambient { exhausted: true, ..AMBIENT.get() });
}

/// Polls an attempt, and tells whether a retry inside gave up as it returned.
///
/// The mark is meant for the innermost retry around, which sets it again if it gives up itself: what is around both
/// finds it as it was before.
pub(crate) fn watch_exhausted<R>(poll: impl FnOnce() -> R) -> (R, bool) {
    let outer = AMBIENT.get();
    AMBIENT.set(Ambient { exhausted: false, ..outer });
    let output = poll();
    let inner = AMBIENT.get();
    AMBIENT.set(Ambient { exhausted: outer.exhausted, ..inner });
    (output, inner.exhausted)
}

/// A limit of time and its clock, which starts when somebody asks for the deadline, inside or outside.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Limit {
    /// The clock has not started.
    Within(Duration),
    /// It has; `None` is a limit so long that it is never reached.
    Until(Option<Instant>),
}

impl Limit {
    /// Runs `inside` with this limit around it. If somebody inside started the clock, it has started for this limit
    /// too. Costs two reads and two writes of a thread-local and no clock.
    pub(crate) fn enter<R>(&mut self, inside: impl FnOnce() -> R) -> R {
        let outer = AMBIENT.get();
        let restore = Restore(outer);
        AMBIENT.set(match *self {
            // A start that is there already was that of an earlier sibling in this poll, not of this limit.
            Self::Within(within) => {
                Ambient { within: earlier(outer.within, Some(within)), started: None, advised: None, ..outer }
            }
            Self::Until(until) => Ambient { until: earlier(outer.until, until), advised: None, ..outer },
        });
        let output = inside();
        if let (Self::Within(within), Some(started)) = (*self, AMBIENT.get().started) {
            *self = Self::Until(started.checked_add(within));
        }
        restore.finish();
        output
    }

    /// The deadline; starts the clock if it has not started. `None` is never.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        if let Self::Within(within) = *self {
            let now = clock::instant();
            // Limits around this one that are in their first poll too have started just now: they share the reading.
            let mut ambient = AMBIENT.get();
            if ambient.within.is_some() {
                ambient.start(now);
                AMBIENT.set(ambient);
            }
            *self = Self::Until(now.checked_add(within));
        }
        match *self {
            Self::Until(until) => until,
            Self::Within(_) => None,
        }
    }
}

/// Puts the outer surroundings back, also when what is inside panics.
struct Restore(Ambient);

impl Restore {
    /// Puts them back and passes on what was learnt inside: the start of the clocks, and an exhausted retry.
    fn finish(self) {
        let inner = AMBIENT.get();
        let mut outer = self.0;
        outer.exhausted = inner.exhausted;
        if let Some(started) = inner.started {
            outer.start(started);
        }
        std::mem::forget(self);
        AMBIENT.set(outer);
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        AMBIENT.set(self.0);
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
