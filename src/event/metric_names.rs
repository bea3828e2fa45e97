//! The names that have metric series of their own.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

/// The first N names, as a table of their hashes. Names are never removed, because their series are
/// not, either.
///
/// The decision on a name never changes: a gauge that goes up under one name must not go down under
/// another. A known name is found by a load or two, and a full table takes no lock.
pub(super) struct MetricNames {
    /// At most half full. Zero is an empty slot.
    slots: Box<[AtomicU64]>,
    len: AtomicUsize,
    max: usize,
    insertion: Mutex<()>,
    hasher: RandomState,
}

impl MetricNames {
    pub(super) fn new(max: usize) -> Self {
        let slots = (0..(2 * max).next_power_of_two()).map(|_| AtomicU64::new(0)).collect();
        Self { slots, len: AtomicUsize::new(0), max, insertion: Mutex::default(), hasher: RandomState::new() }
    }

    /// Whether the name is one of the first N.
    pub(super) fn admits(&self, name: &str) -> bool {
        let hash = self.hasher.hash_one(name).max(1);
        if self.slot_of(hash).is_ok() {
            return true;
        }
        if self.len.load(Ordering::Acquire) >= self.max {
            // Another thread may have inserted it since. The length is stored after the slot, so
            // the name is found now or never.
            return self.slot_of(hash).is_ok();
        }
        self.insert(hash)
    }

    #[cold]
    fn insert(&self, hash: u64) -> bool {
        let _guard = self.insertion.lock().unwrap_or_else(PoisonError::into_inner);
        let Err(empty) = self.slot_of(hash) else { return true };
        let len = self.len.load(Ordering::Relaxed);
        if len >= self.max {
            return false;
        }
        empty.store(hash, Ordering::Release);
        self.len.store(len + 1, Ordering::Release);
        true
    }

    /// The slot of this hash, or an error with the empty slot where it would be.
    fn slot_of(&self, hash: u64) -> Result<(), &AtomicU64> {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            match self.slots[at].load(Ordering::Acquire) {
                0 => return Err(&self.slots[at]),
                found if found == hash => return Ok(()),
                _ => at = (at + 1) & mask,
            }
        }
    }
}

impl fmt::Debug for MetricNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricNames").field("len", &self.len).field("max", &self.max).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_names_are_admitted_and_stay_admitted() {
        for max in [0, 1, 2, 3, 200] {
            let names = MetricNames::new(max);
            for round in 0..3 {
                let admitted = (0..1000).filter(|name| names.admits(&name.to_string())).count();
                assert_eq!(admitted, max, "in round {round}");
            }
            assert!((0..max).all(|name| names.admits(&name.to_string())));
        }
    }

    #[test]
    fn a_decision_never_changes_under_concurrency() {
        for _ in 0..100 {
            let names = MetricNames::new(10);
            let decide = || (0..30).map(|name| names.admits(&name.to_string())).collect::<Vec<_>>();
            let decisions: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(decide)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(decisions.iter().all(|decision| *decision == decide()), "{decisions:?}");
            assert_eq!(decide().iter().filter(|admitted| **admitted).count(), 10);
        }
    }
}
