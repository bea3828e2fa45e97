//! Timers of calls.
//!
//! A call that waits needs a timer, which nearly always is dropped before it expires. Registering
//! it with tokio's time driver and removing it again is most of the cost of such a call. So calls
//! put their deadlines into a queue of their thread's stripe, and only the earliest deadline of a
//! queue is registered with the runtime: about one registration in the length of a time limit,
//! whatever the number of calls.
//!
//! The timer that is registered wakes no task: when it expires, the time driver runs the queue's
//! [`Alarm`](alarm::Alarm), which wakes the calls that are due. Nothing depends on any caller being
//! polled. A queue belongs to one runtime, and reads that runtime's clock, paused or not. When the
//! runtime shuts down, the calls in its queue are woken, and register with the runtime that polls
//! them next.
//!
//! | file | contents |
//! |---|---|
//! | `mod.rs` | [`Timer`]: the timer of one call |
//! | `alarm.rs` | [`Shard`](alarm::Shard): the queues of a stripe; [`Alarm`](alarm::Alarm): what expires in a runtime |
//! | `lanes.rs` | [`Lanes`](lanes::Lanes): deadlines in order |

mod alarm;
mod lanes;
#[cfg(all(test, not(rampart_loom)))]
mod tests;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::{
    task::coop::{Unconstrained, unconstrained},
    time::Sleep,
};

use self::{
    alarm::{Arming, Registration, shard},
    lanes::Key,
};
use crate::clock;

/// A timer that is armed at its first poll. Dropping it disarms it.
///
/// It is exempt from tokio's cooperative budget: an inner future that exhausts the budget at each
/// poll would starve it.
#[derive(Default)]
pub(crate) enum Timer {
    #[default]
    Unarmed,
    Queued(Queued),
    /// For a deadline that the queue does not accept.
    Own(Pin<Box<Unconstrained<Sleep>>>),
}

impl Timer {
    #[inline(always)]
    pub(crate) fn is_armed(&self) -> bool {
        !matches!(self, Self::Unarmed)
    }

    /// Ready once the deadline has passed: nanoseconds on the handles' timeline, the same at each
    /// poll.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    #[inline(never)]
    pub(crate) fn poll(&mut self, deadline: u64, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Unarmed => {}
            Self::Queued(queued) if queued.renew(cx.waker()) => return Poll::Pending,
            Self::Queued(_) => {
                *self = Self::Unarmed;
                if clock::nanos() >= deadline {
                    return Poll::Ready(());
                }
                // Its runtime has shut down.
            }
            Self::Own(sleep) => return sleep.as_mut().poll(cx),
        }
        let (shard, registration) = alarm::register(deadline, cx.waker());
        match registration {
            Registration::Queued { key, arming } => {
                let queued = Queued { shard, index: key.index, ticket: key.ticket };
                let arming = arming.map(Arming::run);
                let is_due = arming.is_some() && !queued.is_queued() && clock::nanos() >= deadline;
                if is_due {
                    return Poll::Ready(());
                }
                *self = Self::Queued(queued);
                Poll::Pending
            }
            Registration::NotAccepted => {
                let Some(at) = clock::instant_of(deadline) else { return Poll::Pending };
                let mut sleep = Box::pin(unconstrained(tokio::time::sleep_until(at)));
                let polled = sleep.as_mut().poll(cx);
                *self = Self::Own(sleep);
                polled
            }
        }
    }
}

/// A call in the queue of a shard. Dropping it removes the call.
//
// With the tag of its timer, two words.
pub(crate) struct Queued {
    /// The number of the shard.
    shard: u8,
    index: u32,
    ticket: u64,
}

impl Queued {
    #[inline]
    fn key(&self) -> Key {
        Key { index: self.index, ticket: self.ticket }
    }

    /// Whether it is still in the queue.
    fn is_queued(&self) -> bool {
        shard(self.shard).contains(self.key())
    }

    /// Replaces the waker if it wakes another task. Returns whether the call is still in the queue.
    fn renew(&self, waker: &Waker) -> bool {
        shard(self.shard).renew(self.key(), waker)
    }
}

impl Drop for Queued {
    #[inline]
    fn drop(&mut self) {
        shard(self.shard).remove(self.key());
    }
}
