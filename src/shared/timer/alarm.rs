//! The queues of deadlines, and the one timer of each that is registered with a runtime.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::{Context, Poll, Wake, Waker},
};

use tokio::{
    runtime::{self, Handle},
    task::coop::unconstrained,
    time::{Instant, Sleep},
};

use super::lanes::{Key, Lanes};
use crate::{
    clock,
    shared::{
        lock::{Lock, wake_all},
        thread_id::{stripes, thread_number},
        unwind,
    },
    state::atomics::Padded,
};

static SHARDS: LazyLock<Box<[Padded<Shard>]>> = LazyLock::new(|| (0..stripes()).map(|_| Padded::default()).collect());

/// Adds a call to the queue of the current runtime, in the shard of this thread. Returns the number
/// of the shard, and sets `arming` if the alarm must be set, because the deadline is the earliest.
#[inline]
pub(super) fn register(deadline: u64, waker: &Waker, arming: &mut Option<Arming>) -> (u8, Key) {
    let (runtime, waker) = (Handle::current(), waker.clone());
    let shards = &**SHARDS;
    // There are at most 64 stripes.
    let number = (thread_number() & (shards.len() - 1)) as u8;
    let queues = &shards[usize::from(number)].queues;
    let key = queues.take(|queues| queues.register(number, &runtime, deadline, waker, arming));
    (number, key)
}

/// Returns the shard of this number.
#[inline]
pub(super) fn shard(number: u8) -> &'static Shard {
    &SHARDS[usize::from(number)]
}

/// Whether a timer of a queue is registered with this runtime.
#[cfg(all(test, not(rampart_loom)))]
pub(super) fn has_timer(runtime: runtime::Id) -> bool {
    let mut shards = SHARDS.iter();
    shards.any(|shard| shard.queues.take(|queues| queues.queues.iter().any(|queue| queue.runtime == runtime)))
}

/// Expired calls that are taken out under one lock, so that other callers are not held up for long.
const BATCH: usize = 64;

/// The calls of a stripe that wait.
#[derive(Debug, Default)]
pub(super) struct Shard {
    queues: Lock<Queues>,
}

#[derive(Default)]
struct Queues {
    /// The wakers of the calls. Each queue is a group.
    calls: Lanes<Waker>,
    queues: Vec<Queue>,
    next_group: u32,
}

/// The calls that wait in one runtime.
struct Queue {
    runtime: runtime::Id,
    group: u32,
    calls: usize,
    /// When the alarm rings: at the earliest deadline, or before it.
    rings_at: u64,
    /// Registered with the runtime, except while the alarm is being set.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The alarm is being set: by a thread, or by a task that has been spawned.
    is_being_set: bool,
    /// The runtime's clock is a paused one of a test. A timer that outlives its calls would move it.
    is_simulated: bool,
    alarm: Arc<Alarm>,
}

/// What is registered with the runtime in place of a task's waker.
pub(super) struct Alarm {
    shard: u8,
    group: u32,
    runtime: Handle,
}

impl Shard {
    /// Replaces the waker of a call if it wakes another task. Returns whether the call is in its
    /// queue.
    pub(super) fn renew(&self, key: Key, waker: &Waker) -> bool {
        let current = self.queues.take(|queues| queues.calls.get_mut(key).map(|current| current.will_wake(waker)));
        if current != Some(false) {
            return current.is_some();
        }
        // Swapped, so that either waker is dropped once the lock is released.
        let mut waker = waker.clone();
        self.queues
            .take(|queues| queues.calls.get_mut(key).map(|current| std::mem::swap(current, &mut waker)).is_some())
    }

    /// Removes a call, if it is still there.
    #[inline]
    pub(super) fn remove(&self, key: Key) {
        // Dropped once the lock is released.
        let _removed = self.queues.take(|queues| queues.remove(key));
    }

    /// Takes the calls of a queue that are due, and what follows for its alarm.
    fn take_due(&self, group: u32) -> (Vec<Waker>, Option<Step>) {
        let now = clock::nanos();
        let mut due = Vec::new();
        loop {
            let before = due.len();
            let step = self.queues.take(|queues| {
                due.extend(std::iter::from_fn(|| queues.pop_due(group, now)).take(BATCH));
                (due.len() - before < BATCH).then(|| queues.after_ringing(group))
            });
            if let Some(step) = step {
                return (due, step);
            }
        }
    }

    /// Removes a queue whose runtime does not run any more, and wakes its calls.
    fn abandon(&self, group: u32) {
        let queue = self.queues.take(|queues| queues.take_queue(group));
        drop(queue);
        let mut calls = Vec::new();
        loop {
            let before = calls.len();
            self.queues.take(|queues| {
                calls.extend(std::iter::from_fn(|| queues.calls.pop_due(group, u64::MAX)).take(BATCH));
            });
            if calls.len() == before {
                break;
            }
        }
        unwind::contain(|| wake_all(calls.into_iter()));
    }
}

/// What follows once the calls that were due have been taken.
enum Step {
    /// Set the alarm for the next deadline.
    SetAlarm(Arming),
    /// No call waits: the queue is dropped.
    #[allow(dead_code)] // to be dropped once the lock is released
    Drop(Queue),
}

impl Queues {
    #[inline]
    fn register(
        &mut self,
        shard: u8,
        runtime: &Handle,
        deadline: u64,
        waker: Waker,
        arming: &mut Option<Arming>,
    ) -> Key {
        let id = runtime.id();
        let index = match self.queues.iter().position(|queue| queue.runtime == id) {
            Some(index) => index,
            None => self.open(shard, runtime, id),
        };
        let queue = &mut self.queues[index];
        queue.calls += 1;
        if deadline < queue.rings_at {
            queue.rings_at = deadline;
            *arming = queue.begin_setting();
        }
        self.calls.insert(queue.group, deadline, waker)
    }

    #[cold]
    fn open(&mut self, shard: u8, runtime: &Handle, id: runtime::Id) -> usize {
        let mut group = self.next_group;
        while self.queues.iter().any(|queue| queue.group == group) {
            group = group.wrapping_add(1);
        }
        self.next_group = group.wrapping_add(1);
        let alarm = Arc::new(Alarm { shard, group, runtime: runtime.clone() });
        self.queues.push(Queue {
            runtime: id,
            group,
            calls: 0,
            rings_at: u64::MAX,
            sleep: None,
            is_being_set: false,
            is_simulated: false,
            alarm,
        });
        self.queues.len() - 1
    }

    fn queue(&mut self, group: u32) -> Option<&mut Queue> {
        self.queues.iter_mut().find(|queue| queue.group == group)
    }

    fn take_queue(&mut self, group: u32) -> Option<Queue> {
        let index = self.queues.iter().position(|queue| queue.group == group)?;
        Some(self.queues.swap_remove(index))
    }

    /// Removes a call. Also returns its queue, if it is not needed any more.
    #[inline]
    fn remove(&mut self, key: Key) -> Option<(Waker, Option<Queue>)> {
        let (group, waker) = self.calls.remove(key)?;
        let is_unused = self.queue(group).is_some_and(|queue| {
            queue.calls -= 1;
            queue.calls == 0 && !queue.is_being_set && (queue.is_simulated || queue.sleep.is_none())
        });
        let queue = if is_unused { self.take_queue(group) } else { None };
        Some((waker, queue))
    }

    fn pop_due(&mut self, group: u32, now: u64) -> Option<Waker> {
        let waker = self.calls.pop_due(group, now)?;
        if let Some(queue) = self.queue(group) {
            queue.calls -= 1;
        }
        Some(waker)
    }

    /// The alarm has rung, and no call is due any more.
    fn after_ringing(&mut self, group: u32) -> Option<Step> {
        let earliest = self.calls.earliest(group);
        let queue = self.queue(group)?;
        if queue.is_being_set {
            // It may be the timer that is being set that has expired: it is set again.
            queue.rings_at = 0;
            return None;
        }
        match earliest {
            Some(earliest) => {
                queue.rings_at = earliest;
                queue.begin_setting().map(Step::SetAlarm)
            }
            None => self.take_queue(group).map(Step::Drop),
        }
    }

    /// What follows for a queue whose alarm is being set. `None` if the queue is gone.
    fn next_setting(&mut self, group: u32) -> Option<NextSetting> {
        let earliest = self.calls.earliest(group);
        let queue = self.queue(group)?;
        match earliest {
            Some(deadline) => {
                queue.rings_at = deadline;
                Some(NextSetting::To { deadline, sleep: queue.sleep.take() })
            }
            None => self.take_queue(group).map(NextSetting::Unused),
        }
    }

    /// Puts back the timer, which has been set to `deadline`.
    fn end_setting(&mut self, group: u32, sleep: Pin<Box<Sleep>>, deadline: u64, is_simulated: bool) -> Setting {
        let Some(queue) = self.queue(group) else { return Setting::Abandoned(sleep) };
        queue.sleep = Some(sleep);
        queue.is_simulated = is_simulated;
        if queue.calls == 0 && is_simulated {
            return self.take_queue(group).map_or(Setting::Done, Setting::Unused);
        }
        if queue.rings_at < deadline {
            return Setting::Again;
        }
        queue.is_being_set = false;
        Setting::Done
    }
}

/// What a timer that is being set is set to.
enum NextSetting {
    To {
        deadline: u64,
        sleep: Option<Pin<Box<Sleep>>>,
    },
    /// No call waits.
    #[allow(dead_code)] // to be dropped once the lock is released
    Unused(Queue),
}

/// What follows once the timer of a queue has been set.
enum Setting {
    Done,
    /// A call with an earlier deadline has come meanwhile, or the timer has expired.
    Again,
    #[allow(dead_code)] // to be dropped once the lock is released
    Unused(Queue),
    #[allow(dead_code)] // likewise
    Abandoned(Pin<Box<Sleep>>),
}

impl Queue {
    /// The right to set the alarm, unless it is being set.
    fn begin_setting(&mut self) -> Option<Arming> {
        let is_mine = !std::mem::replace(&mut self.is_being_set, true);
        is_mine.then(|| Arming(Some(Arc::clone(&self.alarm))))
    }
}

/// The right to set the alarm of a queue, in the context of its runtime. If it is dropped before,
/// the runtime does not run any more, and the queue's calls are woken.
pub(super) struct Arming(Option<Arc<Alarm>>);

impl Arming {
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
