//! The tokens of a limiter, and the calls that wait for them.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
    sync::PoisonError,
    task::Waker,
    time::Duration,
};

use super::Rate;
use crate::{
    clock::Nanos,
    shared::{lock::wake_all, unwind},
    state::{
        atomics::{AtomicU64, Mutex, Ordering, Padded},
        gcra::{Denied, Gcra, GcraRejection, LATENESS, Line, Params, Returned, Slot},
        time::CompactDuration,
    },
};

/// The tokens of a limiter, and a queue of calls that wait for them in order of arrival.
///
/// A call that waits owns no tokens. The first of the queue takes its tokens when it is polled and
/// they are due; the others know only when to look again. So a call that leaves leaves no debt,
/// whatever its place in the queue. Returned tokens are kept exactly, in any number.
///
/// A call that is first and due, and is not polled for [`GRACE`], is passed over: the next calls
/// are woken, twice as many as were passed over, and the first of those to be polled takes the
/// tokens. A call that was passed over returns to its old place when it is polled again. So calls
/// that are no longer polled delay the others by [`GRACE`] each time that their number doubles.
///
/// The lock is taken by calls that wait, while there is a queue or returned time, and by changes of
/// the rate. Neither an admission takes it otherwise, nor a rejection because of the queue.
///
/// No wakeup is lost: only the first call needs one. It is woken when it becomes the first, when
/// tokens are returned and when the rate changes, all under the lock; it looks at the tokens under
/// the lock.
#[derive(Debug)]
pub(crate) struct Tokens {
    gcra: Gcra,
    /// The queue's [`Line`], for calls that may be rejected without the lock.
    line: Padded<AtomicU64>,
    queue: Mutex<Queue>,
}

#[derive(Debug)]
struct Queue {
    /// The rate as it was configured.
    rate: Rate,
    returned: Returned,
    /// By number, in order of arrival.
    calls: BTreeMap<u64, Waiting>,
    next: u64,
    tokens: u64,
}

#[derive(Debug)]
struct Waiting {
    cost: u32,
    /// `None` until it is polled.
    waker: Option<Waker>,
    /// When it was woken, or will be by its timer, if it has not been polled since.
    called: Option<Nanos>,
}

/// How long the tokens of a call in the queue may be due before another call takes them.
pub(crate) const GRACE: Duration = LATENESS;

/// The hint of a rejection that only the queue causes.
const MIN_HINT: CompactDuration = CompactDuration::from_nanos(1_000_000);

/// A call's place in the queue.
#[derive(Debug)]
pub(crate) struct Ticket {
    number: u64,
    cost: u32,
    pub(crate) arrived: Nanos,
}

/// The result of a poll.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The tokens are taken.
    Taken {
        slot: Slot,
        /// From the arrival until the tokens were due.
        waited: Duration,
    },
    /// They are not due. The call is woken if it may be due earlier than after this time.
    Wait(Duration),
    /// The rate has changed, and the cost is above the burst.
    Never,
}

/// The answer to a call that may wait.
#[derive(Debug)]
pub(crate) enum Joined {
    Admitted(Slot),
    Waits(Ticket),
}

/// The wakers to wake, or to drop, without the lock: they may run or drop their tasks.
#[derive(Default)]
struct Wakers {
    wake: Vec<Waker>,
    drop: Vec<Waker>,
}

impl Drop for Wakers {
    fn drop(&mut self) {
        unwind::contain(|| wake_all(self.wake.drain(..)));
    }
}

impl Tokens {
    pub(crate) fn new(rate: Rate, params: Params) -> Self {
        let queue = Queue { rate, returned: Returned::default(), calls: BTreeMap::new(), next: 0, tokens: 0 };
        Self { gcra: Gcra::new(params), line: Padded(AtomicU64::new(0)), queue: Mutex::new(queue) }
    }

    pub(crate) fn params(&self) -> Params {
        self.gcra.params()
    }

    /// Takes `cost` tokens that are available now, irrevocably.
    #[inline(always)]
    pub(crate) fn check(&self, now: Nanos, cost: u32) -> Result<(), GcraRejection> {
        if cost == 0 {
            return Ok(());
        }
        match self.gcra.check(now, cost) {
            Ok(()) => Ok(()),
            Err(Denied::Rejected(rejection)) => Err(rejection),
            Err(Denied::Contended) => self.take_contended(now, cost).map(drop),
        }
    }

    /// Takes `cost` tokens that are available now.
    #[inline]
    pub(crate) fn take(&self, now: Nanos, cost: u32) -> Result<Slot, GcraRejection> {
        if cost == 0 {
            return Ok(Slot::default());
        }
        match self.gcra.take(now, cost) {
            Ok(slot) => Ok(slot),
            Err(Denied::Rejected(rejection)) => Err(rejection),
            Err(Denied::Contended) => self.take_contended(now, cost),
        }
    }

    #[cold]
    fn take_contended(&self, now: Nanos, cost: u32) -> Result<Slot, GcraRejection> {
        self.reject_behind_queue(now, cost, Duration::ZERO)?;
        let mut queue = self.lock();
        queue.pass_over(now, None);
        let taken = queue.take(now, cost).map_err(|rejection| match rejection {
            // The tokens are there, but the calls in the queue have yet to take theirs.
            GcraRejection::Wait(wait) if !queue.calls.is_empty() => GcraRejection::Wait(wait.max(MIN_HINT)),
            _ => rejection,
        });
        let wakers = queue.unlock();
        Ok(self.wake_and_keep(wakers, taken?))
    }

    /// Wakes tasks. If one panics, the slot is returned.
    fn wake_and_keep(&self, wakers: Wakers, slot: Slot) -> Slot {
        struct Kept<'a>(&'a Tokens, Option<Slot>);

        impl Drop for Kept<'_> {
            fn drop(&mut self) {
                self.1.take().into_iter().for_each(|slot| self.0.cancel(slot));
            }
        }

        let mut kept = Kept(self, Some(slot));
        drop(wakers);
        kept.1.take().unwrap_or_default()
    }

    /// Rejects a call that would wait for longer than `max_wait`, if there is a queue. Takes no
    /// lock.
    fn reject_behind_queue(&self, now: Nanos, cost: u32, max_wait: Duration) -> Result<(), GcraRejection> {
        let line = Line::unpack(self.line.load(Ordering::Acquire));
        if line.tokens == 0 || self.gcra.overdue(line, now) >= GRACE {
            return Ok(());
        }
        match self.gcra.wait_behind(line, None, now, cost)? {
            wait if wait > max_wait => Err(GcraRejection::Wait(wait)),
            _ => Ok(()),
        }
    }

    /// Takes `cost` tokens, or waits for them if they are due within `max_wait`.
    #[inline]
    pub(crate) fn join(&self, now: Nanos, cost: u32, max_wait: Duration) -> Result<Joined, GcraRejection> {
        if cost == 0 {
            return Ok(Joined::Admitted(Slot::default()));
        }
        match self.gcra.take(now, cost) {
            Ok(slot) => Ok(Joined::Admitted(slot)),
            Err(Denied::Rejected(GcraRejection::Wait(wait))) if wait > max_wait => Err(GcraRejection::Wait(wait)),
            Err(Denied::Rejected(GcraRejection::Never)) => Err(GcraRejection::Never),
            Err(_) => self.join_contended(now, cost, max_wait),
        }
    }

    #[cold]
    fn join_contended(&self, now: Nanos, cost: u32, max_wait: Duration) -> Result<Joined, GcraRejection> {
        self.reject_behind_queue(now, cost, max_wait)?;
        let mut queue = self.lock();
        queue.pass_over(now, None);
        match queue.take(now, cost) {
            Ok(slot) => return Ok(Joined::Admitted(self.wake_and_keep(queue.unlock(), slot))),
            Err(GcraRejection::Wait(wait)) if wait <= max_wait => {}
            Err(rejection) => return Err(rejection),
        }
        let number = queue.next;
        queue.next += 1;
        queue.insert(number, cost);
        Ok(Joined::Waits(Ticket { number, cost, arrived: now }))
    }

    /// Takes the tokens of a call in the queue if it is its turn.
    pub(crate) fn poll(&self, ticket: &Ticket, now: Nanos, waker: &Waker) -> Turn {
        // Cloned and dropped without the lock, because that is foreign code.
        let waker = waker.clone();
        let mut queue = self.lock();
        if !queue.calls.contains_key(&ticket.number) {
            // It was passed over.
            queue.insert(ticket.number, ticket.cost);
        }
        let passed = queue.pass_over(now, Some(ticket.number));
        let turn = queue.turn(ticket, now, passed > 0);
        if let Turn::Wait(_) = turn {
            let call = queue.calls.get_mut(&ticket.number).expect("it is in the queue");
            let old = call.waker.replace(waker);
            queue.wakers.drop.extend(old);
        } else {
            let old = queue.remove(ticket.number);
            queue.wakers.drop.extend(old);
            queue.wakers.drop.push(waker);
            queue.call_first(Some(now));
        }
        let wakers = queue.unlock();
        match turn {
            Turn::Taken { slot, waited } => Turn::Taken { slot: self.wake_and_keep(wakers, slot), waited },
            turn => turn,
        }
    }

    /// Leaves the queue.
    pub(crate) fn leave(&self, ticket: &Ticket) {
        let mut queue = self.lock();
        let was_first = queue.calls.first_key_value().is_some_and(|(first, _)| *first == ticket.number);
        let waker = queue.remove(ticket.number);
        queue.wakers.drop.extend(waker);
        if was_first {
            queue.call_first(None);
        }
    }

    /// Returns tokens that were not used.
    pub(crate) fn cancel(&self, slot: Slot) {
        if slot.is_empty() {
            return;
        }
        if let Err(slot) = self.gcra.cancel(slot) {
            let mut queue = self.lock();
            self.gcra.cancel_exclusive(&mut queue.returned, slot);
            queue.call_first(None);
        }
    }

    /// As [`check`](Self::check), without taking tokens.
    pub(crate) fn peek(&self, now: Nanos, cost: u32) -> Result<(), GcraRejection> {
        if cost == 0 {
            return Ok(());
        }
        match self.gcra.peek(now, cost) {
            Err(Denied::Contended) => {
                self.reject_behind_queue(now, cost, Duration::ZERO)?;
                self.lock().peek(now, cost)
            }
            Err(Denied::Rejected(rejection)) => Err(rejection),
            Ok(()) => Ok(()),
        }
    }

    /// The rate, the burst, the tokens available now that no call waits for, and the time until the
    /// bucket is full.
    pub(crate) fn snapshot(&self, now: Nanos) -> (Rate, u32, u32, Duration) {
        let mut queue = self.lock();
        let line = queue.line();
        let (available, full_after) = self.gcra.available(line, &mut queue.returned, now);
        (queue.rate, self.params().burst(), available, full_after)
    }

    /// Changes the rate and the burst, for calls in the queue too.
    pub(crate) fn set(&self, rate: Rate, params: Params, now: Nanos) {
        let mut queue = self.lock();
        self.gcra.set(&mut queue.returned, params, now);
        queue.rate = rate;
        queue.call_first(None);
    }

    fn lock(&self) -> Locked<'_, impl DerefMut<Target = Queue>> {
        // Nothing panics while it is held.
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        // Calls that do not hold the lock come here from now on.
        self.gcra.set_contended(true);
        Locked { tokens: self, queue, wakers: Wakers::default() }
    }
}

/// The queue, with the lock held and the `contended` bit set.
struct Locked<'a, G: DerefMut<Target = Queue>> {
    tokens: &'a Tokens,
    // Unlocked before the wakers are woken and dropped: fields are dropped in this order. If a
    // waker panics, the tasks after it are not woken; they look again by their timers.
    queue: G,
    wakers: Wakers,
}

impl<G: DerefMut<Target = Queue>> Deref for Locked<'_, G> {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

impl<G: DerefMut<Target = Queue>> DerefMut for Locked<'_, G> {
    fn deref_mut(&mut self) -> &mut Queue {
        &mut self.queue
    }
}

impl<G: DerefMut<Target = Queue>> Drop for Locked<'_, G> {
    fn drop(&mut self) {
        self.tokens.line.store(self.queue.line().pack(), Ordering::Release);
        if self.queue.calls.is_empty() && self.queue.returned.is_empty() {
            self.tokens.gcra.set_contended(false);
        }
    }
}

impl<G: DerefMut<Target = Queue>> Locked<'_, G> {
    /// Unlocks the queue. Returns the wakers that are to be woken.
    fn unlock(mut self) -> Wakers {
        std::mem::take(&mut self.wakers)
    }

    /// The wait of a call of this cost that would join the queue.
    fn wait(&mut self, now: Nanos, cost: u32) -> Result<CompactDuration, GcraRejection> {
        let line = self.line();
        self.queue.returned.prune(now);
        self.tokens.gcra.wait_behind(line, Some(&self.queue.returned), now, cost)
    }

    /// Takes tokens for a call outside of the queue, unless there is one.
    fn take(&mut self, now: Nanos, cost: u32) -> Result<Slot, GcraRejection> {
        if !self.calls.is_empty() {
            return Err(GcraRejection::Wait(self.wait(now, cost)?));
        }
        let taken = self.tokens.gcra.take_exclusive(&mut self.queue.returned, now, now, cost);
        taken.map(|taken| taken.slot)
    }

    fn peek(&mut self, now: Nanos, cost: u32) -> Result<(), GcraRejection> {
        if !self.calls.is_empty() {
            return Err(GcraRejection::Wait(self.wait(now, cost)?.max(MIN_HINT)));
        }
        self.tokens.gcra.peek_exclusive(&mut self.queue.returned, now, cost)
    }

    /// Takes the tokens of a call in the queue if it is the first and they are due.
    fn turn(&mut self, ticket: &Ticket, now: Nanos, has_passed: bool) -> Turn {
        let Some((first, called)) = self.calls.first_key_value().map(|(first, call)| (*first, call.called)) else {
            unreachable!("the call is in the queue")
        };
        let wait = if first == ticket.number {
            match self.tokens.gcra.take_exclusive(&mut self.queue.returned, now, ticket.arrived, ticket.cost) {
                Ok(taken) => {
                    return Turn::Taken { slot: taken.slot, waited: taken.due.saturating_since(ticket.arrived) };
                }
                Err(GcraRejection::Never) => return Turn::Never,
                Err(GcraRejection::Wait(wait)) => wait.get(),
            }
        } else if ticket.cost > self.tokens.params().burst() {
            return Turn::Never;
        } else if has_passed {
            // The calls that were woken instead have this long.
            GRACE
        } else {
            // Looks are few: the time between them doubles.
            let called = called.map_or(GRACE, |called| called.saturating_add(GRACE).saturating_since(now));
            called.max(GRACE).max(now.saturating_since(ticket.arrived))
        };
        let called = (first == ticket.number).then(|| now.saturating_add(wait));
        if let Some(call) = self.calls.get_mut(&ticket.number) {
            call.called = called;
        }
        Turn::Wait(wait)
    }

    /// Passes over calls that were called long enough ago, up to `polled`, which is being polled.
    /// Returns their number.
    fn pass_over(&mut self, now: Nanos, polled: Option<u64>) -> usize {
        let mut passed = 0;
        while let Some((first, call)) = self.calls.first_key_value().map(|(first, call)| (*first, call.called))
            && Some(first) != polled
            && call.is_some_and(|called| now >= called.saturating_add(GRACE))
        {
            // Woken again: if its task lives, the call comes back.
            let waker = self.remove(first);
            self.wakers.wake.extend(waker);
            passed += 1;
        }
        let (queue, wakers) = (&mut *self.queue, &mut self.wakers);
        let next = queue.calls.iter_mut().take((2 * passed).max(1));
        for (_, call) in next.filter(|(number, call)| Some(**number) != polled && call.called.is_none()) {
            call.called = Some(now);
            wakers.wake.extend(call.waker.take());
        }
        passed
    }

    /// Wakes the first call, because its turn may have come.
    fn call_first(&mut self, now: Option<Nanos>) {
        let (queue, wakers) = (&mut *self.queue, &mut self.wakers);
        if let Some(mut first) = queue.calls.first_entry() {
            first.get_mut().called = now;
            wakers.wake.extend(first.get_mut().waker.take());
        }
    }
}

impl Queue {
    fn line(&self) -> Line {
        Line { tokens: self.tokens, first: self.calls.first_key_value().map_or(0, |(_, call)| call.cost) }
    }

    fn insert(&mut self, number: u64, cost: u32) {
        self.calls.insert(number, Waiting { cost, waker: None, called: None });
        self.tokens += u64::from(cost);
    }

    fn remove(&mut self, number: u64) -> Option<Waker> {
        let call = self.calls.remove(&number)?;
        self.tokens -= u64::from(call.cost);
        call.waker
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests;
