//! The bounded map from keys to handles.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::evict::{Evict, EvictionLoss};
use crate::{
    clock::{Nanos, TimeSource},
    error::ConfigError,
    name::Name,
};

pub(super) type MakeHandle<H> = dyn Fn(Name) -> Result<H, ConfigError> + Send + Sync;

const SHARDS: usize = 16;

type Shard<K, H> = RwLock<HashMap<K, Entry<H>>>;

pub(super) struct PerKeyInner<K, H> {
    pub(super) name: Name,
    pub(super) overflow: H,
    make: Box<MakeHandle<H>>,
    shards: [Shard<K, H>; SHARDS],
    hasher: RandomState,
    /// The number of entries in all shards.
    len: AtomicUsize,
    /// Numbers the entries.
    created: AtomicU64,
    /// Requests that got the overflow handle because the map was full.
    overflowed: AtomicU64,
    limits: Limits,
    /// When the next sweep for idle handles is due.
    next_sweep: AtomicU64,
    time: TimeSource,
}

/// The bounds of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_keys: usize,
    pub(super) idle_after: Duration,
    pub(super) forget_after: Duration,
}

struct Entry<H> {
    handle: H,
    id: u64,
    /// When the handle was last requested, to within 1/16 of `idle_after`.
    last_used: AtomicU64,
    /// Whether the handle was passed out without a use since a sweep last looked at it.
    inspected: AtomicBool,
}

/// An idle entry, as a sweep found it.
struct Idle<H> {
    handle: H,
    id: u64,
    last_used: u64,
}

impl<K, H> PerKeyInner<K, H> {
    pub(super) fn new(name: Name, make: Box<MakeHandle<H>>, overflow: H, limits: Limits, time: TimeSource) -> Self {
        Self {
            name,
            overflow,
            make,
            shards: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            created: AtomicU64::new(0),
            overflowed: AtomicU64::new(0),
            limits,
            next_sweep: AtomicU64::new(0),
            time,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    pub(super) fn max_keys(&self) -> usize {
        self.limits.max_keys
    }

    pub(super) fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        self.len() < self.limits.max_keys
    }

    fn reserve_entry(&self) -> bool {
        let reserve = |len: usize| (len < self.limits.max_keys).then_some(len + 1);
        self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
    }
}

impl<K: Eq + Hash + Clone + fmt::Display, H: Evict> PerKeyInner<K, H> {
    pub(super) fn get_or_create(&self, key: &K) -> H {
        let now = self.time.now();
        let shard = self.shard(key);
        if let Some(entry) = read(shard).get(key) {
            return entry.touch(now, self.limits.idle_after);
        }
        self.evict_idle(now);
        if !self.has_room() {
            return self.overflow();
        }
        // `make` is foreign code, so it runs outside the lock. It succeeded with these settings
        // when it made `overflow`.
        match (self.make)(Name::for_key(&self.name, key)) {
            Ok(handle) => self.insert(shard, key.clone(), handle, now),
            Err(_) => self.overflow.clone(),
        }
    }

    /// Inserts the handle of a new key, unless another thread was faster or the map is full. The
    /// lock is released before a key or handle that is not needed is dropped.
    fn insert(&self, shard: &Shard<K, H>, key: K, handle: H, now: Nanos) -> H {
        let mut entries = write(shard);
        if let Some(entry) = entries.get(&key) {
            let existing = entry.touch(now, self.limits.idle_after);
            drop(entries);
            return existing;
        }
        if !self.reserve_entry() {
            drop(entries);
            return self.overflow();
        }
        let entry = Entry {
            handle: handle.clone(),
            id: self.created.fetch_add(1, Ordering::Relaxed),
            last_used: AtomicU64::new(now.get()),
            inspected: AtomicBool::new(false),
        };
        entries.insert(key, entry);
        handle
    }

    /// The overflow handle, for a key that found the map full.
    fn overflow(&self) -> H {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        self.overflow.clone()
    }

    pub(super) fn get(&self, key: &K) -> Option<H> {
        read(self.shard(key)).get(key).map(Entry::inspect)
    }

    pub(super) fn entries(&self) -> Vec<(K, H)> {
        let entry = |(key, entry): (&K, &Entry<H>)| (key.clone(), entry.inspect());
        self.shards.iter().flat_map(|shard| read(shard).iter().map(entry).collect::<Vec<_>>()).collect()
    }

    fn shard(&self, key: &K) -> &Shard<K, H> {
        // Each map hashes the key again with its own hasher, so sharding does not bias its buckets.
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Evicts idle handles that equal new ones, if a sweep is due. If the map is still full, evicts
    /// those that only have a history and have been idle for longer.
    fn evict_idle(&self, now: Nanos) {
        if !self.claim_sweep(now) {
            return;
        }
        let mut with_history = Vec::new();
        for shard in &self.shards {
            let mut equal_to_new = Vec::new();
            for idle in self.idle_in(shard, now) {
                let forgotten_after = now.saturating_since(Nanos::new(idle.last_used)) >= self.limits.forget_after;
                match idle.handle.eviction_loss(&self.overflow) {
                    EvictionLoss::Nothing => equal_to_new.push((idle.id, idle.last_used)),
                    EvictionLoss::History if forgotten_after => with_history.push((shard, (idle.id, idle.last_used))),
                    EvictionLoss::History | EvictionLoss::InForce => {}
                }
            }
            // The ids, which are unique, decide the order.
            equal_to_new.sort_unstable();
            drop(self.remove(shard, &equal_to_new));
        }
        if self.has_room() {
            return;
        }
        for (shard, idle) in with_history {
            for (_key, entry) in self.remove(shard, &[idle]) {
                entry.handle.report_eviction();
            }
        }
    }

    /// The idle entries of a shard, for a look at their state outside the lock: it calls the user's
    /// clock, or the user's implementation of [`Evict`].
    fn idle_in(&self, shard: &Shard<K, H>, now: Nanos) -> Vec<Idle<H>> {
        let entries = read(shard);
        entries.values().filter_map(|entry| entry.if_idle(now, self.limits.idle_after)).collect()
    }

    /// Removes these entries, given as their ids in order and their last uses, unless they were
    /// used or passed out since: no other code can have changed their state, because the map held
    /// the only reference. The caller drops them outside the lock.
    fn remove(&self, shard: &Shard<K, H>, unchanged: &[(u64, u64)]) -> Vec<(K, Entry<H>)> {
        if unchanged.is_empty() {
            return Vec::new();
        }
        let removed: Vec<_> = write(shard)
            .extract_if(|_, entry| {
                let (last_used, inspected) = (*entry.last_used.get_mut(), *entry.inspected.get_mut());
                !inspected && unchanged.binary_search(&(entry.id, last_used)).is_ok()
            })
            .collect();
        self.len.fetch_sub(removed.len(), Ordering::Relaxed);
        removed
    }

    /// Whether a sweep is due and this thread is the one to run it.
    fn claim_sweep(&self, now: Nanos) -> bool {
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now.saturating_add(self.limits.idle_after / 4).get();
        now.get() >= due && self.next_sweep.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl<H: Clone> Entry<H> {
    /// Marks the entry as used and returns its handle.
    fn touch(&self, now: Nanos, idle_after: Duration) -> H {
        let last_used = Nanos::new(self.last_used.load(Ordering::Relaxed));
        if now.saturating_since(last_used) > idle_after / 16 {
            self.last_used.fetch_max(now.get(), Ordering::Relaxed);
        }
        self.handle.clone()
    }

    /// Returns the handle without marking the entry as used. A sweep that is about to evict it
    /// starts over with it, because the caller may change its state.
    fn inspect(&self) -> H {
        let handle = self.handle.clone();
        // After the clone: a sweep that clears the mark finds the reference, or its effects.
        self.inspected.store(true, Ordering::Release);
        handle
    }

    fn if_idle(&self, now: Nanos, idle_after: Duration) -> Option<Idle<H>> {
        let last_used = self.last_used.load(Ordering::Relaxed);
        if now.saturating_since(Nanos::new(last_used)) < idle_after {
            return None;
        }
        self.inspected.swap(false, Ordering::AcqRel);
        Some(Idle { handle: self.handle.clone(), id: self.id, last_used })
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
