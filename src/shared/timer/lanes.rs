//! Deadlines in order.

use std::collections::BTreeMap;

use crate::shared::chunks::{CHUNK, Chunks};

/// Values with deadlines, in several groups, of which the earliest of a group is found quickly.
///
/// A lane is a list in order of deadlines, and an entry only ever joins the end of one. Calls with
/// the same time limit arrive in the order of their deadlines, so one lane holds them all; each
/// further limit opens another. An entry joins the lane whose last deadline is the latest that is
/// not after its own, as in patience sorting. If there is none, and no lane is left to open, it
/// goes into a tree.
///
/// Every operation on an entry in a lane takes a number of steps that is bounded by [`MAX_LANES`],
/// whatever the number of entries; in the tree, logarithmic.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    slots: Chunks<Slot<T>>,
    /// The first free slot; free slots are linked by `next`.
    free: u32,
    len: usize,
    next_ticket: u64,
    lanes: Vec<Lane>,
    /// By group, deadline and ticket.
    tree: BTreeMap<(u32, u64, u64), u32>,
}

#[derive(Debug)]
struct Lane {
    /// The last deadline.
    last: u64,
    group: u32,
    /// [`NONE`] if the lane is empty.
    head: u32,
    tail: u32,
}

#[derive(Debug)]
struct Slot<T> {
    /// The ticket of its entry. A free slot has that of its last one.
    ticket: u64,
    deadline: u64,
    previous: u32,
    next: u32,
    /// [`TREE`] for an entry in the tree; its `previous` is its group.
    lane: u32,
    value: Option<T>,
}

/// The key of an entry. It is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) ticket: u64,
    pub(super) index: u32,
}

const NONE: u32 = u32::MAX;
const TREE: u32 = u32::MAX;

/// An insertion looks at all lanes.
const MAX_LANES: usize = 8;

/// Slots that remain when all entries are gone.
const KEPT_SLOTS: usize = 16 * CHUNK;

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        let (slots, lanes, tree) = (Chunks::new(), Vec::new(), BTreeMap::new());
        Self { slots, free: NONE, len: 0, next_ticket: 0, lanes, tree }
    }
}

impl<T> Lanes<T> {
    /// Inserts a value.
    #[inline]
    pub(super) fn insert(&mut self, group: u32, deadline: u64, value: T) -> Key {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let lane = self.lane_for(group, deadline);
        let previous = lane.map_or(group, |lane| self.lanes[lane].tail);
        let lane_number = lane.map_or(TREE, |lane| lane as u32);
        self.len += 1;
        let index = self.free;
        let index = match self.slots.get_mut(index) {
            Some(free) => {
                self.free = free.next;
                // Field by field: a slot made elsewhere would be copied in pieces larger than those
                // it was written in, which waits for them.
                (free.ticket, free.deadline, free.previous) = (ticket, deadline, previous);
                (free.next, free.lane) = (NONE, lane_number);
                free.value = Some(value);
                index
            }
            None => {
                let lane = lane_number;
                self.slots.push(Slot { ticket, deadline, previous, next: NONE, lane, value: Some(value) })
            }
        };
        let key = Key { ticket, index };
        let Some(lane) = lane else {
            self.tree.insert((group, deadline, ticket), index);
            return key;
        };
        let lane = &mut self.lanes[lane];
        match previous {
            NONE => (lane.group, lane.head) = (group, index),
            _ => self.slots[previous].next = index,
        }
        (lane.tail, lane.last) = (index, deadline);
        key
    }

    #[inline]
    fn lane_for(&mut self, group: u32, deadline: u64) -> Option<usize> {
        let (mut best, mut empty) = (None, None);
        let mut latest = 0;
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.head == NONE {
                empty = Some(index);
            } else if lane.group == group && lane.last <= deadline && lane.last >= latest {
                (best, latest) = (Some(index), lane.last);
            }
        }
        best.or(empty).or_else(|| self.open_lane())
    }

    #[cold]
    fn open_lane(&mut self) -> Option<usize> {
        if self.lanes.len() == MAX_LANES {
            return None;
        }
        self.lanes.push(Lane { last: 0, group: 0, head: NONE, tail: NONE });
        Some(self.lanes.len() - 1)
    }

    /// Removes an entry. Returns its group and its value.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) -> Option<(u32, T)> {
        let slot = self.slots.get_mut(key.index).filter(|slot| slot.ticket == key.ticket)?;
        let value = slot.value.take()?;
        let (lane, deadline, previous, next) = (slot.lane, slot.deadline, slot.previous, slot.next);
        slot.next = self.free;
        self.free = key.index;
        self.len -= 1;
        let group = if lane == TREE {
            self.tree.remove(&(previous, deadline, key.ticket));
            previous
        } else {
            self.unlink(lane, previous, next)
        };
        if self.len == 0 && self.slots.len() > KEPT_SLOTS {
            // A crowd's memory is returned. Paid for by its insertions.
            self.slots = Chunks::new();
            self.free = NONE;
        }
        Some((group, value))
    }

    /// Unlinks an entry. Returns its group.
    #[inline]
    fn unlink(&mut self, lane: u32, previous: u32, next: u32) -> u32 {
        let lane = &mut self.lanes[lane as usize];
        match previous {
            NONE => lane.head = next,
            _ => self.slots[previous].next = next,
        }
        match next {
            NONE => {
                lane.tail = previous;
                if previous != NONE {
                    lane.last = self.slots[previous].deadline;
                }
            }
            _ => self.slots[next].previous = previous,
        }
        lane.group
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index).filter(|slot| slot.ticket == key.ticket)?;
        slot.value.as_mut()
    }

    /// Returns the earliest deadline of a group.
    pub(super) fn earliest(&self, group: u32) -> Option<u64> {
        self.first(group).map(|index| self.slots[index].deadline)
    }

    /// Removes an entry of the group whose deadline is `now` or earlier.
    pub(super) fn pop_due(&mut self, group: u32, now: u64) -> Option<T> {
        let index = self.first(group)?;
        let slot = &self.slots[index];
        let key = Key { ticket: slot.ticket, index };
        if slot.deadline > now {
            return None;
        }
        self.remove(key).map(|(_, value)| value)
    }

    /// Returns the entry of a group whose deadline is the earliest.
    fn first(&self, group: u32) -> Option<u32> {
        let of_group = self.tree.range((group, 0, 0)..=(group, u64::MAX, u64::MAX));
        let lanes = self.lanes.iter().filter(|lane| lane.head != NONE && lane.group == group);
        let firsts = lanes.map(|lane| lane.head).chain(of_group.map(|(_, index)| *index).take(1));
        firsts.min_by_key(|index| self.slots[*index].deadline)
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert { group: u32, deadline: u64 },
        Remove(usize),
        PopDue { group: u32, now: u64 },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..3_u32, 0..40_u64).prop_map(|(group, deadline)| Op::Insert { group, deadline }),
            // Numbers at the end of their type.
            1 => (0..3_u32).prop_map(|group| Op::Insert { group, deadline: u64::MAX }),
            4 => any::<usize>().prop_map(Op::Remove),
            2 => (0..3_u32, 0..40_u64).prop_map(|(group, now)| Op::PopDue { group, now }),
        ]
    }

    proptest! {
        #[test]
        fn lanes_match_a_sorted_map(
            ops in prop::collection::vec(op(), 0..300),
        ) {
            let mut lanes = Lanes::default();
            let mut keys = Vec::new();
            // By number: group and deadline.
            let mut model = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert { group, deadline } => {
                        let key = lanes.insert(group, deadline, keys.len());
                        model.insert(keys.len(), (group, deadline));
                        keys.push(key);
                    }
                    Op::Remove(which) => if !keys.is_empty() {
                        let number = which % keys.len();
                        let removed = lanes.remove(keys[number]);
                        let expected = model.remove(&number).map(|(group, _)| (group, number));
                        prop_assert_eq!(removed, expected);
                    },
                    Op::PopDue { group, now } => {
                        let due = |of: &(u32, u64)| of.0 == group && of.1 <= now;
                        let earliest = model.values().filter(|of| due(of)).map(|of| of.1).min();
                        let popped = lanes.pop_due(group, now).map(|number| model.remove(&number).unwrap());
                        prop_assert_eq!(popped, earliest.map(|earliest| (group, earliest)));
                    }
                }
                for group in 0..3 {
                    let earliest = model.values().filter(|of| of.0 == group).map(|of| of.1).min();
                    prop_assert_eq!(lanes.earliest(group), earliest);
                }
                for (number, key) in keys.iter().enumerate() {
                    prop_assert_eq!(lanes.get_mut(*key).is_some(), model.contains_key(&number));
                }
                prop_assert_eq!(lanes.len, model.len());
                prop_assert!(lanes.lanes.len() <= MAX_LANES);
            }
        }
    }

    #[test]
    fn calls_with_one_limit_share_a_lane_and_a_crowds_memory_is_returned() {
        let mut lanes = Lanes::default();
        let keys: Vec<_> = (0..10_000).map(|at| lanes.insert(0, at, ())).collect();
        assert_eq!((lanes.lanes.len(), lanes.tree.len()), (1, 0));
        keys.into_iter().for_each(|key| assert!(lanes.remove(key).is_some()));
        assert!(lanes.slots.is_unallocated());
    }
}
