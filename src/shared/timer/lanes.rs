//! Deadlines in order.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

/// Values with deadlines, in several groups, of which the earliest of a group is found quickly.
///
/// A lane is a queue in order of deadlines, and an entry only ever joins its end. Calls with the
/// same time limit arrive in the order of their deadlines, so one lane holds them all; each further
/// limit opens another. An entry joins the lane whose last deadline is the latest that is not after
/// its own, as in patience sorting. If there is none, and no lane is left to open, it goes into a
/// tree.
///
/// A lane lies in chunks, and the number of an entry, its ticket, is its place. One that is removed
/// leaves a gap, so that a removal touches no other entry: with many calls in flight, each would be
/// a cache miss. A chunk that consists of gaps is dropped. So an entry that stays may keep the
/// memory of a whole chunk, which is 1.5 KiB.
///
/// An operation on a lane takes a number of steps that is bounded by [`MAX_LANES`], amortized; one
/// on the tree, a logarithmic number.
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
    /// The ticket of the first one of them; in the first chunk.
    first: u64,
    next_ticket: u64,
    /// The number of the first chunk: its first ticket, divided by its length.
    first_chunk: u64,
    chunks: VecDeque<Chunk<T>>,
    /// Memory for the next chunks.
    spare: Vec<Vec<Entry<T>>>,
}

/// Consecutive entries. The last chunk of a lane is open: the next entry joins it.
#[derive(Debug)]
struct Chunk<T> {
    /// The entries that are not gaps.
    live: usize,
    /// Empty once all of them are gaps, except in the open chunk.
    entries: Vec<Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    deadline: u64,
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

/// Entries per chunk.
const CHUNK: u64 = if cfg!(test) { 4 } else { 64 };

/// Chunks that a lane keeps for reuse.
const SPARE_CHUNKS: usize = 16;

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
        self.lanes.push(Lane {
            last: 0,
            group: 0,
            live: 0,
            first: 0,
            next_ticket: 0,
            first_chunk: 0,
            chunks: VecDeque::new(),
            spare: Vec::new(),
        });
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
            return lane.get_mut(key.ticket);
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
            lane.first().map(|(deadline, ticket)| (deadline, Key { ticket, lane: number }))
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
        if self.live == 0 {
            self.first = ticket;
        }
        self.live += 1;
        if ticket.is_multiple_of(CHUNK) || self.chunks.is_empty() {
            self.open_chunk(ticket);
        }
        if let Some(chunk) = self.chunks.back_mut() {
            chunk.live += 1;
            chunk.entries.push(Entry { deadline, value: Some(value) });
        }
        ticket
    }

    #[cold]
    fn open_chunk(&mut self, ticket: u64) {
        let mut entries = self.spare.pop().unwrap_or_else(|| Vec::with_capacity(CHUNK as usize));
        // Entries lie at the remainders of their tickets.
        entries.extend((0..ticket % CHUNK).map(|_| Entry { deadline: 0, value: None }));
        if self.chunks.is_empty() {
            self.first_chunk = ticket / CHUNK;
        }
        self.chunks.push_back(Chunk { live: 0, entries });
    }

    /// Returns the chunk of a ticket, unless it has been dropped.
    #[inline]
    fn chunk_mut(&mut self, ticket: u64) -> Option<&mut Chunk<T>> {
        let index = (ticket / CHUNK).checked_sub(self.first_chunk)?;
        self.chunks.get_mut(usize::try_from(index).ok()?)
    }

    #[inline]
    fn get_mut(&mut self, ticket: u64) -> Option<&mut T> {
        let entry = self.chunk_mut(ticket)?.entries.get_mut((ticket % CHUNK) as usize)?;
        entry.value.as_mut()
    }

    /// Returns the earliest deadline, and its ticket.
    fn first(&self) -> Option<(u64, u64)> {
        let entry = self.chunks.front()?.entries.get((self.first % CHUNK) as usize)?;
        (self.live > 0).then_some((entry.deadline, self.first))
    }

    #[inline]
    fn remove(&mut self, ticket: u64) -> Option<T> {
        let is_open = ticket / CHUNK == self.next_ticket / CHUNK;
        let chunk = self.chunk_mut(ticket)?;
        let value = chunk.entries.get_mut((ticket % CHUNK) as usize)?.value.take()?;
        chunk.live -= 1;
        if chunk.live == 0 && !is_open {
            let entries = mem::take(&mut chunk.entries);
            self.keep(entries);
        }
        self.live -= 1;
        if ticket == self.first {
            self.advance();
        }
        Some(value)
    }

    /// Finds the first entry that remains, after the first one was removed. Passes each entry once.
    fn advance(&mut self) {
        while let Some(chunk) = self.chunks.front() {
            if self.live == 0 && self.first_chunk == self.next_ticket / CHUNK {
                // The open chunk stays.
                return;
            }
            let passed = (self.first % CHUNK) as usize;
            let next = chunk.entries.iter().skip(passed).position(|entry| entry.value.is_some());
            if let Some(next) = next.filter(|_| chunk.live > 0) {
                self.first += next as u64;
                return;
            }
            if let Some(chunk) = self.chunks.pop_front() {
                self.keep(chunk.entries);
            }
            self.first_chunk += 1;
            self.first = self.first_chunk * CHUNK;
        }
    }

    /// Keeps a chunk's memory for the next one.
    #[cold]
    fn keep(&mut self, mut entries: Vec<Entry<T>>) {
        if entries.capacity() > 0 && self.spare.len() < SPARE_CHUNKS {
            entries.clear();
            self.spare.push(entries);
        }
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
        #![proptest_config(ProptestConfig::with_cases(500))]
        #[test]
        fn lanes_match_a_sorted_map(
            ops in prop::collection::vec(op(), 0..600),
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

    impl<T> Lanes<T> {
        fn chunks(&self) -> usize {
            let chunks = |lane: &Lane<T>| lane.chunks.iter().filter(|chunk| chunk.entries.capacity() > 0).count();
            self.lanes.iter().map(chunks).sum()
        }
    }

    #[test]
    fn calls_with_one_limit_share_a_lane_and_a_crowds_memory_is_returned() {
        for reversed in [false, true] {
            let mut lanes = Lanes::default();
            let mut keys: Vec<_> = (0..10_000).map(|at| lanes.insert(0, at, ())).collect();
            assert_eq!((lanes.lanes.len(), lanes.tree.len()), (1, 0));
            if reversed {
                keys.reverse();
            }
            keys.into_iter().for_each(|key| assert!(lanes.remove(key).is_some()));
            assert!(lanes.chunks() <= 1, "{}", lanes.chunks());
            assert!(lanes.lanes[0].chunks.len() <= 1);
            assert!(lanes.lanes[0].spare.len() <= SPARE_CHUNKS);
        }
    }

    #[test]
    fn a_call_that_stays_keeps_no_more_than_its_chunk() {
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
            assert!(lanes.chunks() <= staying.len() + 1);
        }
        assert_eq!(lanes.lanes.len(), 1);
        for key in &staying {
            assert!(lanes.get_mut(*key).is_some());
        }
        assert_eq!(staying.into_iter().filter_map(|key| lanes.remove(key)).count(), 19);
        assert_eq!(lanes.earliest(0), None);
    }
}
