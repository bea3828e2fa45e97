//! Requests that may be sent more than once: how to copy them, and when that is safe.

mod repeat;

pub(crate) use repeat::overlooks_method;
pub use repeat::{CloneWith, Cloned, IdempotentIf, PrepareWith, Repeat, ReplaySafety};
