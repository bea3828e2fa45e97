//! The calls of the last T, in buckets.

#[cfg(all(test, not(rampart_loom)))]
mod tests;

use std::time::Duration;

use super::{Counts, Rates, Sample};
use crate::state::{
    atomics::{AtomicU64, Ordering, Padded},
    drive::{Step, drive},
    time::{Nanos, nanos_of},
};

/// Outcomes of the last T, in K buckets of T / K.
///
/// ```text
/// cell:          [generation: 10 | lap  | count]      bucket e is in cell e % K, on lap e / K
/// ticket, bound: [generation: 10 | epoch | number]    epoch = time / bucket width
/// ```
///
/// Clean successes are counted in cells of the calling thread's own, by a plain store; threads for which there are none
/// share some, by swaps. Bad calls (failed or slow) are counted in cells that all share. A cell of an older bucket is cleared by the first who counts in it again. Laps and
/// epochs are as wide as the clock requires, counts have the rest: time never wraps, however long a window lies idle.
///
/// Only a bad call can trip, so only bad calls judge. And a bad call needs to look at all cells only when a trip is
/// arithmetically possible. Each draws a ticket, numbered within the newest bucket that a bad call was seen in; each look
/// leaves a `bound`: "in this generation and bucket, no trip before this ticket".
///
/// Invariants:
/// - T1 the cells of a generation and a bucket hold as many as were recorded. A call that comes a whole window late
///   counts where its cell has got to.
/// - T2 a cell of an older generation or bucket is never added up.
/// - T3 a trip that is due from the moment when a bad call was recorded is made by that call or by a concurrent one.
/// - T4 a clock that goes backwards clears nothing newer.
/// - T5 a cell of a stripe is written by one thread at a time. That is the caller's word: it brings a number that no
///   other living thread has, and a thread that takes over a number has seen what its predecessor stored.
///
/// Why T3 holds: a bad call writes its cells first and draws its ticket afterwards, and tickets are drawn by swaps of
/// one word. So a look that saw ticket q has seen the cells of all tickets up to q, and if another d bad calls are
/// needed, no ticket before q + d can make a trip due: within a bucket the number of calls only grows. That stays true
/// for ever, so bounds may overtake each other; one of another bucket or generation is not heeded.
///
/// Sums are read cell by cell: they lie between the true values at the beginning and at the end of the reading
/// (interval-linearizable, not linearizable). One sequential caller is judged as if it had looked at every bad call.
///
/// Cost: clean 1 load and 1 store on the thread's own line, no RMW; a clean one on the shared line, an RMW for the store;
/// bad 3 loads and 2 RMWs (one more of each when both slow and
/// failed), and when a look is due a load per cell and a store. Looks are a few per bucket, whatever the rate of calls.
/// The clock is read once, by the caller.
///
/// Counts saturate: per cell at 8 million for 10 s, in proportion for others. Tags have 10 bits of the generation: a
/// cell is mistaken for a present one after exactly k * 1024 transitions within one T.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    /// One for each of the first threads.
    clean: Box<[Padded<Cells>]>,
    /// For all others.
    clean_shared: Padded<Cells>,
    failed: Padded<Cells>,
    slow: Padded<Cells>,
    /// Calls that are slow and did not fail, which are in no other cells.
    slow_only: Padded<Cells>,
    tickets: Padded<AtomicU64>,
    bound: Padded<AtomicU64>,
    width: u64,
    buckets: u64,
    cell_layout: WordLayout,
    ticket_layout: WordLayout,
    rates: Rates,
}

type Cells = [AtomicU64; MAX_BUCKETS as usize];

pub(crate) const MAX_BUCKETS: u32 = 16;

/// Shorter windows are stretched to this, about a millisecond: below, the counts get too few bits.
const MIN_LENGTH: u64 = 1 << 20;

const GENERATION_BITS: u32 = 10;

/// How a word is divided: `[generation: 10 | period | count]`, with periods enough for all of a `u64`'s nanoseconds.
#[derive(Clone, Copy, Debug)]
struct WordLayout {
    count_bits: u32,
}

impl WordLayout {
    fn of_period(nanos: u64) -> Self {
        Self { count_bits: nanos.ilog2() - GENERATION_BITS }
    }

    fn count_max(self) -> u64 {
        (1 << self.count_bits) - 1
    }

    fn tag(self, generation: u64, period: u64) -> u64 {
        generation << (64 - GENERATION_BITS) | period << self.count_bits
    }

    fn tag_of(self, word: u64) -> u64 {
        word & !self.count_max()
    }

    fn count(self, word: u64) -> u64 {
        word & self.count_max()
    }

    fn generation(self, word: u64) -> u64 {
        word >> (64 - GENERATION_BITS)
    }

    fn period(self, word: u64) -> u64 {
        word << GENERATION_BITS >> GENERATION_BITS >> self.count_bits
    }

    /// The word with its count raised, at most to what it can hold.
    fn add(self, word: u64, by: u64) -> u64 {
        self.tag_of(word) | self.count(word).saturating_add(by).min(self.count_max())
    }
}

fn cells() -> Cells {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl TimeWindow {
    pub(crate) fn new(length: Duration, buckets: u32, stripes: usize, rates: Rates) -> Self {
        let buckets = u64::from(buckets.clamp(1, MAX_BUCKETS));
        let width = nanos_of(length).max(MIN_LENGTH).div_ceil(buckets);
        Self {
            clean: (0..stripes).map(|_| Padded(cells())).collect(),
            clean_shared: Padded(cells()),
            failed: Padded(cells()),
            slow: Padded(cells()),
            slow_only: Padded(cells()),
            tickets: Padded(AtomicU64::new(0)),
            bound: Padded(AtomicU64::new(0)),
            width,
            buckets,
            cell_layout: WordLayout::of_period(width.saturating_mul(buckets)),
            ticket_layout: WordLayout::of_period(width),
            rates,
        }
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    fn epoch(&self, now: Nanos) -> u64 {
        now.get() / self.width
    }

    /// Counts a call of `generation` that ended `now`. Answers with the window when it is time to judge it.
    /// `thread` is the calling thread's number. `is_current` tells whether the generation is still the present one; it is
    /// asked only about words of others.
    pub(crate) fn record(
        &self,
        generation: u64,
        sample: Sample,
        now: Nanos,
        thread: usize,
        is_current: impl Fn() -> bool,
    ) -> Option<Counts> {
        if sample.is_clean() {
            self.record_clean(generation, now, thread, is_current);
            return None;
        }
        let generation = tag_of_generation(generation);
        let epoch = self.epoch(now);
        let bump = |cells: &Cells| {
            let cell = &cells[(epoch % self.buckets) as usize];
            self.increment_shared(cell, generation, epoch / self.buckets, &is_current);
        };
        bump(if sample.failed { &self.failed } else { &self.slow_only });
        if sample.slow && sample.failed {
            bump(&self.slow);
        }
        self.evaluate_if_due(generation, epoch, &is_current)
    }

    /// Counts a clean call, which cannot trip.
    #[inline]
    pub(crate) fn record_clean(&self, generation: u64, now: Nanos, thread: usize, is_current: impl Fn() -> bool) {
        let generation = tag_of_generation(generation);
        let epoch = self.epoch(now);
        let (cell, lap) = ((epoch % self.buckets) as usize, epoch / self.buckets);
        match self.clean.get(thread) {
            Some(own) => {
                let word = own[cell].load(Ordering::Acquire);
                if let Some(next) = self.incremented(word, generation, lap, is_current) {
                    own[cell].store(next, Ordering::Release);
                }
            }
            None => self.increment_shared(&self.clean_shared[cell], generation, lap, is_current),
        }
    }

    #[inline(never)]
    fn increment_shared(&self, cell: &AtomicU64, generation: u64, lap: u64, is_current: impl Fn() -> bool) {
        drive(cell, |word| match self.incremented(word, generation, lap, &is_current) {
            Some(next) => Step::Write(next, ()),
            None => Step::Keep(()),
        });
    }

    /// The cell with one call more; `None` when it stays as it is, because its count is at its end or the call is stale.
    #[inline]
    fn incremented(&self, word: u64, generation: u64, lap: u64, is_current: impl Fn() -> bool) -> Option<u64> {
        let layout = self.cell_layout;
        let ours = layout.generation(word) == generation;
        let next = if ours && layout.period(word) >= lap {
            layout.add(word, 1)
        } else if ours || is_current() {
            layout.tag(generation, lap) | 1
        } else {
            return None; // the cell is of a newer generation
        };
        (next != word).then_some(next)
    }

    fn evaluate_if_due(&self, generation: u64, epoch: u64, is_current: impl Fn() -> bool) -> Option<Counts> {
        let layout = self.ticket_layout;
        // Drawn after the cells were written. A swap even where the number is at its end and stays: it is the swap that
        // hands the cells over to whoever looks after it.
        let ticket = drive(&self.tickets, |word| {
            let ours = layout.generation(word) == generation;
            if ours && layout.period(word) >= epoch {
                let next = layout.add(word, 1);
                Step::Write(next, Some(next))
            } else if ours || is_current() {
                let next = layout.tag(generation, epoch) | 1;
                Step::Write(next, Some(next))
            } else {
                Step::Keep(None)
            }
        })?;
        let bound = self.bound.load(Ordering::Acquire);
        if layout.generation(bound) == generation && ticket < bound {
            return None;
        }
        // Before the cells are read.
        let newest = self.tickets.load(Ordering::Acquire);
        if layout.generation(newest) != generation {
            return None;
        }
        let counts = self.sum(generation, layout.period(newest));
        if self.rates.trip_cause(counts).is_none() {
            self.bound.store(layout.add(newest, self.rates.bad_calls_to_trip(counts)), Ordering::Release);
        }
        Some(counts)
    }

    /// What the window holds, of this generation, at this time.
    pub(crate) fn snapshot(&self, generation: u64, now: Nanos) -> Counts {
        let generation = tag_of_generation(generation);
        let newest = self.tickets.load(Ordering::Acquire);
        let of_tickets =
            if self.ticket_layout.generation(newest) == generation { self.ticket_layout.period(newest) } else { 0 };
        self.sum(generation, self.epoch(now).max(of_tickets))
    }

    /// The `buckets` buckets up to `newest`.
    fn sum(&self, generation: u64, newest: u64) -> Counts {
        let sum = |cells: &Cells| {
            let mut total = 0;
            for epoch in newest.saturating_sub(self.buckets - 1)..=newest {
                let word = cells[(epoch % self.buckets) as usize].load(Ordering::Acquire);
                if self.cell_layout.tag_of(word) == self.cell_layout.tag(generation, epoch / self.buckets) {
                    total += self.cell_layout.count(word);
                }
            }
            total
        };
        let (failed, slow_only) = (sum(&self.failed), sum(&self.slow_only));
        let slow = if self.rates.slow.is_some() { sum(&self.slow) + slow_only } else { 0 };
        let clean = sum(&self.clean_shared) + self.clean.iter().map(|own| sum(own)).sum::<u64>();
        Counts { calls: clean + failed + slow_only, failed, slow }
    }
}

fn tag_of_generation(generation: u64) -> u64 {
    generation & ((1 << GENERATION_BITS) - 1)
}
