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
//! | `queues.rs` | [`Shard`](queues::Shard): the queues of a stripe |
//! | `alarm.rs` | [`Alarm`](alarm::Alarm): the timer of a queue that expires in its runtime |
//! | `lanes.rs` | [`Lanes`](lanes::Lanes): deadlines in order |

mod alarm;
mod lanes;
mod queues;
#[cfg(all(test, not(rampart_loom)))]
mod tests;

use std::task::{Context, Poll};

use self::{alarm::Arming, lanes::Key, queues::shard};
use crate::clock;

/// A timer that is armed at its first poll. Dropping it disarms it.
///
/// It is exempt from tokio's cooperative budget: an inner future that exhausts the budget at each
/// poll would starve it.
pub(crate) struct Timer {
    ticket: u64,
    lane: u32,
    /// [`UNARMED`], or the number of its shard: at most 64.
    shard: u8,
}

const UNARMED: u8 = u8::MAX;

impl Default for Timer {
    #[inline(always)]
    fn default() -> Self {
        Self { ticket: 0, lane: 0, shard: UNARMED }
    }
}

impl Timer {
    #[inline(always)]
    pub(crate) fn is_armed(&self) -> bool {
        self.shard != UNARMED
    }

    #[inline]
    fn key(&self) -> Key {
        Key { ticket: self.ticket, lane: self.lane }
    }

    /// Ready once the deadline has passed: nanoseconds on the handles' timeline, the same at each
    /// poll. The largest number never comes.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with time enabled.
    #[inline]
    pub(crate) fn poll(&mut self, deadline: u64, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_armed() { self.poll_armed(deadline, cx) } else { self.arm(deadline, cx) }
    }

    fn arm(&mut self, deadline: u64, cx: &mut Context<'_>) -> Poll<()> {
        if deadline == u64::MAX {
            return Poll::Pending;
        }
        let mut arming = None;
        let (shard, key) = queues::register(deadline, cx.waker(), &mut arming);
        (self.ticket, self.lane, self.shard) = (key.ticket, key.lane, shard);
        match arming {
            None => Poll::Pending,
            Some(arming) => self.set_alarm(arming, deadline),
        }
    }

    /// Sets the alarm to the timer's deadline, the earliest of its queue, which may have passed.
    #[cold]
    fn set_alarm(&mut self, arming: Arming, deadline: u64) -> Poll<()> {
        let has_passed = arming.run();
        if !has_passed || clock::nanos() < deadline {
            return Poll::Pending;
        }
        self.disarm();
        Poll::Ready(())
    }

    fn poll_armed(&mut self, deadline: u64, cx: &mut Context<'_>) -> Poll<()> {
        if shard(self.shard).renew(self.key(), cx.waker()) {
            return Poll::Pending;
        }
        self.shard = UNARMED;
        if clock::nanos() >= deadline {
            return Poll::Ready(());
        }
        // Its runtime has shut down.
        self.arm(deadline, cx)
    }

    /// Disarms it. A timer that is polled again is armed again.
    #[inline(always)]
    pub(crate) fn disarm(&mut self) {
        if self.is_armed() {
            self.remove();
        }
    }

    fn remove(&mut self) {
        shard(self.shard).remove(self.key());
        self.shard = UNARMED;
    }
}

impl Drop for Timer {
    #[inline(always)]
    fn drop(&mut self) {
        self.disarm();
    }
}
