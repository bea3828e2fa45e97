use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::state::atomics::{Ops, count};

const OK: Sample = Sample { failed: false, slow: false };
const FAILED: Sample = Sample { failed: true, slow: false };

fn rates(min_calls: u32) -> Rates {
    Rates { min_calls, failed: Some(500_000), slow: Some(500_000) }
}

#[test]
fn the_cost_contract_holds() {
    let window = CountWindow::new(100, false, rates(10));
    for _ in 0..120 {
        window.record(0, OK, || true);
    }
    let (recorded, ops) = count(|| window.record(0, OK, || true));
    assert_eq!((recorded, ops), (Recorded::Counted, Ops { loads: 1, stores: 0, rmws: 0 }), "clean");
    for _ in 0..30 {
        let (_, ops) = count(|| window.record(0, FAILED, || true));
        assert!(ops.loads <= 10 && ops.rmws <= 2, "a failure: {ops:?}");
    }
    let costs: Vec<_> = (0..32).map(|_| count(|| window.record(0, OK, || true)).1).collect();
    assert_eq!(costs.iter().filter(|ops| ops.rmws == 1 && ops.loads == 1).count(), 30, "dirty: {costs:?}");
    assert_eq!(costs.iter().filter(|ops| ops.rmws == 2 && ops.loads <= 3).count(), 2, "one more in 16: {costs:?}");
}

#[test]
fn blocks_of_older_generations_are_not_counted() {
    let window = CountWindow::with_blocks(3, 1, 1, rates(1));
    for generation in 0..40_000 {
        assert_eq!(
            window.record(generation, FAILED, || true),
            Recorded::Evaluated(Counts { calls: 1, failed: 1, slow: 0 })
        );
        if generation % 7 == 0 {
            window.record(generation, OK, || true);
            window.record(generation, FAILED, || true);
            assert_eq!(window.snapshot(generation), Counts { calls: 3, failed: 2, slow: 0 });
        }
    }
}

#[test]
fn the_wrap_of_block_numbers_has_no_effect() {
    for (size, block) in [(3, 1), (50, 16), (100, 16), (70, 8)] {
        let window = CountWindow::with_blocks(size, block, 1, rates(1));
        // A window of clean calls, just before the block numbers wrap.
        let last = (1 << BLOCK_BITS) - 2;
        let word = CountWord { generation: 0, full: true, block: last, fill: block, clean: 0, bits: 0 };
        for block in last - window.ring.len() as u64 + 1..=last {
            window.ring[(block % window.ring.len() as u64) as usize]
                .store(published_block(0, block, 0), Ordering::Relaxed);
        }
        window.current.store(word.pack(), Ordering::Relaxed);
        for failed in 1..=u64::from(size) + 50 {
            let counts = Counts { calls: size.into(), failed: failed.min(size.into()), slow: 0 };
            let recorded = window.record(0, FAILED, || true);
            assert_eq!(recorded, Recorded::Evaluated(counts), "{size} in blocks of {block}");
        }
    }
}

#[test]
fn a_window_that_was_idle_for_many_generations_still_counts() {
    for gap in [1, 8191, 8192, 8193, 12_000, 16_383] {
        let window = CountWindow::new(10, false, rates(1));
        window.record(5, FAILED, || true);
        let counts = Counts { calls: 1, failed: 1, slow: 0 };
        assert_eq!(window.record(5 + gap, FAILED, || true), Recorded::Evaluated(counts), "after {gap} generations");
    }
    // The same tag again, which is the reason for `begin_generation`.
    let window = CountWindow::new(10, false, rates(1));
    window.record(5, FAILED, || true);
    window.begin_generation(6, || true);
    window.begin_generation(5 + (1 << GENERATION_BITS), || true);
    assert_eq!(window.snapshot(5), Counts::default());
}

proptest! {
    /// count.I1 to count.I4.
    #[test]
    fn count_window_matches_a_list(
        size in 1_u32..70,
        slow in any::<bool>(),
        min_calls in 1_u32..70,
        bad_of_ten in 0_u32..11,
        draws in prop::collection::vec((0_u32..10, any::<bool>(), 0_u32..60), 0..400),
    ) {
        let min_calls = min_calls.min(size);
        let window = CountWindow::new(size, slow, rates(min_calls));
        let (mut list, mut generation) = (VecDeque::new(), 0_u64);
        for (draw, second, next) in draws {
            if next == 0 {
                generation += 1;
                list.clear();
            }
            if next == 1 && generation > 0 {
                window.begin_generation(generation - 1, || false);
                window.begin_generation(generation, || true);
                prop_assert_eq!(window.record(generation - 1, FAILED, || false), Recorded::Stale);
                continue;
            }
            let bad = draw < bad_of_ten;
            let sample = Sample { failed: bad && !(slow && second), slow: slow && bad && second };
            list.push_back(sample);
            if list.len() > size as usize { list.pop_front(); }
            let counts = Counts {
                calls: list.len() as u64,
                failed: list.iter().filter(|sample| sample.failed).count() as u64,
                slow: list.iter().filter(|sample| sample.slow).count() as u64,
            };
            let recorded = window.record(generation, sample, || true);
            prop_assert_eq!(window.snapshot(generation), counts);
            match recorded {
                Recorded::Evaluated(evaluated) => prop_assert_eq!(evaluated, counts),
                // Without an evaluation, this call cannot have made a trip due.
                Recorded::Counted => prop_assert!(
                    sample.is_clean() && (counts.calls != u64::from(min_calls) || list.len() == size as usize)
                ),
                Recorded::Stale => prop_assert!(false, "the current generation is not stale"),
            }
        }
    }
}

#[test]
fn concurrent_records_are_all_counted_once() {
    let window = CountWindow::new(1000, true, rates(1000));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let window = &window;
            scope.spawn(move || {
                for call in 0..250 {
                    window.record(0, Sample { failed: call % 5 == 0, slow: (call + thread) % 2 == 0 }, || true);
                }
            });
        }
    });
    assert_eq!(window.snapshot(0), Counts { calls: 1000, failed: 200, slow: 500 });
}
