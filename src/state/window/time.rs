//! The calls of the last T, in buckets.

use std::time::Duration;

use super::{Counts, Rates, Sample};
use crate::state::{
    drive::{Step, drive},
    sync::{AtomicU64, Ordering, Padded},
    time::{Nanos, nanos_of},
};

/// Outcomes of the last T, in K buckets of T / K.
///
/// ```text
/// cell:          [generation: 10 | lap  | count]      bucket e is in cell e % K, on lap e / K
/// ticket, bound: [generation: 10 | epoch | number]    epoch = time / bucket width
/// ```
///
/// Clean successes are counted in cells of the calling thread's stripe, which it has nearly to itself; bad calls (failed
/// or slow) in cells that all share. A cell of an older bucket is cleared by the first who counts in it again. Laps and
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
///
/// Why T3 holds: a bad call writes its cells first and draws its ticket afterwards, and tickets are drawn by swaps of
/// one word. So a look that saw ticket q has seen the cells of all tickets up to q, and if another d bad calls are
/// needed, no ticket before q + d can make a trip due: within a bucket the number of calls only grows. That stays true
/// for ever, so bounds may overtake each other; one of another bucket or generation is not heeded.
///
/// Sums are read cell by cell: they lie between the true values at the beginning and at the end of the reading
/// (interval-linearizable, not linearizable). One sequential caller is judged as if it had looked at every bad call.
///
/// Cost: clean 1 load and 1 RMW on the thread's own line; bad 3 loads and 2 RMWs (one more of each when both slow and
/// failed), and when a look is due a load per cell and a store. Looks are a few per bucket, whatever the rate of calls.
/// The clock is read once, by the caller.
///
/// Counts saturate: per cell at 8 million for 10 s, in proportion for others. Tags have 10 bits of the generation: a
/// cell is mistaken for a present one after exactly k * 1024 transitions within one T.
#[derive(Debug)]
pub(crate) struct TimeWindow {
    clean: Box<[Padded<Cells>]>,
    failed: Padded<Cells>,
    slow: Padded<Cells>,
    /// Calls that are slow and did not fail, which are in no other cells.
    slow_only: Padded<Cells>,
    tickets: Padded<AtomicU64>,
    bound: Padded<AtomicU64>,
    width: u64,
    buckets: u64,
    cell: Split,
    ticket: Split,
    rates: Rates,
}

type Cells = [AtomicU64; MAX_BUCKETS as usize];

pub(crate) const MAX_BUCKETS: u32 = 16;

/// Shorter windows are stretched to this, about a millisecond: below, the counts get too few bits.
const MIN_LENGTH: u64 = 1 << 20;

const GENERATION_BITS: u32 = 10;

/// How a word is divided: `[generation: 10 | period | count]`, with periods enough for all of a `u64`'s nanoseconds.
#[derive(Clone, Copy, Debug)]
struct Split {
    count_bits: u32,
}

impl Split {
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
    fn raised(self, word: u64, by: u64) -> u64 {
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
            clean: (0..stripes.max(1)).map(|_| Padded(cells())).collect(),
            failed: Padded(cells()),
            slow: Padded(cells()),
            slow_only: Padded(cells()),
            tickets: Padded(AtomicU64::new(0)),
            bound: Padded(AtomicU64::new(0)),
            width,
            buckets,
            cell: Split::of_period(width.saturating_mul(buckets)),
            ticket: Split::of_period(width),
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
    /// `is_current` tells whether the generation is still the present one; it is asked only about words of others.
    pub(crate) fn record(
        &self,
        generation: u64,
        sample: Sample,
        now: Nanos,
        stripe: usize,
        is_current: impl Fn() -> bool,
    ) -> Option<Counts> {
        let generation = tag_of_generation(generation);
        let epoch = self.epoch(now);
        let bump = |cells| self.bump(cells, generation, epoch, &is_current);
        if sample.is_clean() {
            bump(&self.clean[stripe % self.clean.len()]);
            return None;
        }
        bump(if sample.failed { &self.failed } else { &self.slow_only });
        if sample.slow && sample.failed {
            bump(&self.slow);
        }
        self.look_if_due(generation, epoch, &is_current)
    }

    fn bump(&self, cells: &Cells, generation: u64, epoch: u64, is_current: impl Fn() -> bool) {
        let (split, lap) = (self.cell, epoch / self.buckets);
        drive(&cells[(epoch % self.buckets) as usize], |word| {
            let ours = split.generation(word) == generation;
            let next = if ours && split.period(word) >= lap {
                split.raised(word, 1)
            } else if ours || is_current() {
                split.tag(generation, lap) | 1
            } else {
                return Step::Keep(()); // stale: the cell is of a newer generation
            };
            if next == word { Step::Keep(()) } else { Step::Write(next, ()) }
        });
    }

    fn look_if_due(&self, generation: u64, epoch: u64, is_current: impl Fn() -> bool) -> Option<Counts> {
        let split = self.ticket;
        // Drawn after the cells were written. A swap even where the number is at its end and stays: it is the swap that
        // hands the cells over to whoever looks after it.
        let ticket = drive(&self.tickets, |word| {
            let ours = split.generation(word) == generation;
            if ours && split.period(word) >= epoch {
                let next = split.raised(word, 1);
                Step::Write(next, Some(next))
            } else if ours || is_current() {
                let next = split.tag(generation, epoch) | 1;
                Step::Write(next, Some(next))
            } else {
                Step::Keep(None)
            }
        })?;
        let bound = self.bound.load(Ordering::Acquire);
        if split.generation(bound) == generation && ticket < bound {
            return None;
        }
        // Before the cells are read.
        let newest = self.tickets.load(Ordering::Acquire);
        if split.generation(newest) != generation {
            return None;
        }
        let counts = self.sum(generation, split.period(newest));
        if self.rates.due(counts).is_none() {
            self.bound.store(split.raised(newest, self.rates.bad_calls_to_trip(counts)), Ordering::Release);
        }
        Some(counts)
    }

    /// What the window holds, of this generation, at this time.
    pub(crate) fn snapshot(&self, generation: u64, now: Nanos) -> Counts {
        let generation = tag_of_generation(generation);
        let newest = self.tickets.load(Ordering::Acquire);
        let of_tickets = if self.ticket.generation(newest) == generation { self.ticket.period(newest) } else { 0 };
        self.sum(generation, self.epoch(now).max(of_tickets))
    }

    /// The `buckets` buckets up to `newest`.
    fn sum(&self, generation: u64, newest: u64) -> Counts {
        let sum = |cells: &Cells| {
            let mut total = 0;
            for epoch in newest.saturating_sub(self.buckets - 1)..=newest {
                let word = cells[(epoch % self.buckets) as usize].load(Ordering::Acquire);
                if self.cell.tag_of(word) == self.cell.tag(generation, epoch / self.buckets) {
                    total += self.cell.count(word);
                }
            }
            total
        };
        let (failed, slow_only) = (sum(&self.failed), sum(&self.slow_only));
        let slow = if self.rates.slow.is_some() { sum(&self.slow) + slow_only } else { 0 };
        let clean: u64 = self.clean.iter().map(|stripe| sum(stripe)).sum();
        Counts { calls: clean + failed + slow_only, failed, slow }
    }
}

fn tag_of_generation(generation: u64) -> u64 {
    generation & ((1 << GENERATION_BITS) - 1)
}

#[cfg(all(test, not(rampart_loom)))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::state::sync::{Ops, count};

    const OK: Sample = Sample { failed: false, slow: false };
    const FAILED: Sample = Sample { failed: true, slow: false };

    fn window(min_calls: u32, share: u32) -> TimeWindow {
        let rates = Rates { min_calls, failed: Some(share), slow: None };
        TimeWindow::new(Duration::from_secs(10), 10, 2, rates)
    }

    fn seconds(seconds: u64) -> Nanos {
        Nanos::new(seconds * 1_000_000_000)
    }

    impl TimeWindow {
        /// A call of the present generation, on the first stripe.
        fn now_record(&self, sample: Sample, now: Nanos) -> Option<Counts> {
            self.record(0, sample, now, 0, || unreachable!("nothing here is of another generation"))
        }
    }

    #[test]
    fn the_cost_contract_holds() {
        let window = window(20, 500_000);
        for _ in 0..1000 {
            window.now_record(OK, seconds(0));
        }
        assert_eq!(count(|| window.now_record(OK, seconds(0))).1, Ops { loads: 1, stores: 0, rmws: 1 });
        let (looked, ops) = count(|| window.now_record(FAILED, seconds(100)));
        assert_eq!(looked, Some(Counts { calls: 1, failed: 1, slow: 0 }));
        // Four words, and the cells: failed, slow only, two stripes.
        assert_eq!(ops, Ops { loads: 4 + 4 * 10, stores: 1, rmws: 2 }, "the first failure of a bucket looks");
        for _ in 0..1000 {
            window.now_record(OK, seconds(100));
        }
        while window.now_record(FAILED, seconds(100)).is_none() {}
        let mut looks = 0;
        for _ in 0..900 {
            let (looked, ops) = count(|| window.now_record(FAILED, seconds(100)));
            looks += u32::from(looked.is_some());
            let quiet = Ops { loads: 3, stores: 0, rmws: 2 };
            assert!(looked.is_some() || ops == quiet, "no trip is possible yet: {ops:?}");
        }
        assert!(looks < 10, "{looks} looks");
    }

    // B8
    #[test]
    fn a_gap_clears_all_however_long() {
        let gaps = [10, 11, 1 << 20, 1 << 28, 1 << 30, u64::from(u32::MAX), 1 << 32, 1 << 33, 10 << 32];
        for (buckets, gap) in [1_u64, 2, 8, 10, 16].into_iter().flat_map(|buckets| gaps.map(|gap| (buckets, gap))) {
            // Buckets of a second, and as short as they get.
            for length in [Duration::from_secs(buckets), Duration::from_millis(2)] {
                let rates = Rates { min_calls: 1, failed: Some(1_000_000), slow: None };
                let window = TimeWindow::new(length, buckets as u32, 2, rates);
                let at = |bucket: u64| Nanos::new(bucket.saturating_mul(window.width));
                window.now_record(FAILED, at(5));
                window.now_record(OK, at(5));
                assert_eq!(window.snapshot(0, at(5 + buckets - 1)).calls, 2);
                let late = at(5 + buckets.max(gap));
                assert_eq!(window.snapshot(0, late).calls, 0, "{gap} of {buckets} buckets of {length:?}");
                window.now_record(OK, late);
                let counts = Some(Counts { calls: 2, failed: 1, slow: 0 });
                assert_eq!(window.now_record(FAILED, late), counts, "{gap} of {buckets} buckets of {length:?}");
            }
        }
    }

    // T4
    #[test]
    fn a_clock_that_goes_backwards_clears_nothing() {
        let window = window(1, 1_000_000);
        for at in [100, 90, 99] {
            window.now_record(FAILED, seconds(at));
        }
        assert_eq!(window.snapshot(0, seconds(100)).failed, 3);
        assert_eq!(window.snapshot(0, seconds(20)).failed, 3, "seen from where the window has got to");
        window.now_record(FAILED, Nanos::MAX);
        window.now_record(FAILED, Nanos::new(0));
        assert_eq!(window.snapshot(0, Nanos::MAX).failed, 1);
    }

    #[test]
    fn extreme_lengths_are_windows_too() {
        for length in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(3_000_000_000), Duration::MAX] {
            for buckets in [0, 1, 3, 16, u32::MAX] {
                let rates = Rates { min_calls: 1, failed: Some(1_000_000), slow: None };
                let window = TimeWindow::new(length, buckets, 1, rates);
                for now in [Nanos::new(0), seconds(1), Nanos::MAX] {
                    window.now_record(FAILED, now);
                    assert!(window.snapshot(0, now).failed >= 1, "{length:?} in {buckets}, {now:?}");
                }
            }
        }
    }

    #[test]
    fn numbers_stay_at_their_end_and_bad_calls_go_on_being_judged() {
        let rates = Rates { min_calls: 1, failed: Some(900_000), slow: None };
        let window = TimeWindow::new(Duration::from_millis(1), 16, 1, rates);
        let (tickets, count) = (window.ticket.count_max(), window.cell.count_max());
        for _ in 0..count + 5 {
            window.now_record(OK, seconds(1));
        }
        assert_eq!(window.snapshot(0, seconds(1)).calls, count);
        for _ in 0..tickets {
            window.now_record(FAILED, seconds(1));
        }
        for _ in tickets..count + 5 {
            assert!(window.now_record(FAILED, seconds(1)).is_some());
        }
        assert_eq!(window.snapshot(0, seconds(1)), Counts { calls: 2 * count, failed: count, slow: 0 });
    }

    #[test]
    fn a_stale_call_counts_nowhere() {
        let window = window(1, 1_000_000);
        window.record(3, OK, seconds(1), 0, || true);
        window.record(3, FAILED, seconds(1), 0, || true);
        for old in [2, 1, 1023] {
            assert_eq!(window.record(old, FAILED, seconds(1), 0, || false), None);
            assert_eq!(window.record(old, OK, seconds(1), 0, || false), None);
        }
        assert_eq!(window.snapshot(3, seconds(1)), Counts { calls: 2, failed: 1, slow: 0 });
        // However many generations lie between.
        assert_eq!(window.record(600, FAILED, seconds(1), 0, || true), Some(Counts { calls: 1, failed: 1, slow: 0 }));
    }

    #[test]
    fn threads_lose_no_outcome_and_the_due_trip_is_seen() {
        for _ in 0..50 {
            let window = window(100, 250_000);
            let seen: usize = std::thread::scope(|scope| {
                let record = |thread: usize| {
                    let window = &window;
                    move || {
                        let record = |call: usize| {
                            let sample = if call % 3 == 0 { FAILED } else { OK };
                            window.record(0, sample, seconds(call as u64 / 20), thread, || true)
                        };
                        let due = |counts: &Counts| window.rates.due(*counts).is_some();
                        (0..60).filter_map(record).filter(due).count()
                    }
                };
                let threads: Vec<_> = (0..4).map(|thread| scope.spawn(record(thread))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).sum()
            });
            assert_eq!(window.snapshot(0, seconds(2)), Counts { calls: 240, failed: 80, slow: 0 });
            assert!(seen > 0, "80 of 240 failed");
        }
    }

    proptest! {
        /// T1 to T4, against a list of calls that is judged after every bad one: with gaps, steps back, new generations.
        #[test]
        fn it_agrees_with_a_list(
            min_calls in 1_u32..40,
            share in 1_u32..=1_000_000,
            slow_share in prop::option::of(1_u32..=1_000_000),
            bad_of_ten in 0_u32..11,
            buckets in 1_u64..=16,
            width in prop_oneof![Just(2_000_000_u64), Just(999_999_999), Just(1 << 30), 2_000_000_u64..40_000_000_000],
            start in prop_oneof![Just(0_u64), 0..u64::MAX / 2],
            draws in prop::collection::vec((0_u32..10, any::<bool>(), 0_u64..3_000, 0_u32..100), 0..300),
        ) {
            let rates = Rates { min_calls, failed: Some(share), slow: slow_share };
            let window = TimeWindow::new(Duration::from_nanos(width * buckets), buckets as u32, 2, rates);
            prop_assert_eq!(window.width, width);
            // Of the calls of a generation: their buckets, and the newest bucket of a bad one.
            let (mut list, mut newest_bad) = (Vec::new(), 0);
            let (mut now, mut generation) = (start, 1);
            for (draw, second, step, event) in draws {
                match event {
                    0..20 => now = now.saturating_add((width / 1000).saturating_mul(step)),
                    20 => now = now.saturating_add(width.saturating_mul(1 << (step % 48))),
                    // Less than a window.
                    21..25 => now = now.saturating_sub(width * (step % buckets)),
                    _ => {}
                }
                if event == 99 {
                    generation += 1;
                    (list, newest_bad) = (Vec::new(), 0);
                }
                let epoch = now / width;
                let bad = draw < bad_of_ten;
                let sample = Sample { failed: bad && !second, slow: slow_share.is_some() && draw % 3 == 0 };
                // A step back from a step back may come to more than a window.
                if list.iter().any(|(there, _)| there % buckets == epoch % buckets && *there > epoch) {
                    continue;
                }
                list.push((epoch, sample));
                if !sample.is_clean() { newest_bad = newest_bad.max(epoch) }
                let counts = |newest: u64| {
                    let view = newest.saturating_sub(buckets - 1)..=newest;
                    let seen: Vec<_> = list.iter().filter(|(epoch, _)| view.contains(epoch)).collect();
                    Counts {
                        calls: seen.len() as u64,
                        failed: seen.iter().filter(|(_, sample)| sample.failed).count() as u64,
                        slow: seen.iter().filter(|(_, sample)| sample.slow).count() as u64,
                    }
                };
                let looked = window.record(generation, sample, Nanos::new(now), draw as usize, || true);
                let newest = newest_bad.max(epoch);
                if list.iter().all(|(there, _)| *there <= newest) {
                    prop_assert_eq!(window.snapshot(generation, Nanos::new(now)), counts(newest));
                }
                if sample.is_clean() {
                    prop_assert_eq!(looked, None);
                } else if list.iter().all(|(there, _)| *there <= newest_bad) {
                    let truth = counts(newest_bad);
                    prop_assert_eq!(looked.unwrap_or(truth), truth);
                    prop_assert!(looked.is_some() || rates.due(truth).is_none(), "a due trip was not seen");
                    if rates.due(truth).is_some() {
                        // As the breaker does.
                        generation += 1;
                        (list, newest_bad) = (Vec::new(), 0);
                    }
                }
            }
        }
    }
}
