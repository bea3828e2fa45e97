//! What is known of a request before it is sent: how it is copied, and whether it may be sent again.

mod repeat;

pub use repeat::{CloneWith, Cloned, IdempotentIf, PrepareWith, Repeat, ReplaySafety};
