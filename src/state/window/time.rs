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
/// cell:  [epoch: 30 | generation: 10 | count: 24]     epoch = time / bucket width
/// bound: [epoch: 30 | generation: 10 | ticket: 24]
/// ```
///
/// Clean successes are counted in cells of the calling thread's stripe, which it has nearly to itself; bad calls (failed
/// or slow) in cells that all share. A cell of an older bucket is cleared by the first who counts in it again.
///
/// Only a bad call can trip. And a bad call needs to look at all cells only when a trip is arithmetically possible: every
/// look leaves a `bound`, "in this generation and bucket, not before ticket n", where each bad call draws a ticket.
///
/// Invariants:
/// - T1 the cells of a generation and a bucket hold as many as were recorded, less those that came a whole window late.
/// - T2 a cell of an older generation or bucket is never added up.
/// - T3 a trip that is due from the moment when a bad call was recorded is made by that call or by a concurrent one.
/// - T4 a clock that goes backwards clears nothing newer.
///
/// For T3, why the bound is safe: it is published first, and the tickets are looked at again afterwards, both by swaps;
/// a bad call writes its cell first and draws its ticket afterwards. So either the look has seen the cell, or the draw
/// sees the bound, or the second look sees the draw. Bounds of another generation or an older bucket are not heeded.
/// (Explored exhaustively in a model; five plausible variants of the rule were refuted there.)
///
/// Sums are read cell by cell: they lie between the true values at the beginning and at the end of the reading.
///
/// Cost: clean 1 load and 1 RMW on the thread's own line; bad 2 loads and 2 RMWs (3 when slow and failed are both
/// counted), and when a look is due a load per cell. Looks are a few per bucket, whatever the rate of calls. The clock
/// is read once, by the caller.
///
/// Counts saturate at 16 million per cell. Epochs wrap after a billion buckets: 34 years of seconds.
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
    rates: Rates,
}

type Cells = [AtomicU64; MAX_BUCKETS as usize];

pub(crate) const MAX_BUCKETS: u32 = 16;

const COUNT_BITS: u32 = 24;
const COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;
const GENERATION_MASK: u64 = (1 << 10) - 1;
const EPOCH_MASK: u64 = (1 << 30) - 1;

/// Bounds further away than this are drawn nearer: tickets are compared on a circle.
const FAR: u64 = 1 << (COUNT_BITS - 2);

#[derive(Clone, Copy, PartialEq, Eq)]
struct Tag {
    epoch: u64,
    generation: u64,
}

impl Tag {
    fn of(word: u64) -> Self {
        Self { epoch: word >> 34, generation: word >> COUNT_BITS & GENERATION_MASK }
    }

    fn with(self, count: u64) -> u64 {
        self.epoch << 34 | self.generation << COUNT_BITS | count
    }

    /// Whether a cell with this tag is not to be cleared for `other`.
    fn is_newer(self, other: Self) -> bool {
        if self.epoch == other.epoch {
            circle_ahead(self.generation, other.generation, GENERATION_MASK)
        } else {
            circle_ahead(self.epoch, other.epoch, EPOCH_MASK)
        }
    }
}

/// Whether `a` is ahead of `b` on a circle.
fn circle_ahead(a: u64, b: u64, mask: u64) -> bool {
    let ahead = a.wrapping_sub(b) & mask;
    ahead != 0 && ahead <= mask / 2
}

fn cells() -> Cells {
    std::array::from_fn(|_| AtomicU64::new(0))
}

impl TimeWindow {
    pub(crate) fn new(length: Duration, buckets: u32, stripes: usize, rates: Rates) -> Self {
        let buckets = buckets.clamp(1, MAX_BUCKETS);
        Self {
            clean: (0..stripes.max(1)).map(|_| Padded(cells())).collect(),
            failed: Padded(cells()),
            slow: Padded(cells()),
            slow_only: Padded(cells()),
            tickets: Padded(AtomicU64::new(0)),
            bound: Padded(AtomicU64::new(0)),
            width: (nanos_of(length) / u64::from(buckets)).max(1),
            buckets: buckets.into(),
            rates,
        }
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.rates
    }

    fn tag(&self, generation: u64, now: Nanos) -> Tag {
        // Epochs begin with the number of buckets, so that the fresh cells, of epoch zero, are in no window.
        let epoch = (now.get() / self.width + self.buckets) & EPOCH_MASK;
        Tag { epoch, generation: generation & GENERATION_MASK }
    }

    /// Counts a call of `generation` that ended `now`. Answers with the window when it is time to judge it.
    pub(crate) fn record(&self, generation: u64, sample: Sample, now: Nanos, stripe: usize) -> Option<Counts> {
        let tag = self.tag(generation, now);
        if sample.is_clean() {
            self.bump(&self.clean[stripe % self.clean.len()], tag);
            return None;
        }
        if sample.failed {
            self.bump(&self.failed, tag);
        } else {
            self.bump(&self.slow_only, tag);
        }
        if sample.slow && sample.failed {
            self.bump(&self.slow, tag);
        }
        self.look_if_due(tag)
    }

    fn bump(&self, cells: &Cells, tag: Tag) {
        drive(&cells[(tag.epoch % self.buckets) as usize], |word| {
            let there = Tag::of(word);
            if there == tag {
                let count = word & COUNT_MAX;
                if count == COUNT_MAX { Step::Keep(()) } else { Step::Write(word + 1, ()) }
            } else if there.is_newer(tag) {
                // A whole window late, or of an older generation.
                Step::Keep(())
            } else {
                Step::Write(tag.with(1), ())
            }
        });
    }

    fn look_if_due(&self, tag: Tag) -> Option<Counts> {
        // Drawn after the cell was written.
        let ticket = self.tickets.fetch_add(1, Ordering::AcqRel).wrapping_add(1) & COUNT_MAX;
        let bound = self.bound.load(Ordering::Acquire);
        let published = Tag::of(bound);
        let same = published.generation == tag.generation;
        let behind = !circle_ahead(tag.epoch, published.epoch, EPOCH_MASK);
        if same && behind && circle_ahead(bound & COUNT_MAX, ticket, COUNT_MAX) {
            return None;
        }
        let mut view = if same && behind { published } else { tag };
        loop {
            let before = self.tickets.load(Ordering::Acquire);
            let counts = self.sum(view);
            if self.rates.due(counts).is_some() {
                return Some(counts);
            }
            let bound = before.wrapping_add(self.rates.bad_calls_to_trip(counts).min(FAR)) & COUNT_MAX;
            let newest = self.publish(view, bound);
            // A swap, not a load: whoever draws after it sees the bound.
            let now = self.tickets.fetch_add(0, Ordering::AcqRel) & COUNT_MAX;
            if circle_ahead(bound, now, COUNT_MAX) {
                return Some(counts);
            }
            // Tickets beyond the bound may have looked from an older bucket: look again.
            view = newest;
        }
    }

    /// Raises the bound, never lowers it within a generation. Answers with the newest bucket that anybody looked from.
    fn publish(&self, view: Tag, ticket: u64) -> Tag {
        drive(&self.bound, |word| {
            let there = Tag::of(word);
            let higher = there.generation == view.generation
                && (circle_ahead(there.epoch, view.epoch, EPOCH_MASK)
                    || (there.epoch == view.epoch && !circle_ahead(ticket, word & COUNT_MAX, COUNT_MAX)));
            if higher { Step::Keep(there) } else { Step::Write(view.with(ticket), view) }
        })
    }

    /// What the window holds, of this generation, at this time.
    pub(crate) fn snapshot(&self, generation: u64, now: Nanos) -> Counts {
        self.sum(self.tag(generation, now))
    }

    fn sum(&self, view: Tag) -> Counts {
        let sum = |cells: &Cells| {
            let mut total = 0;
            for cell in &cells[..self.buckets as usize] {
                let word = cell.load(Ordering::Acquire);
                let tag = Tag::of(word);
                let age = view.epoch.wrapping_sub(tag.epoch) & EPOCH_MASK;
                if tag.generation == view.generation && age < self.buckets {
                    total += word & COUNT_MAX;
                }
            }
            total
        };
        let (failed, slow_only) = (sum(&self.failed), sum(&self.slow_only));
        let clean: u64 = self.clean.iter().map(|stripe| sum(stripe)).sum();
        let slow = if self.rates.slow.is_some() { sum(&self.slow) + slow_only } else { 0 };
        Counts { calls: clean + failed + slow_only, failed, slow }
    }
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

    #[test]
    fn the_cost_contract_holds() {
        let window = window(20, 500_000);
        for _ in 0..1000 {
            window.record(0, OK, seconds(0), 0);
        }
        assert_eq!(count(|| window.record(0, OK, seconds(0), 0)).1, Ops { loads: 1, stores: 0, rmws: 1 });
        let (looked, ops) = count(|| window.record(0, FAILED, seconds(0), 0));
        assert_eq!(looked, Some(Counts { calls: 1002, failed: 1, slow: 0 }));
        assert!(ops.loads <= 2 * 10 + 2 * 10 + 6 && ops.rmws <= 4, "the first failure looks: {ops:?}");
        for _ in 0..500 {
            let (looked, ops) = count(|| window.record(0, FAILED, seconds(0), 0));
            assert_eq!((looked, ops), (None, Ops { loads: 2, stores: 0, rmws: 2 }), "no trip is possible yet");
        }
    }

    // B8
    #[test]
    fn a_gap_clears_all_however_long() {
        for gap in [10, 11, 1 << 20, u64::from(u32::MAX) + 1, 5 * u64::from(u32::MAX), 1 << 34] {
            let window = window(1, 1_000_000);
            window.record(0, FAILED, seconds(5), 0);
            assert_eq!(window.snapshot(0, seconds(14)).calls, 1);
            assert_eq!(window.snapshot(0, seconds(5 + gap % (1 << 30))).calls, u64::from(gap % (1 << 30) == 0));
        }
    }

    // T4
    #[test]
    fn a_clock_that_goes_backwards_clears_nothing() {
        let window = window(1, 1_000_000);
        window.record(0, FAILED, seconds(100), 0);
        window.record(0, FAILED, seconds(90), 0);
        window.record(0, FAILED, seconds(99), 0);
        assert_eq!(window.snapshot(0, seconds(100)).failed, 2);
        window.record(0, FAILED, Nanos::MAX, 0);
        window.record(0, FAILED, Nanos::new(0), 0);
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
                            window.record(0, sample, seconds(call as u64 / 20), thread)
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
        /// T1 to T3, against a list of calls that is judged after every bad one.
        #[test]
        fn it_agrees_with_a_list(
            min_calls in 1_u32..40,
            share in 1_u32..=1_000_000,
            slow_share in prop::option::of(1_u32..=1_000_000),
            bad_of_ten in 0_u32..11,
            draws in prop::collection::vec((0_u32..10, any::<bool>(), 0_u64..3_000, 0_u32..100), 0..300),
        ) {
            let rates = Rates { min_calls, failed: Some(share), slow: slow_share };
            let window = TimeWindow::new(Duration::from_secs(10), 10, 2, rates);
            let (mut list, mut now, mut generation) = (Vec::new(), 7_000_u64, 0);
            for (draw, second, step, event) in draws {
                if event < 20 { now += step }
                if event == 99 {
                    generation += 1;
                    list.clear();
                }
                let bad = draw < bad_of_ten;
                let sample = Sample { failed: bad && !second, slow: slow_share.is_some() && draw % 3 == 0 };
                list.push((now / 1000, sample));
                list.retain(|(epoch, _)| epoch + 10 > now / 1000);
                let counts = Counts {
                    calls: list.len() as u64,
                    failed: list.iter().filter(|(_, sample)| sample.failed).count() as u64,
                    slow: list.iter().filter(|(_, sample)| sample.slow).count() as u64,
                };
                let at = Nanos::new(now * 1_000_000);
                let looked = window.record(generation, sample, at, draw as usize);
                prop_assert_eq!(window.snapshot(generation, at), counts);
                if let Some(looked) = looked {
                    prop_assert_eq!(looked, counts);
                } else {
                    prop_assert!(sample.is_clean() || rates.due(counts).is_none(), "a due trip was not seen");
                }
                if rates.due(counts).is_some() && !sample.is_clean() {
                    // As the breaker does.
                    generation += 1;
                    list.clear();
                }
            }
        }
    }
}
