//! The queues of calls that wait, one for each stripe and runtime.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, LazyLock},
    task::Waker,
};

use tokio::{
    runtime::{self, Handle},
    time::Sleep,
};

use super::{
    alarm::{Alarm, Arming},
    lanes::{Key, Lanes},
};
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
    pub(super) queues: Lock<Queues>,
}

#[derive(Default)]
pub(super) struct Queues {
    /// The wakers of the calls. Each queue is a group.
    calls: Lanes<Waker>,
    queues: Vec<Queue>,
    next_group: u32,
}

/// The calls that wait in one runtime.
pub(super) struct Queue {
    runtime: runtime::Id,
    group: u32,
    calls: usize,
    /// When the alarm rings: at the earliest deadline, or before it.
    rings_at: u64,
    /// Registered with the runtime, except while the alarm is being set.
    sleep: Option<Pin<Box<Sleep>>>,
    /// The alarm is being set: by a thread, or by a task that has been spawned.
    is_being_set: bool,
    /// The runtime's clock is a paused one of a test. A timer that outlives its calls would move
    /// it.
    is_simulated: bool,
    alarm: Arc<Alarm>,
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
        self.queues.take(|queues| queues.calls.get_mut(key).map(|current| mem::swap(current, &mut waker)).is_some())
    }

    /// Removes a call, if it is still there.
    #[inline]
    pub(super) fn remove(&self, key: Key) {
        // Dropped once the lock is released.
        let _removed = self.queues.take(|queues| queues.remove(key));
    }

    /// Takes the calls of a queue that are due, and what follows for its alarm.
    pub(super) fn take_due(&self, group: u32) -> (Vec<Waker>, Option<Step>) {
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
    pub(super) fn abandon(&self, group: u32) {
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
pub(super) enum Step {
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
        let alarm = Arc::new(Alarm::new(shard, group, runtime.clone()));
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
    pub(super) fn next_setting(&mut self, group: u32) -> Option<NextSetting> {
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
    pub(super) fn end_setting(
        &mut self,
        group: u32,
        sleep: Pin<Box<Sleep>>,
        deadline: u64,
        is_simulated: bool,
    ) -> Setting {
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
pub(super) enum NextSetting {
    To {
        deadline: u64,
        sleep: Option<Pin<Box<Sleep>>>,
    },
    /// No call waits.
    #[allow(dead_code)] // to be dropped once the lock is released
    Unused(Queue),
}

/// What follows once the timer of a queue has been set.
pub(super) enum Setting {
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
        let is_mine = !mem::replace(&mut self.is_being_set, true);
        is_mine.then(|| Arming::new(Arc::clone(&self.alarm)))
    }
}
