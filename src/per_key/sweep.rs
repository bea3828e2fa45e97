//! Eviction of idle handles.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use super::{
    entry::Entry,
    evict::{Evict, EvictionLoss},
    inner::{PerKeyInner, Shard, read, write},
};
use crate::clock::Nanos;

/// The hash of a key and its entry, as returned by [`Entry::begin_look`].
type Looked<K, H> = (u64, Arc<Entry<K, H>>);

impl<K, H: Evict> PerKeyInner<K, H> {
    /// Evicts idle handles that equal new ones, if a sweep is due. If the map is still full, evicts
    /// those that only have a history and have been idle for longer.
    pub(super) fn evict_idle(&self, now: Nanos) {
        let Some(_running) = self.begin_sweep(now) else { return };
        let mut with_history = Vec::new();
        for shard in &self.shards {
            let mut equal_to_new = Vec::new();
            for looked in self.look_at_idle(shard, now) {
                let entry = &looked.1;
                // `eviction_loss` allows for the map's handle and this clone.
                match entry.handle.clone().eviction_loss(&self.overflow) {
                    EvictionLoss::Nothing => equal_to_new.push(looked),
                    EvictionLoss::History if entry.is_idle(now, self.limits.forget_after) => {
                        with_history.push((shard, looked));
                    }
                    EvictionLoss::History | EvictionLoss::InForce => {}
                }
            }
            drop(self.remove(shard, equal_to_new));
        }
        if self.has_room() {
            return;
        }
        for (shard, looked) in with_history {
            for (_, entry) in self.remove(shard, vec![looked]) {
                entry.handle.report_eviction();
            }
        }
    }

    /// Begins a look at the idle entries of a shard. Takes the exclusive lock only if there are
    /// any, and visits only those under it.
    fn look_at_idle(&self, shard: &Shard<K, H>, now: Nanos) -> Vec<Looked<K, H>> {
        let idle_after = self.limits.idle_after;
        let hashes: Vec<u64> = {
            let entries = read(shard);
            let is_idle = |entry: &Arc<Entry<K, H>>| entry.is_idle(now, idle_after);
            entries.iter().filter(|(_, entries)| entries.iter().any(is_idle)).map(|(hash, _)| *hash).collect()
        };
        if hashes.is_empty() {
            return Vec::new();
        }
        let mut entries = write(shard);
        let mut looked = Vec::new();
        for hash in hashes {
            let same_hash = entries.get_mut(&hash).into_iter().flatten();
            let idle = same_hash.filter_map(|entry| Entry::begin_look(entry, now, idle_after));
            looked.extend(idle.map(|entry| (hash, entry)));
        }
        looked
    }

    /// Removes each of these entries, unless a caller has obtained it since the look. Returns the
    /// removed entries, which the caller drops outside the lock.
    fn remove(&self, shard: &Shard<K, H>, mut looked: Vec<Looked<K, H>>) -> Vec<Looked<K, H>> {
        if looked.is_empty() {
            return looked;
        }
        let mut entries = write(shard);
        // The map keeps the entries that are not removed, so this drops no key or handle.
        looked.retain(|(hash, entry)| {
            let Some(same_hash) = entries.get_mut(hash).filter(|_| Entry::is_untouched(entry)) else { return false };
            same_hash.retain(|present| !Arc::ptr_eq(present, entry));
            if same_hash.is_empty() {
                entries.remove(hash);
            }
            true
        });
        drop(entries);
        self.len.fetch_sub(looked.len(), Ordering::Relaxed);
        looked
    }

    /// Begins a sweep if one is due and none is running, be it on another thread or on this one, in
    /// foreign code that the sweep called.
    fn begin_sweep(&self, now: Nanos) -> Option<Running<'_>> {
        let due = self.next_sweep.load(Ordering::Relaxed);
        if due == RUNNING || now.get() < due {
            return None;
        }
        self.next_sweep.compare_exchange(due, RUNNING, Ordering::Acquire, Ordering::Relaxed).ok()?;
        let next = now.saturating_add(self.limits.idle_after / 4).get().min(RUNNING - 1);
        Some(Running { next_sweep: &self.next_sweep, next })
    }
}

const RUNNING: u64 = u64::MAX;

/// A running sweep. It ends on drop, even if foreign code panics.
struct Running<'a> {
    next_sweep: &'a AtomicU64,
    next: u64,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.next_sweep.store(self.next, Ordering::Release);
    }
}
