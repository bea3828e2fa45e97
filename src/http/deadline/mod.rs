//! Deadlines propagated from hop to hop.

mod header;
mod receive;
mod send;

pub use header::DeadlineHeader;
pub use receive::{DeadlineFuture, DeadlineReceive, DeadlineReceiveLayer};
pub use send::{DeadlineSend, DeadlineSendFuture, DeadlineSendLayer};
