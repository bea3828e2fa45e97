//! A key's entry in the map.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, fence},
    },
    time::Duration,
};

use crate::clock::Nanos;

/// A key and its handle.
///
/// # A handle that may have changed is not evicted
///
/// A sweep looks at an entry, asks its handle what an eviction would lose, and removes the entry.
/// The handle is foreign, so it is asked outside the lock. Callers in between are not missed:
///
/// - A caller obtains a reference to the entry under the shard's lock, clones the handle, sets
///   `passed_out` and drops the reference, in this order.
/// - The look ([`begin_look`](Self::begin_look)) clears `passed_out` under the exclusive lock, and
///   only if the map holds the only reference. So a caller before it is done: its clone of the
///   handle, or the effects of its use, are visible when the handle is asked. A caller after it
///   reads that `passed_out` is cleared, and sets it.
/// - The removal ([`is_untouched`](Self::is_untouched)) happens under the exclusive lock, and only
///   if the map and the sweep hold the only references and `passed_out` is still cleared. So no
///   caller has obtained a reference since the look.
/// - One sweep runs at a time, so none clears the mark that another one relies on.
///
/// Hence a reference keeps an entry in the map, and no caller ever holds an evicted entry.
pub(super) struct Entry<K, H> {
    pub(super) key: K,
    pub(super) handle: H,
    /// When the handle was last requested, to within 1/16 of `idle_after`.
    last_used: AtomicU64,
    /// Whether the handle was passed out since a sweep last looked at it. Relaxed accesses suffice:
    /// the shard's lock orders them after a look, and the drop of the reference before a removal.
    passed_out: AtomicBool,
}

impl<K, H> Entry<K, H> {
    pub(super) fn new(key: K, handle: H, now: Nanos) -> Self {
        Self { key, handle, last_used: AtomicU64::new(now.get()), passed_out: AtomicBool::new(true) }
    }

    fn last_used(&self) -> Nanos {
        Nanos::new(self.last_used.load(Ordering::Relaxed))
    }

    pub(super) fn is_idle(&self, now: Nanos, idle_after: Duration) -> bool {
        now.saturating_since(self.last_used()) >= idle_after
    }

    /// Begins a sweep's look at an idle entry, under the exclusive lock. Returns a second reference
    /// to it, or `None` if a caller holds one or has just used the handle.
    pub(super) fn begin_look(entry: &mut Arc<Self>, now: Nanos, idle_after: Duration) -> Option<Arc<Self>> {
        let unshared = Arc::get_mut(entry).filter(|entry| entry.is_idle(now, idle_after))?;
        *unshared.passed_out.get_mut() = false;
        Some(Arc::clone(entry))
    }

    /// Whether no caller has obtained the entry since the look that returned `entry`. Called under
    /// the exclusive lock while the map holds the entry.
    pub(super) fn is_untouched(entry: &Arc<Self>) -> bool {
        let held_by_caller = Arc::strong_count(entry) > 2;
        // Pairs with the drop of a caller's reference, so that its mark is visible.
        fence(Ordering::Acquire);
        !held_by_caller && !entry.passed_out.load(Ordering::Relaxed)
    }
}

impl<K, H: Clone> Entry<K, H> {
    /// Returns the handle, and marks it as used.
    pub(super) fn use_handle(&self, now: Nanos, idle_after: Duration) -> H {
        if now.saturating_since(self.last_used()) > idle_after / 16 {
            self.last_used.fetch_max(now.get(), Ordering::Relaxed);
        }
        self.inspect()
    }

    /// Returns the handle without marking it as used. A sweep that has looked at the entry does not
    /// evict it, because the caller may change the handle's state.
    pub(super) fn inspect(&self) -> H {
        let handle = self.handle.clone();
        // Reads first, so that a healthy call does not write to the entry.
        if !self.passed_out.load(Ordering::Relaxed) {
            self.passed_out.store(true, Ordering::Relaxed);
        }
        handle
    }
}
