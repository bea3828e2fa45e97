//! The bounded map from keys to handles.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
    iter,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use super::{entry::Entry, evict::Evict};
use crate::{clock::TimeSource, error::ConfigError, name::Name};

pub(super) type MakeHandle<H> = dyn Fn(Name) -> Result<H, ConfigError> + Send + Sync;

const SHARDS: usize = 16;

/// Entries by the hashes of their keys. A vector holds the entries of one hash, nearly always one,
/// in the order of their insertion.
///
/// Keys and handles are foreign: comparing, cloning or dropping one may use this map again, so none
/// of that happens under the lock. An entry is found by its hash, and its key is compared after the
/// lock is released. That costs a call one reference to the entry (2 read-modify-writes).
pub(super) type Shard<K, H> = RwLock<HashMap<u64, Vec<Arc<Entry<K, H>>>, BuildHasherDefault<HashedKey>>>;

pub(super) struct PerKeyInner<K, H> {
    pub(super) name: Name,
    pub(super) overflow: H,
    make: Box<MakeHandle<H>>,
    pub(super) shards: [Shard<K, H>; SHARDS],
    hasher: RandomState,
    /// The number of entries in all shards.
    pub(super) len: AtomicUsize,
    /// Requests that got the overflow handle because the map was full.
    overflowed: AtomicU64,
    pub(super) limits: Limits,
    /// When the next sweep for idle handles is due, or `sweep::RUNNING`.
    pub(super) next_sweep: AtomicU64,
    time: TimeSource,
}

/// The bounds of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) max_keys: usize,
    pub(super) idle_after: Duration,
    pub(super) forget_after: Duration,
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

    pub(super) fn has_room(&self) -> bool {
        self.len() < self.limits.max_keys
    }

    fn reserve_entry(&self) -> bool {
        let reserve = |len: usize| (len < self.limits.max_keys).then_some(len + 1);
        self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok()
    }

    fn shard(&self, hash: u64) -> &Shard<K, H> {
        // Other bits than those by which a map finds its buckets.
        &self.shards[(hash >> 32) as usize % SHARDS]
    }
}

impl<K: Eq + Hash + Clone + fmt::Display, H: Evict> PerKeyInner<K, H> {
    pub(super) fn get_or_create(&self, key: &K) -> H {
        let now = self.time.now();
        let hash = self.hasher.hash_one(key);
        if let Some(entry) = self.find(hash, key) {
            return entry.use_handle(now, self.limits.idle_after);
        }
        self.evict_idle(now);
        if !self.has_room() {
            return self.overflow();
        }
        // This succeeded with the same settings for `overflow`.
        let Ok(handle) = (self.make)(Name::for_key(&self.name, key)) else {
            return self.overflow.clone();
        };
        match self.insert(hash, Arc::new(Entry::new(key.clone(), handle, now))) {
            Some(entry) => entry.use_handle(now, self.limits.idle_after),
            None => self.overflow(),
        }
    }

    /// The overflow handle, for a key that found the map full.
    fn overflow(&self) -> H {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        self.overflow.clone()
    }

    pub(super) fn get(&self, key: &K) -> Option<H> {
        self.find(self.hasher.hash_one(key), key).map(|entry| entry.inspect())
    }

    pub(super) fn entries(&self) -> Vec<(K, H)> {
        let entries = self.shards.iter().flat_map(|shard| read(shard).values().flatten().cloned().collect::<Vec<_>>());
        entries.map(|entry| (entry.key.clone(), entry.inspect())).collect()
    }

    fn find(&self, hash: u64, key: &K) -> Option<Arc<Entry<K, H>>> {
        let (first, others) = {
            let entries = read(self.shard(hash));
            let (first, others) = entries.get(&hash)?.split_first()?;
            // No allocation if there are no others.
            (Arc::clone(first), others.to_vec())
        };
        iter::once(first).chain(others).find(|entry| entry.key == *key)
    }

    /// Inserts an entry, unless there is one for its key. Returns the entry that is in the map, or
    /// `None` if the map is full.
    fn insert(&self, hash: u64, entry: Arc<Entry<K, H>>) -> Option<Arc<Entry<K, H>>> {
        // The first entries of this hash, all of other keys. While they are referenced here, none
        // is evicted, so they stay the first ones.
        let mut others = Vec::new();
        loop {
            let unknown = {
                let mut entries = write(self.shard(hash));
                let present = entries.get(&hash).map_or(&[][..], Vec::as_slice);
                if present.len() == others.len() {
                    if !self.reserve_entry() {
                        return None;
                    }
                    entries.entry(hash).or_default().push(Arc::clone(&entry));
                    return Some(entry);
                }
                present[others.len()..].to_vec()
            };
            if let Some(present) = unknown.iter().find(|present| present.key == entry.key) {
                return Some(Arc::clone(present));
            }
            others.extend(unknown);
        }
    }
}

/// The hasher of keys that are hashes.
#[derive(Default)]
pub(super) struct HashedKey(u64);

impl Hasher for HashedKey {
    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("keys are `u64`")
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

pub(super) fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}
