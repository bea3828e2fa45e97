use proptest::prelude::*;

use super::*;
use crate::state::atomics::{Ops, count};

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
    /// Records a call of the current generation, on the first stripe.
    fn record_now(&self, sample: Sample, now: Nanos) -> Option<Counts> {
        self.record(0, sample, now, 0, || unreachable!("no word is of another generation"))
    }
}

#[test]
fn the_cost_contract_holds() {
    let window = window(20, 500_000);
    for _ in 0..1000 {
        window.record_now(OK, seconds(0));
    }
    assert_eq!(count(|| window.record_now(OK, seconds(0))).1, Ops { loads: 1, stores: 1, rmws: 0 });
    let no_stripe = || window.record(0, OK, seconds(0), usize::MAX, || unreachable!());
    no_stripe();
    assert_eq!(count(no_stripe).1, Ops { loads: 1, stores: 0, rmws: 1 });
    let (evaluated, ops) = count(|| window.record_now(FAILED, seconds(100)));
    assert_eq!(evaluated, Some(Counts { calls: 1, failed: 1, slow: 0 }));
    // Four words, and the cells: failed, slow only, two stripes, the shared line.
    assert_eq!(ops, Ops { loads: 4 + 5 * 10, stores: 1, rmws: 2 }, "the first failure of a bucket evaluates");
    for _ in 0..1000 {
        window.record_now(OK, seconds(100));
    }
    while window.record_now(FAILED, seconds(100)).is_none() {}
    let mut evaluations = 0;
    for _ in 0..900 {
        let (evaluated, ops) = count(|| window.record_now(FAILED, seconds(100)));
        evaluations += u32::from(evaluated.is_some());
        let quiet = Ops { loads: 3, stores: 0, rmws: 2 };
        assert!(evaluated.is_some() || ops == quiet, "no trip is possible yet: {ops:?}");
    }
    assert!(evaluations < 10, "{evaluations} evaluations");
}

// contract B8
#[test]
fn a_gap_of_any_length_clears_the_window() {
    let gaps = [10, 11, 1 << 20, 1 << 28, 1 << 30, u64::from(u32::MAX), 1 << 32, 1 << 33, 10 << 32];
    for (buckets, gap) in [1_u64, 2, 8, 10, 16].into_iter().flat_map(|buckets| gaps.map(|gap| (buckets, gap))) {
        // Buckets of a second, and the shortest ones.
        for length in [Duration::from_secs(buckets), Duration::from_millis(2)] {
            let rates = Rates { min_calls: 1, failed: Some(1_000_000), slow: None };
            let window = TimeWindow::new(length, buckets as u32, 2, rates);
            let at = |bucket: u64| Nanos::new(bucket.saturating_mul(window.width.get()));
            window.record_now(FAILED, at(5));
            window.record_now(OK, at(5));
            assert_eq!(window.snapshot(0, at(5 + buckets - 1)).calls, 2);
            let late = at(5 + buckets.max(gap));
            assert_eq!(window.snapshot(0, late).calls, 0, "{gap} of {buckets} buckets of {length:?}");
            window.record_now(OK, late);
            let counts = Some(Counts { calls: 2, failed: 1, slow: 0 });
            assert_eq!(window.record_now(FAILED, late), counts, "{gap} of {buckets} buckets of {length:?}");
        }
    }
}

// time.I4
#[test]
fn a_clock_that_goes_backwards_by_less_than_the_window_clears_nothing() {
    let window = window(1, 1_000_000);
    for at in [100, 91, 99] {
        window.record_now(FAILED, seconds(at));
    }
    assert_eq!(window.snapshot(0, seconds(100)).failed, 3);
    assert_eq!(window.snapshot(0, seconds(95)).failed, 3, "as of the newest bucket");
}

// time.I4
#[test]
fn a_clock_that_jumps_leaves_no_window_blind() {
    let ahead = [0, 3, 9, 10, 11, 19, 30, 3600, 86_400 * 365];
    for (ahead, stays) in ahead.into_iter().flat_map(|ahead| [(ahead, 0), (ahead, 1), (ahead, 25)]) {
        // Twenty of twenty, or nothing.
        let window = window(20, 1_000_000);
        for step in 0..=stays {
            for _ in 0..100 {
                window.record_now(OK, seconds(1000 + ahead + step));
            }
            window.record_now(FAILED, seconds(1000 + ahead + step));
        }
        // Clean calls of the last window dilute the rate, wherever they were counted.
        let mut now = if ahead < 10 { 1000 + ahead + stays } else { 1000 };
        now += if ahead < 10 { 10 } else { 0 };
        let trips = |call: &u64| {
            let counts = window.record_now(FAILED, seconds(now + call / 10));
            counts.is_some_and(|counts| window.rates.trip_cause(counts).is_some())
        };
        let calls = (0..200).position(|call| trips(&call));
        assert!(calls.is_some_and(|calls| calls < 20), "{calls:?} after {ahead} s ahead for {stays} s");
        now += 2;
        assert!(window.snapshot(0, seconds(now)).failed >= 20);
    }
    // To the ends of time and back.
    let window = window(2, 1_000_000);
    window.record_now(FAILED, Nanos::MAX);
    window.record_now(FAILED, Nanos::new(0));
    assert!(window.record_now(FAILED, Nanos::new(1)).is_some_and(|counts| counts.failed >= 2));
}

#[test]
fn extreme_lengths_still_count() {
    for length in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(3_000_000_000), Duration::MAX] {
        for buckets in [0, 1, 3, 16, u32::MAX] {
            let rates = Rates { min_calls: 1, failed: Some(1_000_000), slow: None };
            let window = TimeWindow::new(length, buckets, 1, rates);
            for now in [Nanos::new(0), seconds(1), Nanos::MAX] {
                window.record_now(FAILED, now);
                assert!(window.snapshot(0, now).failed >= 1, "{length:?} in {buckets}, {now:?}");
            }
        }
    }
}

#[test]
fn counts_saturate_and_bad_calls_are_still_evaluated() {
    let rates = Rates { min_calls: 1, failed: Some(900_000), slow: None };
    let window = TimeWindow::new(Duration::from_millis(1), 16, 1, rates);
    let (tickets, count) = (window.ticket_layout.count_max(), window.cell_layout.count_max());
    for _ in 0..count + 5 {
        window.record_now(OK, seconds(1));
    }
    assert_eq!(window.snapshot(0, seconds(1)).calls, count);
    for _ in 0..tickets {
        window.record_now(FAILED, seconds(1));
    }
    for _ in tickets..count + 5 {
        assert!(window.record_now(FAILED, seconds(1)).is_some());
    }
    assert_eq!(window.snapshot(0, seconds(1)), Counts { calls: 2 * count, failed: count, slow: 0 });
}

#[test]
fn a_call_of_another_generation_is_not_counted() {
    let window = window(1, 1_000_000);
    window.record(3, OK, seconds(1), 0, || true);
    window.record(3, FAILED, seconds(1), 0, || true);
    for old in [2, 1, 1023] {
        assert_eq!(window.record(old, FAILED, seconds(1), 0, || false), None);
        assert_eq!(window.record(old, OK, seconds(1), 0, || false), None);
    }
    assert_eq!(window.snapshot(3, seconds(1)), Counts { calls: 2, failed: 1, slow: 0 });
    assert_eq!(window.record(1023, OK, seconds(1), 0, || true), None);
    for _ in 0..9 {
        window.record(1023, OK, seconds(1), 0, || true);
    }
    window.record(1023, FAILED, seconds(1), 0, || true);
    // The tag wraps: a bound of the old generation does not apply to tickets of the new one.
    assert_eq!(window.record(1024, FAILED, seconds(1), 0, || true), Some(Counts { calls: 1, failed: 1, slow: 0 }));
    // The same after any number of generations.
    assert_eq!(window.record(600, FAILED, seconds(1), 0, || true), Some(Counts { calls: 1, failed: 1, slow: 0 }));
}

#[test]
fn concurrent_records_are_all_counted_and_the_due_trip_is_seen() {
    for _ in 0..50 {
        let window = window(100, 250_000);
        let seen: usize = std::thread::scope(|scope| {
            let record = |thread: usize| {
                let window = &window;
                move || {
                    let record = |call: usize| {
                        let sample = if call.is_multiple_of(3) { FAILED } else { OK };
                        window.record(0, sample, seconds(call as u64 / 20), thread, || true)
                    };
                    let due = |counts: &Counts| window.rates.trip_cause(*counts).is_some();
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

/// The calls of a generation with their buckets, which no call ever clears.
#[derive(Default)]
struct ListWindow {
    buckets: u64,
    calls: Vec<(u64, Sample)>,
    newest_bad: u64,
}

impl ListWindow {
    fn new(buckets: u64) -> Self {
        Self { buckets, ..Self::default() }
    }

    fn record(&mut self, epoch: u64, sample: Sample) {
        self.calls.push((epoch, sample));
        if !sample.is_clean() {
            self.newest_bad = self.newest_bad.max(epoch);
        }
    }

    /// Whether a later bucket has taken the cell of this one.
    fn has_passed(&self, epoch: u64) -> bool {
        self.calls.iter().any(|(other, _)| other % self.buckets == epoch % self.buckets && *other > epoch)
    }

    fn all_up_to(&self, newest: u64) -> bool {
        self.calls.iter().all(|(epoch, _)| *epoch <= newest)
    }

    fn counts(&self, newest: u64) -> Counts {
        let window = newest.saturating_sub(self.buckets - 1)..=newest;
        let calls: Vec<_> = self.calls.iter().filter(|(epoch, _)| window.contains(epoch)).collect();
        Counts {
            calls: calls.len() as u64,
            failed: calls.iter().filter(|(_, sample)| sample.failed).count() as u64,
            slow: calls.iter().filter(|(_, sample)| sample.slow).count() as u64,
        }
    }
}

proptest! {
    /// time.I1 to time.I4, against a list that is evaluated after every bad call: with gaps, a
    /// clock that goes backwards, and new generations.
    #[test]
    fn time_window_matches_a_list(
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
        prop_assert_eq!(window.width.get(), width);
        let mut list = ListWindow::new(buckets);
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
                list = ListWindow::new(buckets);
            }
            let epoch = now / width;
            let bad = draw < bad_of_ten;
            let sample = Sample { failed: bad && !second, slow: slow_share.is_some() && draw % 3 == 0 };
            // Two steps back may be more than a window: then the clock has jumped.
            if list.has_passed(epoch) || window.is_far_ahead(list.newest_bad, epoch) {
                continue;
            }
            list.record(epoch, sample);
            let evaluated = window.record(generation, sample, Nanos::new(now), draw as usize, || true);
            let newest = list.newest_bad.max(epoch);
            if list.all_up_to(newest) {
                prop_assert_eq!(window.snapshot(generation, Nanos::new(now)), list.counts(newest));
            }
            if sample.is_clean() {
                prop_assert_eq!(evaluated, None);
            } else if list.all_up_to(list.newest_bad) {
                let truth = list.counts(list.newest_bad);
                prop_assert_eq!(evaluated.unwrap_or(truth), truth);
                prop_assert!(evaluated.is_some() || rates.trip_cause(truth).is_none(), "a due trip was not seen");
                if rates.trip_cause(truth).is_some() {
                    // As the circuit does.
                    generation += 1;
                    list = ListWindow::new(buckets);
                }
            }
        }
    }
}
