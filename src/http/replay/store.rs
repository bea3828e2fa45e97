//! Recorded data, in memory of a known size.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

/// The memory of all recordings of a [`ReplayLayer`](super::ReplayLayer).
#[derive(Debug)]
pub(super) struct MemoryBudget {
    limit: usize,
    used: AtomicUsize,
}

impl MemoryBudget {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, used: AtomicUsize::new(0) }
    }

    fn reserve(&self, bytes: usize) -> bool {
        let reserve = |used: usize| used.checked_add(bytes).filter(|used| *used <= self.limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
    }

    fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A chunk of at least this many bytes is kept as it arrived. A shorter one is copied to the end of
/// the one before: on its own, it would take more memory than its data, and might keep a large
/// buffer that it is a part of.
const KEPT_WHOLE: usize = 8 * 1024;

/// Copies are not continued beyond this length, which bounds the memory set aside for more.
const LONGEST_COPY: usize = 64 * 1024;

/// The bytes that are reserved at a time, so that short chunks rarely touch the counter that all
/// recordings share.
const STEP: usize = 8 * 1024;

/// The data recorded of one body, and its share of the memory.
pub(super) struct Store {
    budget: Arc<MemoryBudget>,
    limit: usize,
    /// The bytes of data recorded.
    len: usize,
    reserved: usize,
    segments: Vec<Segment>,
}

pub(super) enum Segment {
    Whole(Bytes),
    Copied(Vec<u8>),
}

impl Store {
    /// A store for up to `limit` bytes of data.
    pub(super) fn new(limit: usize, budget: Arc<MemoryBudget>) -> Self {
        Self { budget, limit, len: 0, reserved: 0, segments: Vec::new() }
    }

    /// Records a chunk. Returns whether there is room for it.
    #[must_use]
    pub(super) fn push(&mut self, chunk: &Bytes) -> bool {
        if chunk.is_empty() {
            return true;
        }
        if !self.make_room(chunk.len()) {
            return false;
        }
        if chunk.len() < KEPT_WHOLE
            && let Some(Segment::Copied(data)) = self.segments.last_mut()
            && data.len() < LONGEST_COPY
        {
            data.extend_from_slice(chunk);
            return true;
        }
        // Only the last segment is ever unsealed.
        self.seal();
        let is_short = chunk.len() < KEPT_WHOLE;
        self.segments.push(if is_short { Segment::Copied(chunk.to_vec()) } else { Segment::Whole(chunk.clone()) });
        true
    }

    /// Makes room for more bytes, of data or of something else that is recorded with it.
    #[must_use]
    pub(super) fn make_room(&mut self, bytes: usize) -> bool {
        let Some(len) = self.len.checked_add(bytes).filter(|len| *len <= self.limit) else { return false };
        if len > self.reserved {
            // The last step is as long as the limit leaves it.
            let reserved = len.checked_next_multiple_of(STEP).unwrap_or(len).min(self.limit);
            let step = reserved - self.reserved;
            if !self.budget.reserve(step) {
                return false;
            }
            self.reserved += step;
        }
        self.len = len;
        true
    }

    /// Ends the last segment, so that all segments can be read from here on.
    pub(super) fn seal(&mut self) {
        if let Some(last) = self.segments.last_mut()
            && let Segment::Copied(data) = last
        {
            data.shrink_to_fit();
            *last = Segment::Whole(Bytes::from(std::mem::take(data)));
        }
    }

    /// The number of segments.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Returns a segment that is sealed.
    pub(super) fn get(&self, index: usize) -> Option<&Bytes> {
        match self.segments.get(index)? {
            Segment::Whole(data) => Some(data),
            Segment::Copied(_) => None,
        }
    }

    /// The bytes of data from this segment on.
    pub(super) fn bytes_from(&self, index: usize) -> u64 {
        let rest = self.segments.get(index..).unwrap_or_default();
        rest.iter().map(|segment| segment.len() as u64).sum()
    }

    /// Takes all that is recorded, for the caller to drop.
    pub(super) fn clear(&mut self) -> Vec<Segment> {
        self.budget.release(std::mem::take(&mut self.reserved));
        self.len = 0;
        std::mem::take(&mut self.segments)
    }
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Whole(data) => data.len(),
            Self::Copied(data) => data.len(),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.budget.release(self.reserved);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn budget(limit: usize) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget::new(limit))
    }

    /// The memory that the segments take, data included.
    fn memory(store: &Store) -> usize {
        let data = store.segments.iter().map(|segment| match segment {
            Segment::Whole(data) => data.len(),
            Segment::Copied(data) => data.capacity(),
        });
        data.sum::<usize>() + store.segments.capacity() * size_of::<Segment>()
    }

    #[test]
    fn memory_is_bounded_by_the_limit_however_short_the_chunks_are() {
        for length in [1, 7, 100, KEPT_WHOLE - 1, KEPT_WHOLE, 60_000] {
            let mut store = Store::new(64 * 1024, budget(usize::MAX));
            let chunk = Bytes::from(vec![0; length]);
            while store.push(&chunk) {}
            assert!(store.bytes_from(0) > 64 * 1024 - length as u64, "{length}");
            assert!(memory(&store) <= 2 * 64 * 1024 + 1024, "{} for chunks of {length}", memory(&store));
        }
        let mut store = Store::new(64 * 1024, budget(usize::MAX));
        for _ in 0..1_000_000 {
            assert!(store.push(&Bytes::new()));
        }
        assert_eq!(memory(&store), 0);
    }

    #[test]
    fn stores_share_the_memory_of_their_budget() {
        let budget = budget(20_000);
        let chunk = Bytes::from_static(&[0; 1000]);
        let mut stores: Vec<_> = (0..4).map(|_| Store::new(50_000, budget.clone())).collect();
        let fits = stores.iter_mut().map(|store| store.push(&chunk)).collect::<Vec<_>>();
        assert_eq!(fits, [true, true, false, false], "each reserves 8 KiB at once");
        drop(stores.remove(0));
        assert!(stores[1].push(&chunk));
        drop(stores.remove(1).clear());
        assert!(stores[1].push(&chunk));
        stores.clear();
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_recorded(
            chunks in prop::collection::vec((0..20_000_usize, any::<u8>(), prop::bool::weighted(0.2)), 0..30),
            limit in 0..200_000_usize,
            budget_limit in 0..200_000_usize,
        ) {
            let budget = budget(budget_limit);
            let mut store = Store::new(limit, budget.clone());
            let mut expected = Vec::new();
            for (length, byte, seal) in chunks {
                let chunk = Bytes::from(vec![byte; length]);
                if store.push(&chunk) {
                    expected.extend_from_slice(&chunk);
                }
                if seal {
                    store.seal();
                }
                prop_assert!(expected.len() <= limit && store.reserved <= budget_limit);
                prop_assert_eq!(budget.used.load(Ordering::Relaxed), store.reserved);
            }
            prop_assert_eq!(store.bytes_from(0), expected.len() as u64);
            store.seal();
            let read: Vec<u8> = (0..store.len()).flat_map(|index| store.get(index).unwrap().to_vec()).collect();
            prop_assert_eq!(read, expected);
            drop(store);
            prop_assert_eq!(budget.used.load(Ordering::Relaxed), 0);
        }
    }
}
