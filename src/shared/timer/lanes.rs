//! Deadlines in order.

use std::collections::{BTreeMap, VecDeque};

/// Values with deadlines, in several groups, of which the earliest of a group is found quickly.
///
/// A lane is a queue in order of deadlines, and an entry only ever joins its end. Calls with the
/// same time limit arrive in the order of their deadlines, so one lane holds them all; each further
/// limit opens another. An entry joins the lane whose last deadline is the latest that is not after
/// its own, as in patience sorting. If there is none, and no lane is left to open, it goes into a
/// tree.
///
/// An entry that is removed leaves a gap, so a removal touches no other entry: with many calls in
/// flight, each would be a cache miss. Gaps at the front are dropped, and a lane with many gaps is
/// compacted: the memory is in proportion to the most calls in flight of late.
///
/// An operation on a lane takes a number of steps that is bounded by [`MAX_LANES`], amortized; a
/// removal from a lane that was compacted, and an operation on the tree, a logarithmic one.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    /// By group, deadline and ticket.
    tree: BTreeMap<(u32, u64, u64), T>,
    /// The group and the deadline of a ticket in the tree.
    in_tree: BTreeMap<u64, (u32, u64)>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Lane<T> {
    /// The deadline that was inserted last.
    last: u64,
    group: u32,
    /// The entries that are not gaps.
    live: usize,
    /// The first one is not a gap.
    entries: VecDeque<Entry<T>>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
    ticket: u64,
    /// `None` is a gap.
    value: Option<T>,
}

/// The key of an entry. It is never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key {
    /// In order of insertion, in each lane and in the tree.
    pub(super) ticket: u64,
    /// The number of the lane, or [`TREE`].
    pub(super) lane: u32,
}

const TREE: u32 = u32::MAX;

/// An insertion looks at all lanes.
const MAX_LANES: usize = 8;

/// Entries for which an empty lane keeps its memory, and gaps that are always tolerated.
const KEPT: usize = if cfg!(test) { 16 } else { 1024 };

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self { lanes: Vec::new(), tree: BTreeMap::new(), in_tree: BTreeMap::new(), next_ticket: 0 }
    }
}

impl<T> Lanes<T> {
    /// Inserts a value.
    #[inline]
    pub(super) fn insert(&mut self, group: u32, deadline: u64, value: T) -> Key {
        let (mut best, mut empty) = (None, None);
        let mut latest = 0;
        for (index, lane) in self.lanes.iter().enumerate() {
            if lane.live == 0 {
                empty = Some(index);
            } else if lane.group == group && lane.last <= deadline && lane.last >= latest {
                (best, latest) = (Some(index), lane.last);
            }
        }
        match best.or(empty).or_else(|| self.open_lane()) {
            Some(index) => {
                let ticket = self.lanes[index].push(group, deadline, value);
                Key { ticket, lane: index as u32 }
            }
            None => self.insert_into_tree(group, deadline, value),
        }
    }

    #[cold]
    fn open_lane(&mut self) -> Option<usize> {
        if self.lanes.len() == MAX_LANES {
            return None;
        }
        self.lanes.push(Lane { last: 0, group: 0, live: 0, entries: VecDeque::new(), next_ticket: 0 });
        Some(self.lanes.len() - 1)
    }

    #[cold]
    fn insert_into_tree(&mut self, group: u32, deadline: u64, value: T) -> Key {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.tree.insert((group, deadline, ticket), value);
        self.in_tree.insert(ticket, (group, deadline));
        Key { ticket, lane: TREE }
    }

    /// Removes an entry. Returns its group and its value.
    #[inline]
    pub(super) fn remove(&mut self, key: Key) -> Option<(u32, T)> {
        match self.lanes.get_mut(key.lane as usize) {
            Some(lane) => lane.remove(key.ticket).map(|value| (lane.group, value)),
            None => self.remove_from_tree(key.ticket),
        }
    }

    #[cold]
    fn remove_from_tree(&mut self, ticket: u64) -> Option<(u32, T)> {
        let (group, deadline) = self.in_tree.remove(&ticket)?;
        self.tree.remove(&(group, deadline, ticket)).map(|value| (group, value))
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        if let Some(lane) = self.lanes.get_mut(key.lane as usize) {
            let index = lane.find(key.ticket)?;
            return lane.entries[index].value.as_mut();
        }
        let (group, deadline) = *self.in_tree.get(&key.ticket)?;
        self.tree.get_mut(&(group, deadline, key.ticket))
    }

    /// Returns the earliest deadline of a group.
    pub(super) fn earliest(&self, group: u32) -> Option<u64> {
        self.first(group).map(|(deadline, _)| deadline)
    }

    /// Removes an entry of the group whose deadline is `now` or earlier.
    pub(super) fn pop_due(&mut self, group: u32, now: u64) -> Option<T> {
        let (deadline, key) = self.first(group)?;
        if deadline > now {
            return None;
        }
        self.remove(key).map(|(_, value)| value)
    }

    /// Returns the earliest deadline of a group, and the key of its entry.
    fn first(&self, group: u32) -> Option<(u64, Key)> {
        let lanes = self.lanes.iter().zip(0..).filter(|(lane, _)| lane.group == group);
        let lanes = lanes.filter_map(|(lane, number)| {
            lane.entries.front().map(|first| (first.deadline, Key { ticket: first.ticket, lane: number }))
        });
        let of_group = self.tree.range((group, 0, 0)..=(group, u64::MAX, u64::MAX));
        let tree = of_group.map(|((_, deadline, ticket), _)| (*deadline, Key { ticket: *ticket, lane: TREE }));
        lanes.chain(tree.take(1)).min_by_key(|(deadline, _)| *deadline)
    }
}

impl<T> Lane<T> {
    /// Appends an entry. Returns its ticket.
    #[inline]
    fn push(&mut self, group: u32, deadline: u64, value: T) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        (self.group, self.last) = (group, deadline);
        self.live += 1;
        self.entries.push_back(Entry { deadline, ticket, value: Some(value) });
        ticket
    }

    /// Returns the index of an entry, which may be a gap.
    #[inline]
    fn find(&self, ticket: u64) -> Option<usize> {
        // Tickets are consecutive, but for those of gaps that were dropped.
        let from_the_end = self.next_ticket.checked_sub(ticket)?;
        let index = self.entries.len().checked_sub(usize::try_from(from_the_end).ok()?);
        match index.and_then(|index| Some((index, self.entries.get(index)?))) {
            Some((index, entry)) if entry.ticket == ticket => Some(index),
            _ => self.entries.binary_search_by_key(&ticket, |entry| entry.ticket).ok(),
        }
    }

    #[inline]
    fn remove(&mut self, ticket: u64) -> Option<T> {
        let index = self.find(ticket)?;
        let value = self.entries[index].value.take()?;
        self.live -= 1;
        if self.live == 0 {
            self.entries.clear();
            if self.entries.capacity() > KEPT {
                // A crowd's memory is returned. Paid for by its insertions.
                self.entries = VecDeque::new();
            }
        } else if index == 0 {
            while self.entries.front().is_some_and(|first| first.value.is_none()) {
                self.entries.pop_front();
            }
        } else if self.entries.len() - self.live > KEPT + 2 * self.live {
            self.compact();
        }
        Some(value)
    }

    /// Drops all gaps.
    #[cold]
    fn compact(&mut self) {
        self.entries.retain(|entry| entry.value.is_some());
        self.entries.shrink_to(2 * self.live + KEPT);
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
                let live: usize = lanes.lanes.iter().map(|lane| lane.live).sum();
                prop_assert_eq!((live + lanes.tree.len(), lanes.tree.len()), (model.len(), lanes.in_tree.len()));
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
        assert_eq!(lanes.lanes[0].entries.capacity(), 0);
    }

    #[test]
    fn a_call_that_stays_does_not_keep_the_gaps_of_the_others() {
        let mut lanes = Lanes::default();
        let mut staying: Vec<_> = (0..10).map(|at| lanes.insert(0, at, at)).collect();
        for at in 10..200_000 {
            let key = lanes.insert(0, at, at);
            if at % 20_000 == 0 {
                staying.push(key);
            } else {
                assert_eq!(lanes.remove(key), Some((0, at)));
                assert_eq!(lanes.remove(key), None);
            }
            assert!(lanes.lanes[0].entries.len() <= KEPT + 3 * staying.len() + 1);
        }
        assert_eq!(lanes.lanes.len(), 1);
        for key in &staying {
            assert!(lanes.get_mut(*key).is_some());
        }
        assert_eq!(staying.into_iter().filter_map(|key| lanes.remove(key)).count(), 19);
    }
}
