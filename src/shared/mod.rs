//! Building blocks that threads share, other than state machines: striped reference counts, thread
//! numbers, wakers, the wait queue, random numbers.

pub(crate) mod random;
pub(crate) mod striped;
pub(crate) mod thread_id;
pub(crate) mod wait_queue;
pub(crate) mod waker_list;
