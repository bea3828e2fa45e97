//! Building blocks that threads share, other than state machines: striped reference counts, thread
//! numbers, locks, wakers, the semaphore and its queue, timers, random numbers, panics of foreign
//! code.

pub(crate) mod chunks;
pub(crate) mod linked_slab;
pub(crate) mod lock;
pub(crate) mod random;
pub(crate) mod semaphore;
pub(crate) mod striped;
pub(crate) mod template;
pub(crate) mod thread_id;
pub(crate) mod timer;
pub(crate) mod unwind;
pub(crate) mod waker_list;
