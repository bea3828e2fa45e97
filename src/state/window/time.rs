//! The calls of the last T, in buckets.

#[cfg(all(test, not(rampart_loom)))]
mod tests;

use std::time::Duration;

use super::{Counts, Rates, Sample};
use crate::state::{
    atomics::{AtomicU64, Ordering, Padded},
    divisor::Divisor,
    drive::{Step, drive},
    time::{Nanos, nanos_of},
};

/// The outcomes of the last T, in K buckets of T / K each.
///
/// ```text
/// cell:          [generation: 10 | lap  | count]      bucket e is in cell e % K, on lap e / K
/// ticket, bound: [generation: 10 | epoch | number]    epoch = time / bucket width
/// ```
///
/// A thread counts clean calls in cells of its own, by a plain store; threads without cells of
/// their own share some, by swaps. Bad calls (failed or slow) are counted in cells that all threads
/// share. The first call that counts in a cell of an older bucket clears it. Laps and epochs are as
/// wide as the clock requires and counts get the rest: time never wraps, however long a window is
/// idle.
///
/// Only a bad call can trip the circuit, so only bad calls evaluate the window, and only when a
/// trip is arithmetically possible. Each draws a ticket, numbered within the newest bucket of any
/// bad call; each evaluation leaves a `bound`: "in this generation and bucket, no trip before this
/// ticket".
///
/// Invariants:
/// - time.I1 the cells of a generation and a bucket count every call that was recorded. A call that
///   is late by a whole window, and not by a second, counts in the bucket that its cell has
///   reached.
/// - time.I2 a cell of an older generation or bucket is never summed.
/// - time.I3 a trip that is due from the moment when a bad call was recorded is found by that call
///   or by a concurrent one.
/// - time.I4 a clock that goes backwards by less than the window, or by less than a second, clears
///   nothing newer. When it goes back by more, the calls that follow count at the time that it then
///   shows: a bucket that lies ahead moves back, with its bad calls and without its clean ones.
/// - time.I5 a cell of a stripe is written by one thread at a time. The caller ensures this: it
///   passes a number that no other living thread has, and a thread that reuses a number has seen
///   the stores of the previous owner.
///
/// Why time.I3 holds: a bad call writes its cells first and draws its ticket afterwards, and
/// tickets are drawn by swaps of one word. So an evaluation that saw ticket q has seen the cells of
/// all tickets up to q, and if another d bad calls are needed, no ticket before q + d can make a
/// trip due: within a bucket the number of calls only grows. That stays true forever, so bounds may
/// overtake each other; a bound of another bucket or generation is ignored.
///
/// Sums are read cell by cell: they lie between the true values at the beginning and at the end of
/// the reading (interval-linearizable, not linearizable). For one sequential caller, the result is
/// the same as with an evaluation at every bad call.
///
/// Cost: a clean call is 1 load and 1 store on the thread's own line, no RMW; on the shared line,
/// an RMW instead of the store. A bad call is 3 loads and 2 RMWs (one more of each if it is both
/// slow and failed); an evaluation adds a load per cell and a store. There are a few evaluations
/// per bucket, whatever the rate of calls. The clock is read once, by the caller.
///
/// Counts saturate: at 8 million per cell for 10 s, in proportion for other lengths. Tags have 10
/// bits of the generation: a cell is taken for a current one after exactly k * 1024 transitions
/// within one T.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    /// A stripe for each of the first threads.
    clean: Box<[Padded<Cells>]>,
    /// For all other threads.
    clean_shared: Padded<Cells>,
    failed: Padded<Cells>,
    slow: Padded<Cells>,
    /// Calls that were slow and did not fail; no other cells count them.
    slow_only: Padded<Cells>,
    tickets: Padded<AtomicU64>,
    bound: Padded<AtomicU64>,
    width: Divisor,
    buckets: Divisor,
    /// A cell that is this many laps ahead of a call is one of a clock that has gone back since.
    far_laps: u64,
    cell_layout: WordLayout,
    ticket_layout: WordLayout,
    rates: Rates,
}

/// The count of a cell that lies ahead because the clock has gone back: bad calls stay, to the
/// strict side, and clean ones do not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ahead {
    Keep,
    Drop,
}

type Cells = [AtomicU64; MAX_BUCKETS as usize];

pub(crate) const MAX_BUCKETS: u32 = 16;

/// The shortest window, about a millisecond; shorter ones would leave too few bits for the counts.
const MIN_LENGTH: u64 = 1 << 20;

/// A call that is late by a window and by this much is one of a clock that has gone back: a thread
/// is rarely preempted for a second, in nanoseconds, between a reading and the record.
const MIN_JUMP: u64 = 1_000_000_000;

const GENERATION_BITS: u32 = 10;

/// The calls that a bucket of such a window can count.
pub(crate) fn max_counted(length: Duration, buckets: u32) -> u64 {
    let buckets = u64::from(buckets.clamp(1, MAX_BUCKETS));
    let width = nanos_of(length).max(MIN_LENGTH).div_ceil(buckets);
    WordLayout::of_period(width.saturating_mul(buckets)).count_max()
}

/// The layout of a word: `[generation: 10 | period | count]`, with enough periods for all
/// nanoseconds of a `u64`.
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

    /// The word with its count increased, up to the maximum.
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
            width: Divisor::new(width),
            buckets: Divisor::new(buckets),
            far_laps: MIN_JUMP.div_ceil(width.saturating_mul(buckets)),
            cell_layout: WordLayout::of_period(width.saturating_mul(buckets)),
            ticket_layout: WordLayout::of_period(width),
            rates,
        }
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    fn epoch(&self, now: Nanos) -> u64 {
        self.width.divide(now.get()).0
    }

    /// Records a call of `generation` that completed `now`. Returns the window's counts if it was
    /// evaluated.
    ///
    /// `thread` is the number of the calling thread. `is_current` returns whether the generation is
    /// still the current one; it is called only for words of another.
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
        let increment = |cells: &Cells| {
            let (lap, cell) = self.buckets.divide(epoch);
            self.increment_shared(&cells[cell as usize], generation, lap, Ahead::Keep, &is_current);
        };
        increment(if sample.failed { &self.failed } else { &self.slow_only });
        if sample.slow && sample.failed {
            increment(&self.slow);
        }
        self.evaluate_if_due(generation, epoch, &is_current)
    }

    /// Records a clean call, which cannot trip the circuit.
    #[inline]
    pub(crate) fn record_clean(&self, generation: u64, now: Nanos, thread: usize, is_current: impl Fn() -> bool) {
        let generation = tag_of_generation(generation);
        let epoch = self.epoch(now);
        let (lap, cell) = self.buckets.divide(epoch);
        let cell = cell as usize;
        match self.clean.get(thread) {
            Some(own) => {
                let word = own[cell].load(Ordering::Acquire);
                if let Some(next) = self.incremented(word, generation, lap, Ahead::Drop, is_current) {
                    own[cell].store(next, Ordering::Release);
                }
            }
            None => self.increment_shared(&self.clean_shared[cell], generation, lap, Ahead::Drop, is_current),
        }
    }

    #[inline(never)]
    fn increment_shared(
        &self,
        cell: &AtomicU64,
        generation: u64,
        lap: u64,
        ahead: Ahead,
        is_current: impl Fn() -> bool,
    ) {
        drive(cell, |word| match self.incremented(word, generation, lap, ahead, &is_current) {
            Some(next) => Step::Write(next, ()),
            None => Step::Keep(()),
        });
    }

    /// The cell with one more call. `None` if it stays as it is: its count is at the maximum, or
    /// the call is stale.
    #[inline]
    fn incremented(
        &self,
        word: u64,
        generation: u64,
        lap: u64,
        ahead: Ahead,
        is_current: impl Fn() -> bool,
    ) -> Option<u64> {
        let layout = self.cell_layout;
        let same_generation = layout.generation(word) == generation;
        let next = if same_generation && layout.period(word) >= lap {
            if layout.period(word) - lap < self.far_laps {
                layout.add(word, 1)
            } else {
                let kept = if ahead == Ahead::Keep { layout.count(word) } else { 0 };
                layout.add(layout.tag(generation, lap) | kept, 1)
            }
        } else if same_generation || is_current() {
            layout.tag(generation, lap) | 1
        } else {
            return None; // the cell is of a newer generation
        };
        (next != word).then_some(next)
    }

    fn evaluate_if_due(&self, generation: u64, epoch: u64, is_current: impl Fn() -> bool) -> Option<Counts> {
        let layout = self.ticket_layout;
        // Drawn after the cells were written. A swap even if the number is at its maximum and
        // stays: the swap publishes the cells to the evaluations after it.
        let ticket = drive(&self.tickets, |word| {
            let same_generation = layout.generation(word) == generation;
            if same_generation && layout.period(word) >= epoch && !self.is_far_ahead(layout.period(word), epoch) {
                let next = layout.add(word, 1);
                Step::Write(next, Some(next))
            } else if same_generation || is_current() {
                let next = layout.tag(generation, epoch) | 1;
                Step::Write(next, Some(next))
            } else {
                Step::Keep(None)
            }
        })?;
        let bound = self.bound.load(Ordering::Acquire);
        let is_comparable = !self.is_far_ahead(layout.period(bound), layout.period(ticket));
        if layout.generation(bound) == generation && is_comparable && ticket < bound {
            return None;
        }
        // Loaded before the cells.
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

    /// The counts of this generation at this time.
    pub(crate) fn snapshot(&self, generation: u64, now: Nanos) -> Counts {
        let generation = tag_of_generation(generation);
        let (newest, epoch) = (self.tickets.load(Ordering::Acquire), self.epoch(now));
        let newest_bad = self.ticket_layout.period(newest);
        let is_newer = self.ticket_layout.generation(newest) == generation && !self.is_far_ahead(newest_bad, epoch);
        self.sum(generation, if is_newer { epoch.max(newest_bad) } else { epoch })
    }

    /// Whether one epoch can be after another only because the clock has gone back since.
    fn is_far_ahead(&self, epoch: u64, than: u64) -> bool {
        epoch.saturating_sub(than) >= self.far_laps.saturating_mul(self.buckets.get())
    }

    /// Sums the `buckets` buckets up to `newest`.
    fn sum(&self, generation: u64, newest: u64) -> Counts {
        let sum = |cells: &Cells| {
            let mut total = 0;
            for epoch in newest.saturating_sub(self.buckets.get() - 1)..=newest {
                let (lap, cell) = self.buckets.divide(epoch);
                let word = cells[cell as usize].load(Ordering::Acquire);
                if self.cell_layout.tag_of(word) == self.cell_layout.tag(generation, lap) {
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
