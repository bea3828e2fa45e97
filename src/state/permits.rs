//! The permit counter of the bulkhead.

use super::{
    atomics::{AtomicU32, AtomicU64, Ordering, Padded},
    drive::{Step, drive},
};

/// Counts permits and waiters in one word, against a limit that may change.
///
/// ```text
/// word: [waiting: 32 | in flight: 32]
/// ```
///
/// Invariants:
/// - permits.I1 `in flight` is the number of permits that exist.
/// - permits.I2 a permit is acquired when `in flight < limit` and there are no waiters at its swap,
///   or it is handed to a waiter.
/// - permits.I3 a rejection has seen `in flight >= limit`, or a waiter: new callers do not overtake
///   waiters.
/// - permits.I4 a permit is never handed to a waiter while `in flight > limit`: a lowered limit
///   takes effect as permits are released.
///
/// Only the owner of the queue changes `waiting`, under its lock; [`release`](Self::release) leaves
/// waiters to it. Cost: acquire 2 loads and 1 RMW, rejection 2 loads, release 1 load and 1 RMW; no
/// clock.
#[derive(Debug)]
pub(crate) struct Permits {
    word: Padded<AtomicU64>,
    // Read by every call and rarely written: on a line of its own, it stays shared between all
    // cores.
    limit: Padded<AtomicU32>,
}

/// The permit was not released, because there are waiters: the queue must hand it on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct HasWaiters;

#[derive(Clone, Copy)]
struct PermitsWord {
    in_flight: u32,
    waiting: u32,
}

impl PermitsWord {
    #[inline]
    fn unpack(word: u64) -> Self {
        Self { in_flight: word as u32, waiting: (word >> 32) as u32 }
    }

    #[inline]
    fn pack(self) -> u64 {
        u64::from(self.waiting) << 32 | u64::from(self.in_flight)
    }
}

impl Permits {
    pub(crate) fn new(limit: u32) -> Self {
        Self { word: Padded(AtomicU64::new(0)), limit: Padded(AtomicU32::new(limit)) }
    }

    #[inline]
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Acquire)
    }

    /// Sets the limit. A caller that raises it must then admit waiters.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    /// The permits in flight and the waiters, at one moment.
    pub(crate) fn counts(&self) -> (u32, u32) {
        let PermitsWord { in_flight, waiting } = PermitsWord::unpack(self.word.load(Ordering::Acquire));
        (in_flight, waiting)
    }

    /// Acquires a permit, unless all are in flight or there are waiters.
    #[inline]
    pub(crate) fn try_acquire(&self) -> bool {
        let limit = self.limit();
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.waiting == 0 && word.in_flight < limit {
                Step::Write(PermitsWord { in_flight: word.in_flight + 1, ..word }.pack(), true)
            } else {
                Step::Keep(false)
            }
        })
    }

    /// Releases a permit. If there are waiters, it only reports them: the queue decides, under its
    /// lock.
    #[inline]
    pub(crate) fn release(&self) -> Result<(), HasWaiters> {
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.waiting > 0 {
                return Step::Keep(Err(HasWaiters));
            }
            debug_assert!(word.in_flight > 0, "a permit was released twice");
            Step::Write(PermitsWord { in_flight: word.in_flight.saturating_sub(1), ..word }.pack(), Ok(()))
        })
    }

    /// For the queue, under its lock: acquires a permit (`true`), or adds a waiter.
    ///
    /// Both are one step, so a concurrent release is either seen here or sees the waiter.
    pub(crate) fn acquire_or_enqueue(&self, max_waiting: u32) -> Result<bool, QueueFull> {
        let limit = self.limit();
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.waiting == 0 && word.in_flight < limit {
                Step::Write(PermitsWord { in_flight: word.in_flight + 1, ..word }.pack(), Ok(true))
            } else if word.waiting < max_waiting {
                Step::Write(PermitsWord { waiting: word.waiting + 1, ..word }.pack(), Ok(false))
            } else {
                Step::Keep(Err(QueueFull))
            }
        })
    }

    /// For the queue, under its lock: removes a waiter without a permit.
    pub(crate) fn remove_waiter(&self) {
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            Step::Write(PermitsWord { waiting: word.waiting.saturating_sub(1), ..word }.pack(), ())
        });
    }

    /// For the queue, under its lock, with a permit: hands it to the first waiter (`true`), or
    /// releases it because there is no waiter or the limit was lowered.
    pub(crate) fn hand_off_or_release(&self) -> bool {
        let limit = self.limit();
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.waiting > 0 && word.in_flight <= limit {
                Step::Write(PermitsWord { waiting: word.waiting - 1, ..word }.pack(), true)
            } else {
                Step::Write(PermitsWord { in_flight: word.in_flight.saturating_sub(1), ..word }.pack(), false)
            }
        })
    }

    /// For the queue, under its lock: acquires a permit for the first waiter, after the limit was
    /// raised.
    pub(crate) fn admit_waiter(&self) -> bool {
        let limit = self.limit();
        drive(&self.word, |word| {
            let word = PermitsWord::unpack(word);
            if word.waiting > 0 && word.in_flight < limit {
                Step::Write(PermitsWord { waiting: word.waiting - 1, in_flight: word.in_flight + 1 }.pack(), true)
            } else {
                Step::Keep(false)
            }
        })
    }
}

/// All permits are in flight and all queue slots taken.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;
    use crate::state::atomics::{Ops, count};

    #[test]
    fn the_cost_contract_holds() {
        let permits = Permits::new(1);
        assert_eq!(count(|| permits.try_acquire()), (true, Ops { loads: 2, stores: 0, rmws: 1 }));
        assert_eq!(count(|| permits.try_acquire()), (false, Ops { loads: 2, stores: 0, rmws: 0 }));
        assert_eq!(count(|| permits.release()), (Ok(()), Ops { loads: 1, stores: 0, rmws: 1 }));
    }

    #[derive(Clone, Debug)]
    enum Op {
        TryAcquire,
        Enqueue,
        Release,
        CancelWaiter(usize),
        Resize(u32),
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            3 => Just(Op::TryAcquire),
            3 => Just(Op::Enqueue),
            4 => Just(Op::Release),
            1 => any::<usize>().prop_map(Op::CancelWaiter),
            1 => (1_u32..6).prop_map(Op::Resize),
        ]
    }

    proptest! {
        #[test]
        fn permits_match_a_list_of_permits_and_waiters(ops in prop::collection::vec(op(), 0..200)) {
            const MAX_WAITING: u32 = 3;
            let permits = Permits::new(2);
            let (mut in_flight, mut queue, mut limit, mut next) = (0_u32, VecDeque::new(), 2_u32, 0);
            for op in ops {
                match op {
                    Op::TryAcquire => {
                        let expected = queue.is_empty() && in_flight < limit;
                        prop_assert_eq!(permits.try_acquire(), expected);
                        in_flight += u32::from(expected);
                    }
                    Op::Enqueue => {
                        let expected = if queue.is_empty() && in_flight < limit {
                            in_flight += 1;
                            Ok(true)
                        } else if (queue.len() as u32) < MAX_WAITING {
                            queue.push_back(next);
                            next += 1;
                            Ok(false)
                        } else {
                            Err(QueueFull)
                        };
                        prop_assert_eq!(permits.acquire_or_enqueue(MAX_WAITING), expected);
                    }
                    Op::Release if in_flight > 0 => {
                        if queue.is_empty() {
                            prop_assert_eq!(permits.release(), Ok(()));
                            in_flight -= 1;
                        } else {
                            prop_assert_eq!(permits.release(), Err(HasWaiters));
                            let handed = in_flight <= limit;
                            prop_assert_eq!(permits.hand_off_or_release(), handed);
                            if handed { queue.pop_front(); } else { in_flight -= 1; }
                        }
                    }
                    Op::Release => {}
                    Op::CancelWaiter(which) if !queue.is_empty() => {
                        queue.remove(which % queue.len());
                        permits.remove_waiter();
                    }
                    Op::CancelWaiter(_) => {}
                    Op::Resize(to) => {
                        limit = to;
                        permits.set_limit(to);
                        while in_flight < limit && queue.pop_front().is_some() {
                            in_flight += 1;
                            prop_assert!(permits.admit_waiter());
                        }
                        prop_assert!(!permits.admit_waiter());
                    }
                }
                prop_assert_eq!(permits.counts(), (in_flight, queue.len() as u32));
            }
        }
    }
}
