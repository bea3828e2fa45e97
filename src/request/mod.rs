//! Requests that may be sent more than once: how to copy them, and when that is safe.

mod repeat;

pub use repeat::{CloneWith, Cloned, IdempotentIf, PrepareWith, Repeat, ReplaySafety};
