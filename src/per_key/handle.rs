use std::{
    collections::{HashMap, hash_map},
    fmt,
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    clock::{Clock, Nanos, TimeSource},
    error::ConfigError,
    name::Name,
    rate_limit::RateLimiter,
    retry::Retry,
    timeout::Timeout,
};

/// A handle that may be kept per key: it knows whether something is lost when it is forgotten.
pub trait Evict: Clone {
    /// Whether a fresh one would do the same from now on.
    fn is_evictable(&self) -> bool;
}

impl Evict for CircuitBreaker {
    fn is_evictable(&self) -> bool {
        match self.state() {
            CircuitState::Closed | CircuitState::HalfOpen => true,
            CircuitState::Open => self.snapshot().open_for.is_none_or(|left| left.is_zero()),
            _ => false,
        }
    }
}

impl Evict for Bulkhead {
    fn is_evictable(&self) -> bool {
        let snapshot = self.snapshot();
        snapshot.in_flight == 0 && snapshot.waiting == 0
    }
}

impl Evict for RateLimiter {
    fn is_evictable(&self) -> bool {
        self.snapshot().full_after.is_zero()
    }
}

impl Evict for Timeout {
    fn is_evictable(&self) -> bool {
        true
    }
}

impl Evict for Retry {
    fn is_evictable(&self) -> bool {
        true
    }
}

impl<A: Evict, B: Evict> Evict for (A, B) {
    fn is_evictable(&self) -> bool {
        self.0.is_evictable() && self.1.is_evictable()
    }
}

impl<A: Evict, B: Evict, C: Evict> Evict for (A, B, C) {
    fn is_evictable(&self) -> bool {
        self.0.is_evictable() && self.1.is_evictable() && self.2.is_evictable()
    }
}

/// A handle `H` for each key `K`. See the [module docs](super).
///
/// A handle itself: cheap to clone, and all clones share the handles.
pub struct PerKey<K, H>(pub(super) Arc<PerKeyInner<K, H>>);

type Make<H> = dyn Fn(Name) -> Result<H, ConfigError> + Send + Sync;

pub(super) struct PerKeyInner<K, H> {
    name: Name,
    shards: [RwLock<HashMap<K, Entry<H>>>; SHARDS],
    /// Of all shards.
    len: AtomicUsize,
    max_keys: usize,
    idle_after: Duration,
    /// When idle handles are looked for next.
    sweep_at: AtomicU64,
    make: Box<Make<H>>,
    overflow: H,
    hasher: RandomState,
    time: TimeSource,
}

const SHARDS: usize = 16;

struct Entry<H> {
    handle: H,
    /// When it was asked for, to within a sixteenth of the time it may be idle.
    used: AtomicU64,
}

impl<K, H> PerKey<K, H> {
    /// Handles that `make` makes, each of the name that it is given: `<name>.<key>`.
    pub fn builder<F>(name: impl Into<Name>, make: F) -> PerKeyBuilder<K, H>
    where
        F: Fn(Name) -> Result<H, ConfigError> + Send + Sync + 'static,
    {
        PerKeyBuilder {
            name: name.into(),
            make: Box::new(make),
            max_keys: 1000,
            idle_after: Duration::from_secs(600),
            time: TimeSource::default(),
            key: std::marker::PhantomData,
        }
    }

    /// The name that the handles' names begin with.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// The handle that keys share for which there is no place, and requests without a key.
    pub fn overflow(&self) -> &H {
        &self.0.overflow
    }

    /// How many keys have a handle of their own.
    pub fn len(&self) -> usize {
        self.0.len.load(Ordering::Relaxed)
    }

    /// Whether none has.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Eq + Hash + Clone + fmt::Display, H: Evict> PerKey<K, H> {
    /// The handle of this key, made if there is none yet: [`overflow`](Self::overflow), if there is no place for one.
    pub fn get_or_create(&self, key: &K) -> H {
        let inner = &*self.0;
        let now = inner.time.now();
        let shard = inner.shard(key);
        if let Some(entry) = read(shard).get(key) {
            return entry.used(now, inner.idle_after);
        }
        inner.sweep(now);
        if inner.len() >= inner.max_keys {
            return inner.overflow.clone();
        }
        // Outside of the lock, since it is not our code. With the same settings as those of `overflow` it does not fail.
        let Ok(handle) = (inner.make)(Name::from(format!("{}.{key}", inner.name))) else {
            return inner.overflow.clone();
        };
        match write(shard).entry(key.clone()) {
            hash_map::Entry::Occupied(entry) => entry.get().used(now, inner.idle_after),
            hash_map::Entry::Vacant(place) => {
                if !inner.take_place() {
                    return inner.overflow.clone();
                }
                place.insert(Entry { handle: handle.clone(), used: AtomicU64::new(now.get()) });
                handle
            }
        }
    }

    /// The handle of this key, if it has one.
    pub fn get(&self, key: &K) -> Option<H> {
        read(self.0.shard(key)).get(key).map(|entry| entry.handle.clone())
    }

    /// All keys with handles of their own, in no order.
    pub fn entries(&self) -> Vec<(K, H)> {
        let entry = |(key, entry): (&K, &Entry<H>)| (key.clone(), entry.handle.clone());
        self.0.shards.iter().flat_map(|shard| read(shard).iter().map(entry).collect::<Vec<_>>()).collect()
    }
}

impl<H: Clone> Entry<H> {
    fn used(&self, now: Nanos, idle_after: Duration) -> H {
        let before = Nanos::new(self.used.load(Ordering::Relaxed));
        if now.saturating_since(before) > idle_after / 16 {
            self.used.fetch_max(now.get(), Ordering::Relaxed);
        }
        self.handle.clone()
    }
}

impl<K: Eq + Hash, H: Evict> PerKeyInner<K, H> {
    fn shard(&self, key: &K) -> &RwLock<HashMap<K, Entry<H>>> {
        // The maps use the other bits, by hashers of their own.
        &self.shards[self.hasher.hash_one(key) as usize % SHARDS]
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn take_place(&self) -> bool {
        let more = |len: usize| (len < self.max_keys).then_some(len + 1);
        self.len.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Forgets what has been idle, if it is time to look.
    fn sweep(&self, now: Nanos) {
        let due = self.sweep_at.load(Ordering::Relaxed);
        let next = now.saturating_add(self.idle_after / 4).get();
        let is_ours =
            now.get() >= due && self.sweep_at.compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if !is_ours {
            return;
        }
        for shard in &self.shards {
            write(shard).retain(|_, entry| {
                let used = Nanos::new(*entry.used.get_mut());
                let keep = now.saturating_since(used) < self.idle_after || !entry.handle.is_evictable();
                if !keep {
                    self.len.fetch_sub(1, Ordering::Relaxed);
                }
                keep
            });
        }
    }
}

fn read<T>(lock: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> std::sync::RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl<K, H> Clone for PerKey<K, H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, H> fmt::Debug for PerKey<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey").field("name", &self.0.name).field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Configures a [`PerKey`].
///
/// # Defaults
///
/// | field | default | reason |
/// |---|---|---|
/// | `max_keys` | 1000 | more hosts than most clients have, and less memory than anybody minds |
/// | `idle_after` | 10 minutes | longer than any open time |
/// | `clock` | tokio's | |
#[must_use]
pub struct PerKeyBuilder<K, H> {
    name: Name,
    make: Box<Make<H>>,
    max_keys: usize,
    idle_after: Duration,
    time: TimeSource,
    key: std::marker::PhantomData<fn(K)>,
}

impl<K, H> PerKeyBuilder<K, H> {
    /// How many keys may have a handle of their own at the same time; at least 1.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.max_keys = keys;
        self
    }

    /// A handle that nobody asked for in so long is forgotten; at least 1 ms.
    pub fn idle_after(mut self, time: Duration) -> Self {
        self.idle_after = time;
        self
    }

    /// Another clock than tokio's.
    pub fn clock(mut self, clock: impl Clock) -> Self {
        self.time = TimeSource::custom(clock);
        self
    }

    /// The keeper, with the handle for all [other](PerKey::overflow) keys.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] for a field out of its range, and the one that making the handle for other keys fails with.
    pub fn build(self) -> Result<PerKey<K, H>, ConfigError> {
        if self.max_keys == 0 {
            return Err(ConfigError::new("max_keys", "is zero: no key could have a handle of its own"));
        }
        if self.idle_after < Duration::from_millis(1) {
            return Err(ConfigError::new("idle_after", "must be at least 1 ms"));
        }
        let overflow = (self.make)(Name::from(format!("{}.overflow", self.name)))?;
        Ok(PerKey(Arc::new(PerKeyInner {
            name: self.name,
            shards: std::array::from_fn(|_| RwLock::default()),
            len: AtomicUsize::new(0),
            max_keys: self.max_keys,
            idle_after: self.idle_after,
            sweep_at: AtomicU64::new(0),
            make: self.make,
            overflow,
            hasher: RandomState::new(),
            time: self.time,
        })))
    }
}

impl<K, H> fmt::Debug for PerKeyBuilder<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKeyBuilder")
            .field("name", &self.name)
            .field("max_keys", &self.max_keys)
            .field("idle_after", &self.idle_after)
            .finish_non_exhaustive()
    }
}
