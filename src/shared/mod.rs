//! What is shared between threads and is no state machine.

pub(crate) mod random;
pub(crate) mod striped;
pub(crate) mod thread_id;
pub(crate) mod waker_list;
