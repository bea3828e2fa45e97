//! The lock-free state core.
//!
//! Every structure here is a small state machine over one or a few atomic words. It takes the time
//! as an argument (a lazily called `now`, so that a path that needs no clock reads none), allocates
//! nothing after construction, takes no lock, and depends on neither tokio nor Tower nor the rest
//! of this crate.
//!
//! Decisions are functions without side effects, from a word to the next word and a result, and
//! [`drive`] applies them in its compare-and-swap loop. Two structures have loops of their own,
//! because each round involves more than one word: [`CountWindow::record`] may have to publish a
//! block before it writes, and [`Keyed::check`] searches for its key's entry again in each round.
//! The other words need no loop: a time window stores its bound and the cells that only one thread
//! writes, a limiter stores its parameters. A limiter's returned time is not a word: the lock of
//! its queue guards it.
//!
//! The atomics come through [`atomics`]: the standard library's in a build, counting ones in this
//! crate's unit tests (which turn the cost contract into assertions), loom's under `--cfg
//! rampart_loom`, for the interleavings in `models`.
//!
//! [`CountWindow::record`]: window::count::CountWindow::record
//! [`Keyed::check`]: keyed::Keyed::check

pub(crate) mod atomics;
pub(crate) mod budget;
pub(crate) mod circuit;
pub(crate) mod divisor;
pub(crate) mod drive;
pub(crate) mod gcra;
pub(crate) mod keyed;
#[cfg(all(test, rampart_loom))]
pub(crate) mod models;
pub(crate) mod permits;
pub(crate) mod time;
pub(crate) mod transition;
pub(crate) mod window;

/// The time for which a reservation is kept, at least. It lapses if its owner has not used it for
/// this long and another caller needs it.
///
/// Long beside the time in which a runtime polls a task that it has woken, and short beside a
/// caller's timeout.
pub(crate) const LAPSE_AFTER: std::time::Duration = std::time::Duration::from_millis(5);
