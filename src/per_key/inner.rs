//! The bounded map from keys to handles.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::evict::Evict;
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
    max_keys: usize,
    idle_after: Duration,
    /// When the next sweep for idle handles is due.
    next_sweep: AtomicU64,
    time: TimeSource,
}

struct Entry<H> {
    handle: H,
    /// When the handle was last requested, to within 1/16 of `idle_after`.
    last_used: AtomicU64,
}

impl<K, H> PerKeyInner<K, H> {
    pub(super) fn new(
        name: Name,
        make: Box<MakeHandle<H>>,
        overflow: H,
        max_keys: usize,
        idle_after: Duration,
        time: TimeSource,
    ) -> Self {
        Self {
            name,
            overflow,
            make,
            shards: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            len: AtomicUsize::new(0),
            max_keys,
            idle_after,
            next_sweep: AtomicU64::new(0),
            time,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn has_room(&self) -> bool {
        self.len() < self.max_keys
    }

    fn reserve_entry(&self) -> bool {
        let reserve = |len: usize| (len < self.max_keys).then_some(len + 1);
        self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
    }
}

impl<K: Eq + Hash + Clone + fmt::Display, H: Evict> PerKeyInner<K, H> {
    pub(super) fn get_or_create(&self, key: &K) -> H {
        let now = self.time.now();
        let shard = self.shard(key);
        if let Some(entry) = read(shard).get(key) {
            return entry.touch(now, self.idle_after);
        }
        self.evict_idle(now);
        if !self.has_room() {
            return self.overflow.clone();
        }
        // `make` is foreign code, so it runs outside the lock. It succeeded with these settings
        // when it made `overflow`.
        let Ok(handle) = (self.make)(Name::from(format!("{}.{key}", self.name))) else {
            return self.overflow.clone();
        };
        match write(shard).entry(key.clone()) {
            hash_map::Entry::Occupied(entry) => entry.get().touch(now, self.idle_after),
            hash_map::Entry::Vacant(vacant) => {
                if !self.reserve_entry() {
                    return self.overflow.clone();
                }
                vacant.insert(Entry { handle: handle.clone(), last_used: AtomicU64::new(now.get()) });
                handle
            }
        }
    }

    pub(super) fn get(&self, key: &K) -> Option<H> {
        read(self.shard(key)).get(key).map(|entry| entry.handle.clone())
    }

    pub(super) fn entries(&self) -> Vec<(K, H)> {
        let entry = |(key, entry): (&K, &Entry<H>)| (key.clone(), entry.handle.clone());
        self.shards.iter().flat_map(|shard| read(shard).iter().map(entry).collect::<Vec<_>>()).collect()
    }

    fn shard(&self, key: &K) -> &Shard<K, H> {
        // Each map hashes the key again with its own hasher, so sharding does not bias its buckets.
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    /// Evicts idle handles, if a sweep is due.
    fn evict_idle(&self, now: Nanos) {
        if !self.claim_sweep(now) {
            return;
        }
        for shard in &self.shards {
            write(shard).retain(|_, entry| {
                let keep = !entry.is_idle(now, self.idle_after) || !entry.handle.is_evictable();
                if !keep {
                    self.len.fetch_sub(1, Ordering::Relaxed);
                }
                keep
            });
        }
    }

    /// Whether a sweep is due and this thread is the one to run it.
    fn claim_sweep(&self, now: Nanos) -> bool {
        let due = self.next_sweep.load(Ordering::Relaxed);
        let next = now.saturating_add(self.idle_after / 4).get();
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

    fn is_idle(&mut self, now: Nanos, idle_after: Duration) -> bool {
        now.saturating_since(Nanos::new(*self.last_used.get_mut())) >= idle_after
    }
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
