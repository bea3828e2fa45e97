//! Deadlines in order.

/// Values with deadlines, in several groups, of which the earliest of a group is found quickly.
///
/// A lane is a list in order of deadlines, and an entry only ever joins the end of one. Calls with
/// the same time limit arrive in the order of their deadlines, so one lane holds them all; each
/// further limit opens another. An entry joins the lane whose last deadline is the latest that is
/// not after its own, as in patience sorting. If there is none, and no lane left to open, it is not
/// accepted.
///
/// Every operation takes a number of steps that is bounded by [`MAX_LANES`], whatever the number of
/// entries; an insertion may grow the vector, which is constant amortized.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    slots: Vec<Slot<T>>,
    /// The first free slot; free slots are linked by `next`.
    free: u32,
    len: usize,
    lanes: Vec<Lane>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Lane {
    group: u64,
    /// [`NONE`] if the lane is empty.
    head: u32,
    tail: u32,
    /// The last deadline.
    last: u64,
}

#[derive(Debug)]
struct Slot<T> {
    /// The ticket of its entry. A free slot has that of its last one.
    ticket: u64,
    deadline: u64,
    previous: u32,
    next: u32,
    lane: u32,
    value: Option<T>,
}

/// The key of an entry. It is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) ticket: u64,
}

const NONE: u32 = u32::MAX;

/// An insertion looks at all lanes.
pub(super) const MAX_LANES: usize = 16;

/// Slots that remain when all entries are gone.
const KEPT_SLOTS: usize = 64;

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), free: NONE, len: 0, lanes: Vec::new(), next_ticket: 0 }
    }
}

impl<T> Lanes<T> {
    /// Inserts a value. Returns it if no lane accepts its deadline.
    pub(super) fn insert(&mut self, group: u64, deadline: u64, value: T) -> Result<Key, T> {
        let Some(lane) = self.lane_for(group, deadline) else { return Err(value) };
        let (ticket, previous) = (self.next_ticket, self.lanes[lane].tail);
        self.next_ticket += 1;
        let slot = Slot { ticket, deadline, previous, next: NONE, lane: lane as u32, value: Some(value) };
        let index = self.free;
        let index = if index == NONE {
            // More than four billion entries do not fit into memory.
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        } else {
            self.free = self.slots[index as usize].next;
            self.slots[index as usize] = slot;
            index
        };
        self.len += 1;
        let lane = &mut self.lanes[lane];
        match previous {
            NONE => (lane.group, lane.head) = (group, index),
            _ => self.slots[previous as usize].next = index,
        }
        (lane.tail, lane.last) = (index, deadline);
        Ok(Key { index, ticket })
    }

    fn lane_for(&mut self, group: u64, deadline: u64) -> Option<usize> {
        let (mut best, mut empty) = (None, None);
        let mut latest = 0;
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.head == NONE {
                empty = Some(index);
            } else if lane.group == group && lane.last <= deadline && lane.last >= latest {
                (best, latest) = (Some(index), lane.last);
            }
        }
        best.or(empty).or_else(|| {
            (self.lanes.len() < MAX_LANES).then(|| {
                self.lanes.push(Lane { group, head: NONE, tail: NONE, last: 0 });
                self.lanes.len() - 1
            })
        })
    }

    /// Removes an entry. Returns its group and its value.
    pub(super) fn remove(&mut self, key: Key) -> Option<(u64, T)> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.ticket == key.ticket)?;
        let value = slot.value.take()?;
        let (previous, next) = (slot.previous, slot.next);
        slot.next = self.free;
        self.free = key.index;
        let lane = &mut self.lanes[slot.lane as usize];
        let group = lane.group;
        match previous {
            NONE => lane.head = next,
            _ => self.slots[previous as usize].next = next,
        }
        match next {
            NONE => {
                lane.tail = previous;
                if previous != NONE {
                    lane.last = self.slots[previous as usize].deadline;
                }
            }
            _ => self.slots[next as usize].previous = previous,
        }
        self.len -= 1;
        if self.len == 0 && self.slots.len() > KEPT_SLOTS {
            // A crowd's memory is returned. Paid for by its insertions.
            self.slots = Vec::new();
            self.free = NONE;
        }
        Some((group, value))
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.index as usize).filter(|slot| slot.ticket == key.ticket)?;
        slot.value.as_mut()
    }

    /// Returns the earliest deadline of a group.
    pub(super) fn earliest(&self, group: u64) -> Option<u64> {
        self.heads(group).map(|head| self.slots[head as usize].deadline).min()
    }

    /// Removes an entry of the group whose deadline is `now` or earlier.
    pub(super) fn pop_due(&mut self, group: u64, now: u64) -> Option<T> {
        let due = self.heads(group).find(|head| self.slots[*head as usize].deadline <= now)?;
        let key = Key { index: due, ticket: self.slots[due as usize].ticket };
        self.remove(key).map(|(_, value)| value)
    }

    fn heads(&self, group: u64) -> impl Iterator<Item = u32> {
        self.lanes.iter().filter(move |lane| lane.head != NONE && lane.group == group).map(|lane| lane.head)
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert { group: u64, deadline: u64 },
        Remove(usize),
        PopDue { group: u64, now: u64 },
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (0..3_u64, 0..40_u64).prop_map(|(group, deadline)| Op::Insert { group, deadline }),
            // Numbers at the end of their type.
            1 => (0..3_u64).prop_map(|group| Op::Insert { group, deadline: u64::MAX }),
            4 => any::<usize>().prop_map(Op::Remove),
            2 => (0..3_u64, 0..40_u64).prop_map(|(group, now)| Op::PopDue { group, now }),
        ]
    }

    proptest! {
        #[test]
        fn lanes_match_a_sorted_map_and_reject_only_when_every_lane_is_occupied(
            ops in prop::collection::vec(op(), 0..300),
        ) {
            let mut lanes = Lanes::default();
            let mut keys = Vec::new();
            // By number: group and deadline.
            let mut model = BTreeMap::new();
            for op in ops {
                match op {
                    Op::Insert { group, deadline } => match lanes.insert(group, deadline, keys.len()) {
                        Ok(key) => {
                            model.insert(keys.len(), (group, deadline));
                            keys.push(key);
                        }
                        Err(value) => {
                            prop_assert_eq!(value, keys.len());
                            prop_assert!(lanes.lanes.iter().all(|lane| lane.head != NONE));
                            prop_assert!(lanes.lanes.iter().all(|lane| lane.group != group || lane.last > deadline));
                            prop_assert_eq!(lanes.lanes.len(), MAX_LANES);
                        }
                    },
                    Op::Remove(which) => if !keys.is_empty() {
                        let number = which % keys.len();
                        let removed = lanes.remove(keys[number]);
                        let expected = model.remove(&number).map(|(group, _)| (group, number));
                        prop_assert_eq!(removed, expected);
                    },
                    Op::PopDue { group, now } => {
                        let due = |of: &(u64, u64)| of.0 == group && of.1 <= now;
                        match lanes.pop_due(group, now) {
                            Some(number) => prop_assert!(model.remove(&number).is_some_and(|of| due(&of))),
                            None => prop_assert!(!model.values().any(due)),
                        }
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
            }
        }
    }

    #[test]
    fn calls_with_one_limit_share_a_lane_and_a_crowds_memory_is_returned() {
        let mut lanes = Lanes::default();
        let keys: Vec<_> = (0..1000).map(|at| lanes.insert(0, at, ()).unwrap()).collect();
        assert_eq!(lanes.lanes.len(), 1);
        keys.into_iter().for_each(|key| assert!(lanes.remove(key).is_some()));
        assert_eq!(lanes.slots.capacity(), 0);
    }
}
