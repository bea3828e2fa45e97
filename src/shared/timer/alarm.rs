//! The alarm of a queue: its one timer that is registered with the runtime.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

use tokio::{runtime::Handle, task::coop::unconstrained, time::Instant};

use super::queues::{NextSetting, Setting, Step, shard};
use crate::{clock, shared::lock::wake_all};

/// What is registered with the runtime in place of a task's waker.
pub(super) struct Alarm {
    shard: u8,
    group: u32,
    runtime: Handle,
}

/// The right to set the alarm of a queue, in the context of its runtime. If it is dropped before,
/// the runtime does not run any more, and the queue's calls are woken.
pub(super) struct Arming(Option<Arc<Alarm>>);

impl Arming {
    pub(super) fn new(alarm: Arc<Alarm>) -> Self {
        Self(Some(alarm))
    }

    /// Sets the alarm for the earliest deadline of the queue. Returns whether that has passed.
    pub(super) fn run(mut self) -> bool {
        // The right is given up only if nothing panics.
        let has_passed = self.0.as_ref().is_some_and(Alarm::set);
        self.0 = None;
        has_passed
    }
}

impl Drop for Arming {
    fn drop(&mut self) {
        if let Some(alarm) = self.0.take() {
            shard(alarm.shard).abandon(alarm.group);
        }
    }
}

/// Sets the alarm from within its runtime.
impl Future for Arming {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        Self(self.0.take()).run();
        Poll::Ready(())
    }
}

/// Rings an alarm, as a task. If it is dropped before, the runtime does not run any more, and the
/// queue's calls are woken.
struct Ringing(Option<Arc<Alarm>>);

impl Future for Ringing {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<()> {
        if let Some(alarm) = self.0.take() {
            alarm.ring();
        }
        Poll::Ready(())
    }
}

impl Drop for Ringing {
    fn drop(&mut self) {
        if let Some(alarm) = self.0.take() {
            shard(alarm.shard).abandon(alarm.group);
        }
    }
}

impl Alarm {
    pub(super) fn new(shard: u8, group: u32, runtime: Handle) -> Self {
        Self { shard, group, runtime }
    }

    /// Sets the alarm for the earliest deadline of the queue. Returns whether that has passed.
    fn set(self: &Arc<Self>) -> bool {
        let queues = &shard(self.shard).queues;
        let waker = Waker::from(Arc::clone(self));
        loop {
            // Bound, so that it is dropped once the lock is released.
            let next = queues.take(|queues| queues.next_setting(self.group));
            let Some(NextSetting::To { deadline, sleep }) = next else { return false };
            let at = clock::instant_of(deadline).unwrap_or_else(far_future);
            let mut sleep = match sleep {
                Some(mut sleep) => {
                    sleep.as_mut().reset(at);
                    sleep
                }
                None => Box::pin(tokio::time::sleep_until(at)),
            };
            // An exhausted cooperative budget must not keep it from being registered.
            let polled = Pin::new(&mut unconstrained(sleep.as_mut())).poll(&mut Context::from_waker(&waker));
            let is_simulated = clock::is_simulated();
            let setting = queues.take(|queues| queues.end_setting(self.group, sleep, deadline, is_simulated));
            match setting {
                Setting::Again => {}
                // Not in the caller's poll, which must not run the wakers of others.
                Setting::Done if polled.is_ready() => {
                    drop(self.runtime.spawn(Ringing(Some(Arc::clone(self)))));
                    return true;
                }
                Setting::Done | Setting::Unused(_) | Setting::Abandoned(_) => return false,
            }
        }
    }

    /// Wakes the calls that are due, and sets the alarm for the next one.
    fn ring(&self) {
        let (due, step) = shard(self.shard).take_due(self.group);
        match step {
            // The time driver may be shutting down, so the alarm is set by a task: it is dropped if
            // the runtime does not run any more.
            Some(Step::SetAlarm(arming)) => drop(self.runtime.spawn(arming)),
            Some(Step::Drop(queue)) => drop(queue),
            None => {}
        }
        wake_all(due.into_iter());
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

/// Beyond the range of instants: thirty years, as tokio does it.
fn far_future() -> Instant {
    clock::instant() + std::time::Duration::from_secs(30 * 365 * 24 * 3600)
}
