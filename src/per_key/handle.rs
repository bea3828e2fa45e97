use std::{fmt, hash::Hash, sync::Arc};

use super::{evict::Evict, inner::PerKeyInner};
use crate::name::Name;

/// One handle `H` for each key `K`. See the [module docs](super).
///
/// `PerKey` is itself a handle: it is cheap to clone, and all clones share the same map.
pub struct PerKey<K, H>(pub(super) Arc<PerKeyInner<K, H>>);

impl<K, H> PerKey<K, H> {
    /// Returns the prefix of every handle's name.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    /// Returns the handle shared by requests without a key and by keys that arrive when the map is
    /// full.
    pub fn overflow(&self) -> &H {
        &self.0.overflow
    }

    /// Returns the number of keys that have a handle of their own.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether no key has a handle of its own.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a snapshot of the map.
    pub fn snapshot(&self) -> PerKeySnapshot {
        PerKeySnapshot { len: self.len(), max_keys: self.0.max_keys(), overflowed: self.0.overflowed() }
    }
}

impl<K: Eq + Hash + Clone + fmt::Display, H: Evict> PerKey<K, H> {
    /// Returns this key's handle. Creates it if the key is new; returns
    /// [`overflow`](Self::overflow) if the map is full.
    pub fn get_or_create(&self, key: &K) -> H {
        self.0.get_or_create(key)
    }

    /// Returns this key's handle, if it has one. This does not count as a use of the handle, but
    /// while the returned clone exists, the map does not evict it.
    pub fn get(&self, key: &K) -> Option<H> {
        self.0.get(key)
    }

    /// Returns all keys that have a handle of their own, in no particular order, with their
    /// handles. As with [`get`](Self::get), these are not evicted while the clones exist.
    pub fn entries(&self) -> Vec<(K, H)> {
        self.0.entries()
    }
}

impl<K, H> Clone for PerKey<K, H> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<K, H> fmt::Debug for PerKey<K, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerKey").field("name", &self.0.name).field("snapshot", &self.snapshot()).finish_non_exhaustive()
    }
}

/// The state of a [`PerKey`] at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerKeySnapshot {
    /// Keys that have a handle of their own.
    pub len: usize,
    /// The maximum of `len`.
    pub max_keys: usize,
    /// Requests that got the overflow handle because the map was full, since it was built.
    pub overflowed: u64,
}
