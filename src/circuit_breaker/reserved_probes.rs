//! Probe slots that are reserved for services that are ready.

use super::admitted::UnusedAdmission;
use crate::{
    clock::Nanos,
    shared::{
        linked_slab::{Key, LinkedSlab},
        lock::Lock,
    },
    state::{
        LAPSE_AFTER,
        atomics::{AtomicU32, Ordering},
    },
};

/// The probe slots that `poll_ready` has reserved and no call has used.
///
/// The owner of such a slot may never be polled again, and there may be only one slot. So its
/// reservation lapses once the owner has not used it for [`LAPSE_AFTER`] and another caller needs a
/// slot: that caller takes the admission over.
///
/// Behind a lock, since there are reservations only while the circuit is half-open.
#[derive(Debug, Default)]
pub(crate) struct ReservedProbes {
    /// How many there are, or are about to be: a caller that finds all slots taken by probes in
    /// flight takes no lock.
    count: AtomicU32,
    /// In the order in which they were made or renewed.
    reserved: Lock<LinkedSlab<Reserved>>,
}

#[derive(Clone, Copy, Debug)]
struct Reserved {
    admission: UnusedAdmission,
    since: Nanos,
}

/// The key of a reserved slot, which may have lapsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProbeKey(Key);

impl ReservedProbes {
    /// Reserves the slot that `reserve` provides.
    pub(crate) fn reserve(&self, now: Nanos, reserve: impl FnOnce() -> Option<UnusedAdmission>) -> Option<ProbeKey> {
        // Counted first: a waiter that finds the slot taken must know that it may lapse.
        let counted = Counted::new(&self.count);
        let admission = reserve()?;
        counted.keep();
        Some(ProbeKey(self.reserved.take(|list| list.push_back(Reserved { admission, since: now }))))
    }

    /// Renews a reservation, which its owner still wants. `None` if it has lapsed.
    pub(crate) fn renew(
        &self,
        ProbeKey(key): ProbeKey,
        now: Nanos,
        is_current: impl Fn(UnusedAdmission) -> bool,
    ) -> Option<ProbeKey> {
        self.reserved.take(|list| {
            if !is_current(list.get_mut(key)?.admission) {
                return None;
            }
            let Reserved { admission, .. } = list.remove(key)?;
            Some(ProbeKey(list.push_back(Reserved { admission, since: now })))
        })
    }

    /// Takes the slot from the list, for its owner. `None` if it has lapsed.
    pub(crate) fn claim(&self, ProbeKey(key): ProbeKey) -> Option<UnusedAdmission> {
        let reserved = self.reserved.take(|list| list.remove(key))?;
        self.count.fetch_sub(1, Ordering::AcqRel);
        Some(reserved.admission)
    }

    /// Takes over the slot that has been idle longest, if its reservation has lapsed.
    pub(crate) fn take_lapsed(
        &self,
        now: impl FnOnce() -> Nanos,
        is_current: impl Fn(UnusedAdmission) -> bool,
    ) -> Option<UnusedAdmission> {
        if self.is_empty() {
            return None;
        }
        let now = now();
        let (oldest, taken) = self.oldest(is_current, |oldest| now >= oldest.lapses_at())?;
        taken.then_some(oldest.admission)
    }

    /// When the next reservation lapses. `now` is the time by which one that is about to be made
    /// counts.
    pub(crate) fn next_lapse(
        &self,
        now: impl FnOnce() -> Nanos,
        is_current: impl Fn(UnusedAdmission) -> bool,
    ) -> Option<Nanos> {
        if self.is_empty() {
            return None;
        }
        match self.oldest(is_current, |_| false) {
            Some((oldest, _)) => Some(oldest.lapses_at()),
            None if self.is_empty() => None,
            None => Some(now().saturating_add(LAPSE_AFTER)),
        }
    }

    /// The oldest reservation, and whether it was taken from the list. Discards those that are not
    /// current: their owners find them lapsed.
    fn oldest(
        &self,
        is_current: impl Fn(UnusedAdmission) -> bool,
        take: impl Fn(&Reserved) -> bool,
    ) -> Option<(Reserved, bool)> {
        let (oldest, removed) = self.reserved.take(|list| {
            let mut removed = 0;
            while let Some(first) = list.first()
                && let Some(reserved) = list.get_mut(first).copied()
            {
                let taken = is_current(reserved.admission).then(|| take(&reserved));
                if taken != Some(false) {
                    list.remove(first);
                    removed += 1;
                }
                if let Some(taken) = taken {
                    return (Some((reserved, taken)), removed);
                }
            }
            (None, removed)
        });
        self.count.fetch_sub(removed, Ordering::AcqRel);
        oldest
    }

    /// Whether none is reserved, or about to be.
    fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }
}

impl Reserved {
    fn lapses_at(&self) -> Nanos {
        self.since.saturating_add(LAPSE_AFTER)
    }
}

/// A reservation that is about to be made.
struct Counted<'a>(Option<&'a AtomicU32>);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Some(count))
    }

    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        if let Some(count) = self.0 {
            count.fetch_sub(1, Ordering::AcqRel);
        }
    }
}
