//! Models of the count window: three calls, in blocks of two.

use loom::{sync::Arc, thread};

use super::model;
use crate::state::window::{
    Counts, Rates, Sample,
    count::{CountWindow, Recorded},
};

const OK: Sample = Sample { failed: false, slow: false };
const FAILED: Sample = Sample { failed: true, slow: false };

/// The last three calls; two failures among them are too many.
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
    /// W1, P5: no record is lost, and none is counted twice.
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
    /// W1, W5, P8: a block that is complete is published once, by whoever comes first, with all of its calls.
    a_complete_block_is_published_once, preemptions: None, refuted by [SplitSwap], {
        // Blocks: [ok, failed]; both who come want to open the next.
        let window = after(&[OK, FAILED]);
        let other = Arc::clone(&window);
        let there = thread::spawn(move || {
            record(&other, OK);
            record(&other, FAILED);
        });
        record(&window, OK);
        there.join().unwrap();
        // Of the last three calls, one is the failure that came now.
        let now = window.snapshot(0);
        assert_eq!(now, counts(3, 1));
    }
}

model! {
    /// W2, P6: a success that is not written, because all is clean, hides no failure that comes at the same moment.
    what_is_not_written_changes_nothing, preemptions: None, refuted by [SplitSwap], {
        let window = after(&[OK, OK, OK, OK]);
        let [failing, succeeding] = [(); 2].map(|()| Arc::clone(&window));
        let failing = thread::spawn(move || { record(&failing, FAILED); });
        let succeeding = thread::spawn(move || { record(&succeeding, OK); });
        record(&window, FAILED);
        failing.join().unwrap();
        succeeding.join().unwrap();
        // Written or not, and in whatever order, three calls are the last three.
        assert_eq!(window.snapshot(0), counts(3, 2));
    }
}

model! {
    /// W3, P7: a trip that is due is seen by one of those who make it due, and none is seen that is not.
    no_trip_is_missed_and_none_invented, preemptions: None, refuted by [SplitSwap], {
        let window = after(&[OK, OK]);
        let other = Arc::clone(&window);
        let there = thread::spawn(move || trips(&other));
        let here = trips(&window);
        assert_eq!(u32::from(here) + u32::from(there.join().unwrap()), 1, "the second of the two failures");
    }
}

model! {
    /// W4, P2: what belongs to an earlier generation never counts in a later one.
    an_older_generation_never_counts, preemptions: None, refuted by [SplitSwap], {
        let window = after(&[OK, OK]);
        let present = Arc::new(loom::sync::atomic::AtomicU64::new(0));
        let (other, now) = (Arc::clone(&window), Arc::clone(&present));
        use loom::sync::atomic::Ordering::{Acquire, Release};
        let there = thread::spawn(move || other.record(0, FAILED, || now.load(Acquire) == 0));
        present.store(1, Release);
        window.begin(1, || true);
        window.record(1, OK, || true);
        there.join().unwrap();
        assert_eq!(window.snapshot(1), counts(1, 0));
    }
}
