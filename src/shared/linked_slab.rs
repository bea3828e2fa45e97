//! A queue whose entries can be removed from any position in constant time.

use std::{mem, num::NonZeroU64};

use super::chunks::{CHUNK, Chunks};

/// Values with stable keys, of which some are linked in order.
///
/// A doubly linked list by index, in reusable slots. A key is never reused, so the key of an entry
/// that was removed finds nothing. An entry can be unlinked and keep its slot: the queue's waiters
/// that were granted a permit are such entries.
///
/// Every operation takes a constant number of steps. An empty slab keeps one chunk of slots.
#[derive(Debug)]
pub(crate) struct LinkedSlab<T> {
    slots: Chunks<Slot<T>>,
    /// The first free slot; free slots are linked by `next`.
    free: u32,
    /// The number of entries, linked or not.
    len: usize,
    head: u32,
    tail: u32,
    linked: usize,
    next_ticket: NonZeroU64,
    #[cfg(test)]
    pub(crate) steps: u64,
}

#[derive(Debug)]
struct Slot<T> {
    /// The ticket of its entry. A free slot has that of its last one.
    ticket: NonZeroU64,
    /// [`UNLINKED`] if it is not in the list.
    previous: u32,
    next: u32,
    value: Option<T>,
}

impl<T> Slot<T> {
    fn is_linked(&self) -> bool {
        self.previous != UNLINKED
    }
}

/// The key of an entry. Tickets are numbered in order of insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    ticket: NonZeroU64,
}

impl Key {
    #[cfg(all(test, not(rampart_loom)))]
    pub(crate) fn ticket(self) -> u64 {
        self.ticket.get()
    }

    /// The number of entries inserted after `earlier` and up to this one.
    pub(crate) fn distance_from(self, earlier: Self) -> u64 {
        self.ticket.get().saturating_sub(earlier.ticket.get())
    }
}

const NONE: u32 = u32::MAX;
const UNLINKED: u32 = u32::MAX - 1;

impl<T> Default for LinkedSlab<T> {
    fn default() -> Self {
        Self {
            slots: Chunks::new(),
            free: NONE,
            len: 0,
            head: NONE,
            tail: NONE,
            linked: 0,
            next_ticket: NonZeroU64::MIN,
            #[cfg(test)]
            steps: 0,
        }
    }
}

impl<T> LinkedSlab<T> {
    /// The number of linked entries.
    pub(crate) fn linked(&self) -> usize {
        self.linked
    }

    /// The key of the first linked entry.
    pub(crate) fn first(&self) -> Option<Key> {
        (self.head != NONE).then(|| Key { index: self.head, ticket: self.slots[self.head].ticket })
    }

    /// The first linked entry.
    pub(crate) fn first_mut(&mut self) -> Option<&mut T> {
        self.slots.get_mut(self.head)?.value.as_mut()
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.slot(key)?.value.as_mut()
    }

    /// Appends an entry to the list.
    pub(crate) fn push_back(&mut self, value: T) -> Key {
        let ticket = self.next_ticket;
        self.next_ticket = ticket.saturating_add(1);
        let slot = Slot { ticket, previous: UNLINKED, next: NONE, value: Some(value) };
        let index = self.free;
        let index = if index == NONE {
            self.slots.push(slot)
        } else {
            self.free = self.slots[index].next;
            self.slots[index] = slot;
            index
        };
        self.len += 1;
        self.link(index, self.tail, NONE);
        Key { index, ticket }
    }

    /// Links an entry as the first one. Does nothing if it is linked.
    pub(crate) fn link_first(&mut self, key: Key) {
        if self.slot(key).is_some_and(|slot| !slot.is_linked()) {
            self.link(key.index, NONE, self.head);
        }
    }

    /// Unlinks the first entry, which keeps its slot.
    pub(crate) fn unlink_first(&mut self) -> Option<&mut T> {
        let first = self.head;
        self.unlink_at(first);
        self.slots.get_mut(first)?.value.as_mut()
    }

    /// Unlinks an entry, which keeps its slot. Returns whether it was linked.
    pub(crate) fn unlink(&mut self, key: Key) -> bool {
        self.slot(key).is_some() && self.unlink_at(key.index)
    }

    /// Removes an entry.
    pub(crate) fn remove(&mut self, key: Key) -> Option<T> {
        let free = self.free;
        let slot = self.slot(key)?;
        let (value, is_linked) = (slot.value.take(), slot.is_linked());
        if is_linked {
            self.unlink_at(key.index);
        }
        self.slots[key.index].next = free;
        self.free = key.index;
        self.len -= 1;
        if self.len == 0 && self.slots.len() > CHUNK {
            self.release_memory();
        }
        value
    }

    /// A crowd's memory is returned. Paid for by its insertions.
    #[cold]
    fn release_memory(&mut self) {
        self.slots = Chunks::new();
        self.free = NONE;
    }

    /// Takes all entries, in no particular order. Their keys find nothing from now on.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        let taken = mem::take(self);
        self.next_ticket = taken.next_ticket;
        #[cfg(test)]
        {
            self.steps = taken.steps + 1;
        }
        taken.slots.into_iter().filter_map(|slot| slot.value)
    }

    fn slot(&mut self, key: Key) -> Option<&mut Slot<T>> {
        self.count_step();
        self.slots.get_mut(key.index).filter(|slot| slot.ticket == key.ticket && slot.value.is_some())
    }

    fn link(&mut self, index: u32, previous: u32, next: u32) {
        self.count_step();
        let slot = &mut self.slots[index];
        (slot.previous, slot.next) = (previous, next);
        match previous {
            NONE => self.head = index,
            _ => self.slots[previous].next = index,
        }
        match next {
            NONE => self.tail = index,
            _ => self.slots[next].previous = index,
        }
        self.linked += 1;
    }

    fn unlink_at(&mut self, index: u32) -> bool {
        self.count_step();
        let Some(slot) = self.slots.get_mut(index).filter(|slot| slot.is_linked()) else { return false };
        let (previous, next) = (mem::replace(&mut slot.previous, UNLINKED), slot.next);
        match previous {
            NONE => self.head = next,
            _ => self.slots[previous].next = next,
        }
        match next {
            NONE => self.tail = previous,
            _ => self.slots[next].previous = previous,
        }
        self.linked -= 1;
        true
    }

    #[inline(always)]
    fn count_step(&mut self) {
        #[cfg(test)]
        {
            self.steps += 1;
        }
    }
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        PushBack,
        LinkFirst(usize),
        Unlink(usize),
        Remove(usize),
        TakeAll,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => Just(Op::PushBack),
            2 => any::<usize>().prop_map(Op::LinkFirst),
            4 => any::<usize>().prop_map(Op::Unlink),
            5 => any::<usize>().prop_map(Op::Remove),
            1 => Just(Op::TakeAll),
        ]
    }

    proptest! {
        #[test]
        fn it_matches_a_deque_and_every_operation_takes_a_constant_number_of_steps(
            ops in prop::collection::vec(op(), 0..300),
        ) {
            let mut slab = LinkedSlab::default();
            // All keys ever, the entries that exist, and the linked ones in order.
            let (mut keys, mut entries, mut order) = (Vec::new(), Vec::new(), VecDeque::new());
            for op in ops {
                let before = slab.steps;
                let pick = |which: usize| (!keys.is_empty()).then(|| which % keys.len());
                match op {
                    Op::PushBack => {
                        let number = keys.len();
                        keys.push(slab.push_back(number));
                        entries.push(number);
                        order.push_back(number);
                    }
                    Op::LinkFirst(which) => if let Some(number) = pick(which) {
                        slab.link_first(keys[number]);
                        if entries.contains(&number) && !order.contains(&number) {
                            order.push_front(number);
                        }
                    },
                    Op::Unlink(which) => if let Some(number) = pick(which) {
                        prop_assert_eq!(slab.unlink(keys[number]), order.contains(&number));
                        order.retain(|linked| *linked != number);
                    },
                    Op::Remove(which) => if let Some(number) = pick(which) {
                        let expected = entries.contains(&number).then_some(number);
                        prop_assert_eq!(slab.remove(keys[number]), expected);
                        entries.retain(|entry| *entry != number);
                        order.retain(|linked| *linked != number);
                    },
                    Op::TakeAll => {
                        let mut taken: Vec<_> = slab.take_all().collect();
                        taken.sort_unstable();
                        prop_assert_eq!(&taken, &entries);
                        entries.clear();
                        order.clear();
                    }
                }
                prop_assert!(slab.steps - before <= 4);
                prop_assert_eq!(slab.linked(), order.len());
                prop_assert_eq!(slab.first(), order.front().map(|number| keys[*number]));
                for (number, key) in keys.iter().enumerate() {
                    prop_assert_eq!(slab.get_mut(*key).copied(), entries.contains(&number).then_some(number));
                }
            }
            let mut drained = Vec::new();
            while let Some(first) = slab.first() {
                drained.extend(slab.remove(first));
            }
            prop_assert_eq!(drained, Vec::from(order));
        }
    }

    #[test]
    fn a_crowd_that_has_left_holds_no_memory() {
        let mut slab = LinkedSlab::default();
        let keys: Vec<_> = (0..10_000).map(|number| slab.push_back(number)).collect();
        assert!(keys.iter().all(|key| slab.remove(*key).is_some()));
        assert!(slab.slots.is_unallocated());
        let key = slab.push_back(0);
        assert!(slab.get_mut(keys[0]).is_none() && slab.get_mut(key).is_some());
    }
}
