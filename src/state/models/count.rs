//! Models of the count window: three calls, in blocks of two.

use loom::{sync::Arc, thread};

use super::model;
use crate::state::window::{
    Counts, Rates, Sample,
    count::{CountWindow, Recorded},
};

const OK: Sample = Sample { failed: false, slow: false };
const FAILED: Sample = Sample { failed: true, slow: false };

/// A window of the last three calls, which trips at two failures.
fn window() -> CountWindow {
    CountWindow::with_blocks(3, 2, 1, Rates { min_calls: 3, failed: Some(600_000), slow: None })
}

fn after(samples: &[Sample]) -> Arc<CountWindow> {
    let window = window();
    for sample in samples {
        record(&window, *sample);
    }
    Arc::new(window)
}

fn record(window: &CountWindow, sample: Sample) -> Recorded {
    window.record(0, sample, || true)
}

fn trips(window: &CountWindow) -> bool {
    window.record_and_evaluate(0, FAILED, || true).is_some()
}

fn counts(calls: u64, failed: u64) -> Counts {
    Counts { calls, failed, slow: 0 }
}

model! {
    /// count.I1: no record is lost or counted twice.
    every_record_counts_once, preemptions: None, refuted by [SplitSwap], {
        let window = after(&[OK]);
        let other = Arc::clone(&window);
        let there = thread::spawn(move || record(&other, FAILED));
        record(&window, FAILED);
        there.join().unwrap();
        assert_eq!(window.snapshot(0), counts(3, 2));
    }
}

model! {
    /// count.I1, count.I5: a complete block is published once, by the first recorder, with all of
    /// its calls.
    a_complete_block_is_published_once, preemptions: None, refuted by [SplitSwap], {
        // The block [ok, failed] is complete; both recorders try to begin the next.
        let window = after(&[OK, FAILED]);
        let other = Arc::clone(&window);
        let there = thread::spawn(move || {
            record(&other, OK);
            record(&other, FAILED);
        });
        record(&window, OK);
        there.join().unwrap();
        // One of the last three calls is the concurrent failure.
        let now = window.snapshot(0);
        assert_eq!(now, counts(3, 1));
    }
}

model! {
    /// count.I2: a clean call that is not written hides no concurrent failure.
    an_unwritten_clean_call_hides_no_failure, preemptions: None, refuted by [SplitSwap], {
        let window = after(&[OK, OK, OK, OK]);
        let [failing, succeeding] = [(); 2].map(|()| Arc::clone(&window));
        let failing = thread::spawn(move || { record(&failing, FAILED); });
        let succeeding = thread::spawn(move || { record(&succeeding, OK); });
        record(&window, FAILED);
        failing.join().unwrap();
        succeeding.join().unwrap();
        // Written or not, and in any order, these are the last three calls.
        assert_eq!(window.snapshot(0), counts(3, 2));
    }
}

model! {
    /// count.I3: one of the recorders that make a trip due sees it, and no other does.
    a_due_trip_is_seen_exactly_once, preemptions: None, refuted by [SplitSwap], {
        let window = after(&[OK, OK]);
        let other = Arc::clone(&window);
        let there = thread::spawn(move || trips(&other));
        let here = trips(&window);
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1, "the second of the two failures");
    }
}

model! {
    /// count.I4: a call of an earlier generation never counts in a later one.
    an_older_generation_never_counts, preemptions: None, refuted by [SplitSwap], {
        let window = after(&[OK, OK]);
        let current = Arc::new(loom::sync::atomic::AtomicU64::new(0));
        let (other, now) = (Arc::clone(&window), Arc::clone(&current));
        use loom::sync::atomic::Ordering::{Acquire, Release};
        let there = thread::spawn(move || other.record(0, FAILED, || now.load(Acquire) == 0));
        current.store(1, Release);
        window.begin_generation(1, || true);
        window.record(1, OK, || true);
        there.join().unwrap();
        assert_eq!(window.snapshot(1), counts(1, 0));
    }
}
