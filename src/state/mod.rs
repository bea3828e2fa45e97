//! The lock-free state core.
//!
//! Every structure here is a small state machine over one or a few atomic words. It takes the time as an argument
//! (a lazily called `now`, so that a path that needs no clock reads none), allocates nothing after construction, takes
//! no lock, and knows neither tokio nor Tower nor the rest of this crate. Decisions are pure step functions,
//! `word in -> (word, decision) out`; the only thing around them is the compare-and-swap loop of [`drive`].
//!
//! The atomics come through [`atomics`]: the standard library's in a build, counting ones in this crate's unit tests
//! (which turn the cost contract into assertions), loom's under `--cfg rampart_loom`, for the interleavings in `models`.

pub(crate) mod atomics;
pub(crate) mod budget;
pub(crate) mod circuit;
pub(crate) mod drive;
pub(crate) mod gcra;
pub(crate) mod keyed;
#[cfg(all(test, rampart_loom))]
pub(crate) mod models;
pub(crate) mod permits;
pub(crate) mod time;
pub(crate) mod transition;
pub(crate) mod window;
