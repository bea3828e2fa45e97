use super::word::GcraWord;
use crate::state::atomics::{AtomicU64, Ordering};

/// Slots that were returned while later ones were taken, one token each.
///
/// A cell is a [`GcraWord`] with the version of the slot's rate and the slot's end as its TAT, or
/// zero if it is empty. A swap puts a slot in a cell and a swap takes it, so it has one owner.
#[derive(Debug)]
pub(super) struct ReturnedSlots([AtomicU64; CELLS]);

/// When the callers time out, a whole queue returns its slots, the earliest first.
pub(super) const CELLS: usize = if cfg!(rampart_loom) { 2 } else { 64 };

/// A slot found in a cell.
pub(super) struct FoundSlot {
    cell: usize,
    packed: u64,
    pub(super) end: u64,
}

impl ReturnedSlots {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Puts slots in empty cells. Slots without an empty cell are lost.
    pub(super) fn put(&self, version: u64, mut ends: impl Iterator<Item = u64>) {
        for cell in &self.0 {
            if cell.load(Ordering::Acquire) != 0 {
                continue;
            }
            let Some(end) = ends.next() else { return };
            let packed = GcraWord { version, returned: true, tat: end }.pack();
            // If another slot was faster, this one is lost, and the next cell gets the next.
            let _ = cell.compare_exchange(0, packed, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// The earliest slot of this version that ends at `usable_from` or later. Clears the others,
    /// which will never be usable.
    pub(super) fn earliest(&self, version: u64, usable_from: u64) -> Option<FoundSlot> {
        let mut best: Option<FoundSlot> = None;
        for (cell, packed) in self.0.iter().enumerate() {
            let packed = packed.load(Ordering::Acquire);
            if packed == 0 {
                continue;
            }
            let GcraWord { version: slot_version, tat: end, .. } = GcraWord::unpack(packed);
            let found = FoundSlot { cell, packed, end };
            if slot_version != version || end < usable_from {
                self.take(&found);
            } else if best.as_ref().is_none_or(|best| end < best.end) {
                best = Some(found);
            }
        }
        best
    }

    /// Takes a slot from its cell, if it is still there.
    pub(super) fn take(&self, found: &FoundSlot) -> bool {
        self.0[found.cell].compare_exchange(found.packed, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the slot with this end.
    pub(super) fn take_end(&self, version: u64, end: u64) -> bool {
        let packed = GcraWord { version, returned: true, tat: end }.pack();
        (0..CELLS)
            .any(|cell| self.0[cell].load(Ordering::Acquire) == packed && self.take(&FoundSlot { cell, packed, end }))
    }

    /// Drops all slots of this version.
    pub(super) fn clear(&self, version: u64) {
        for (cell, packed) in self.0.iter().enumerate() {
            let packed = packed.load(Ordering::Acquire);
            if packed != 0 && GcraWord::unpack(packed).version == version {
                self.take(&FoundSlot { cell, packed, end: 0 });
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|cell| cell.load(Ordering::Acquire) == 0)
    }
}
