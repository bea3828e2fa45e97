//! The last N calls, exactly.

#[cfg(all(test, not(rampart_loom)))]
mod tests;

use super::{Counts, Rates, Sample};
use crate::state::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    transition::Cause,
};

/// Outcomes of the last N calls, in blocks.
///
/// ```text
/// current: [generation: 14 | full: 1 | block: 21 | fill: 5 | clean blocks: 7 | outcomes: 16]
/// ring:    [generation: 14 | 1       | block: 21 |                           | outcomes: 16]
/// ```
///
/// An outcome is one bit (failed), or two (failed, slow). The newest outcomes, up to sixteen bits,
/// are in `current`, whose swap is the linearization point of a record. A complete block is
/// published in the ring by the next recorder, before the next block begins.
///
/// Invariants:
/// - count.I1 `current` and the ring together hold the last `min(N, all)` outcomes of the
///   generation, in the order of the swaps.
/// - count.I2 a clean call changes nothing in a full window without bad calls, and is not written.
/// - count.I3 the counts that a record returns are those at its swap: they are computed from the
///   word that it replaces.
/// - count.I4 outcomes of other generations are never counted.
/// - count.I5 lock-free: a swap fails only if another recorder's succeeded.
///
/// A record evaluates the window after a bad call, and after the call that reaches the minimum of
/// calls: any other clean call can only lower the shares.
///
/// Cost: 1 load for a clean call in a clean window; otherwise 1 load and 1 RMW, one more RMW and
/// two loads for each block, and a load per block for an evaluation. No clock.
///
/// Tags wrap. The low bits of a block's number are its index in the ring, so the wrap of block
/// numbers has no effect; a thread that is suspended in the middle of a record for exactly `k *
/// 2^21` blocks would miscount. The tags do not tell which of two generations is older: a recorder
/// that finds another generation asks whether its own is still current.
#[derive(Debug)]
pub(crate) struct CountWindow {
    current: Padded<AtomicU64>,
    ring: Box<[AtomicU64]>,
    size: u32,
    /// The outcomes in a block.
    block: u32,
    /// The bits of an outcome.
    width: u32,
    rates: Rates,
}

const OUTCOME_BITS: u32 = 16;
const GENERATION_BITS: u32 = 14;
const BLOCK_BITS: u32 = 21;
const MAX_CLEAN_BLOCKS: u64 = 127;

/// The longest window: the most that `clean blocks` can count with two bits for an outcome.
pub(crate) const MAX_SIZE: u32 = 1000;

#[derive(Clone, Copy, PartialEq, Eq)]
struct CountWord {
    generation: u64,
    full: bool,
    block: u64,
    fill: u32,
    clean: u64,
    bits: u64,
}

impl CountWord {
    fn empty(generation: u64) -> Self {
        Self { generation, full: false, block: 0, fill: 0, clean: 0, bits: 0 }
    }

    #[inline]
    fn unpack(word: u64) -> Self {
        Self {
            generation: word >> 50,
            full: word >> 49 & 1 == 1,
            block: word >> 28 & ((1 << BLOCK_BITS) - 1),
            fill: (word >> 23 & 31) as u32,
            clean: word >> 16 & MAX_CLEAN_BLOCKS,
            bits: word & 0xFFFF,
        }
    }

    #[inline]
    fn pack(self) -> u64 {
        self.generation << 50
            | u64::from(self.full) << 49
            | self.block << 28
            | u64::from(self.fill) << 23
            | self.clean << 16
            | self.bits
    }
}

/// The ring's word of a complete block.
fn published_block(generation: u64, block: u64, bits: u64) -> u64 {
    CountWord { generation, full: true, block, fill: 0, clean: 0, bits }.pack()
}

/// The result of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// Not counted: the generation has ended.
    Stale,
    /// Counted, without an evaluation: no trip can be due.
    Counted,
    /// Counted, with the window after it.
    Evaluated(Counts),
}

impl CountWindow {
    pub(crate) fn new(size: u32, slow: bool, rates: Rates) -> Self {
        let width = if slow { 2 } else { 1 };
        Self::with_blocks(size, OUTCOME_BITS / width, width, rates)
    }

    /// Small blocks make small models.
    pub(crate) fn with_blocks(size: u32, block: u32, width: u32, rates: Rates) -> Self {
        // A power of two divides the range of block numbers, so that ring indices stay in step when
        // they wrap.
        let blocks = (size.saturating_sub(1).div_ceil(block) + 1).next_power_of_two();
        // The tag of a generation that a new window is far from, so no block counts as published.
        let nothing = published_block((1 << GENERATION_BITS) - 1, 0, 0);
        Self {
            current: Padded(AtomicU64::new(0)),
            ring: (0..blocks).map(|_| AtomicU64::new(nothing)).collect(),
            size,
            block,
            width,
            rates,
        }
    }

    /// Empties the window for a generation that begins. The first recorder would do the same, but a
    /// window that no call touched for long might then be taken for that of a generation with the
    /// same tag.
    pub(crate) fn begin_generation(&self, generation: u64, is_current: impl Fn() -> bool) {
        let generation = tag_of_generation(generation);
        drive(&self.current, |seen| {
            if CountWord::unpack(seen).generation == generation || !is_current() {
                Step::Keep(())
            } else {
                Step::Write(CountWord::empty(generation).pack(), ())
            }
        });
    }

    /// Whether a clean call of `generation` changes nothing. One load.
    #[inline(always)]
    pub(crate) fn is_clean_in(&self, generation: u64) -> bool {
        let word = CountWord::unpack(self.current.load(Ordering::Acquire));
        word.generation == tag_of_generation(generation) && self.is_clean(word)
    }

    /// Records a call. Returns the reason to trip, if there is one.
    #[inline]
    pub(crate) fn record_and_evaluate(
        &self,
        generation: u64,
        sample: Sample,
        is_current: impl Fn() -> bool,
    ) -> Option<Cause> {
        match self.record(generation, sample, is_current) {
            Recorded::Evaluated(counts) => self.rates.trip_cause(counts),
            Recorded::Counted | Recorded::Stale => None,
        }
    }

    /// Records a call of `generation`. `is_current` returns whether that is still the current
    /// generation; it is called only if the window is of another one.
    #[inline]
    pub(crate) fn record(&self, generation: u64, sample: Sample, is_current: impl Fn() -> bool) -> Recorded {
        let generation = tag_of_generation(generation);
        loop {
            let seen = self.current.load(Ordering::Acquire);
            let word = CountWord::unpack(seen);
            let word = if word.generation == generation {
                word
            } else if is_current() {
                // The window was of an older generation when it was loaded.
                CountWord::empty(generation)
            } else {
                return Recorded::Stale;
            };
            if sample.is_clean() && self.is_clean(word) {
                return Recorded::Counted;
            }
            if word.fill == self.block && !self.publish(seen, word) {
                continue;
            }
            let next = self.append(word, sample);
            let evaluate =
                !sample.is_clean() || (!word.full && self.raw_calls(next) == u64::from(self.rates.min_calls));
            let recorded = if evaluate {
                match self.counts(next) {
                    Some(counts) => Recorded::Evaluated(counts),
                    // One of its blocks was overwritten, so the word has changed since.
                    None => continue,
                }
            } else {
                Recorded::Counted
            };
            if self.current.compare_exchange(seen, next.pack(), Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return recorded;
            }
        }
    }

    /// The window's counts, which are zero if it is of another generation.
    pub(crate) fn snapshot(&self, generation: u64) -> Counts {
        let generation = tag_of_generation(generation);
        loop {
            let word = CountWord::unpack(self.current.load(Ordering::Acquire));
            if word.generation != generation {
                return Counts::default();
            }
            if let Some(counts) = self.counts(word) {
                return counts;
            }
        }
    }

    #[inline]
    fn is_clean(&self, word: CountWord) -> bool {
        word.bits == 0 && word.clean * u64::from(self.block) + u64::from(word.fill) >= u64::from(self.size)
    }

    /// Ensures that the complete block of `word` is in the ring. `false` if the word has changed
    /// since.
    fn publish(&self, seen: u64, word: CountWord) -> bool {
        let slot = &self.ring[(word.block % self.ring.len() as u64) as usize];
        let block = published_block(word.generation, word.block, word.bits);
        let found = slot.load(Ordering::Acquire);
        if found == block {
            return true;
        }
        // If the word has not changed, no later block can have been published, so the block found
        // is an older one. If a later one is published after this load, the swap fails.
        self.current.load(Ordering::Acquire) == seen
            && slot.compare_exchange(found, block, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    #[inline]
    fn append(&self, word: CountWord, sample: Sample) -> CountWord {
        let mut next = word;
        if word.fill == self.block {
            next.clean = if word.bits == 0 { (word.clean + 1).min(MAX_CLEAN_BLOCKS) } else { 0 };
            next.block = (word.block + 1) & ((1 << BLOCK_BITS) - 1);
            (next.fill, next.bits) = (0, 0);
        }
        let outcome = u64::from(sample.failed) | if self.width == 2 { u64::from(sample.slow) << 1 } else { 0 };
        next.bits |= outcome << (next.fill * self.width);
        next.fill += 1;
        next.full |= self.raw_calls(next) >= u64::from(self.size);
        next
    }

    /// The calls of the generation, while the window is not full.
    #[inline]
    fn raw_calls(&self, word: CountWord) -> u64 {
        word.block * u64::from(self.block) + u64::from(word.fill)
    }

    /// Counts the newest calls, up to the window's size. `None` if one of their blocks has been
    /// overwritten.
    fn counts(&self, word: CountWord) -> Option<Counts> {
        let calls = if word.full { u64::from(self.size) } else { self.raw_calls(word) };
        let mut counts = Counts { calls, failed: 0, slow: 0 };
        let newest = u64::from(word.fill).min(calls);
        self.tally(&mut counts, word.bits, word.fill, newest);
        let (mut left, mut block) = (calls - newest, word.block);
        while left > 0 {
            block = block.wrapping_sub(1) & ((1 << BLOCK_BITS) - 1);
            let found = CountWord::unpack(self.ring[(block % self.ring.len() as u64) as usize].load(Ordering::Acquire));
            if (found.generation, found.block) != (word.generation, block) {
                return None;
            }
            let newest = left.min(self.block.into());
            self.tally(&mut counts, found.bits, self.block, newest);
            left -= newest;
        }
        Some(counts)
    }

    /// Adds the `newest` ones of the `fill` outcomes in `bits`.
    fn tally(&self, counts: &mut Counts, bits: u64, fill: u32, newest: u64) {
        let bits = bits >> ((fill - newest as u32) * self.width);
        let slow = if self.width == 2 { 0xAAAA } else { 0 };
        counts.failed += u64::from((bits & (0xFFFF & !slow)).count_ones());
        counts.slow += u64::from((bits & slow).count_ones());
    }
}

#[inline]
fn tag_of_generation(generation: u64) -> u64 {
    generation & ((1 << GENERATION_BITS) - 1)
}
