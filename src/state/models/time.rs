//! Models of the time window, with two buckets.

use std::time::Duration;

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{
    time::Nanos,
    window::{Counts, Rates, Sample, time::TimeWindow},
};

const OK: Sample = Sample { failed: false, slow: false };
const FAILED: Sample = Sample { failed: true, slow: false };
/// So short that a call which is a lap late is not taken for one of a clock that went back.
const WIDTH: Duration = Duration::from_millis(100);
/// A thread without cells of its own.
const NONE: usize = usize::MAX;

/// A window that trips when this many calls have failed, and no other.
fn window(bad: u32) -> Arc<TimeWindow> {
    let rates = Rates { min_calls: bad, failed: Some(1_000_000), slow: None };
    Arc::new(TimeWindow::new(2 * WIDTH, 2, 1, rates))
}

/// A time in the bucket with this number.
fn at(bucket: u64) -> Nanos {
    Nanos::new((1 << 40) / 1_000_000_000 * 1_000_000_000).saturating_add(WIDTH * bucket as u32)
}

fn record(window: &TimeWindow, sample: Sample, bucket: u64, thread: usize) -> Option<Counts> {
    window.record(0, sample, at(bucket), thread, || true)
}

fn counts(calls: u64, failed: u64) -> Counts {
    Counts { calls, failed, slow: 0 }
}

model! {
    /// time.I1: two failures that concurrently clear an old bucket are both counted.
    no_failure_is_lost_as_a_bucket_begins, preemptions: None, refuted by [SplitSwap], {
        let window = window(9);
        record(&window, FAILED, 0, NONE);
        let other = Arc::clone(&window);
        // The same cell, one lap later.
        let there = thread::spawn(move || { record(&other, FAILED, 2, NONE); });
        record(&window, FAILED, 2, NONE);
        there.join().unwrap();
        assert_eq!(window.snapshot(0, at(2)), counts(2, 2));
    }
}

model! {
    /// time.I1, time.I2: a call that is late by a lap counts in the bucket that its cell has
    /// reached.
    a_call_a_lap_late_loses_nothing, preemptions: None, refuted by [SplitSwap], {
        let window = window(9);
        let other = Arc::clone(&window);
        let there = thread::spawn(move || { record(&other, FAILED, 0, NONE); });
        record(&window, FAILED, 2, NONE);
        there.join().unwrap();
        let now = window.snapshot(0, at(2));
        assert!(now == counts(1, 1) || now == counts(2, 2), "{now:?}");
    }
}

model! {
    /// time.I1, time.I5: clean calls of a thread with cells of its own and of two without are all
    /// counted as a bucket begins.
    every_clean_call_counts, preemptions: None, refuted by [SplitSwap], {
        let window = window(9);
        record(&window, OK, 0, 0);
        record(&window, OK, 0, NONE);
        let [one, two] = [(); 2].map(|()| Arc::clone(&window));
        let one = thread::spawn(move || { record(&one, OK, 2, NONE); });
        let two = thread::spawn(move || { record(&two, OK, 2, NONE); });
        record(&window, OK, 2, 0);
        one.join().unwrap();
        two.join().unwrap();
        assert_eq!(window.snapshot(0, at(2)), counts(3, 0));
    }
}

model! {
    /// time.I3: one of two concurrent failures that make a trip due sees it.
    a_due_trip_is_seen, preemptions: None, refuted by [SplitSwap, Relaxed], {
        let window = window(2);
        let other = Arc::clone(&window);
        let due = |window: &TimeWindow, seen: Option<Counts>| seen.is_some_and(|seen| window.rates().trip_cause(seen).is_some());
        let there = thread::spawn(move || {
            let seen = record(&other, FAILED, 0, NONE);
            due(&other, seen)
        });
        let seen = record(&window, FAILED, 0, NONE);
        let here = due(&window, seen);
        assert!(here || there.join().unwrap());
    }
}

model! {
    /// time.I3: the same for three, one of them a bucket behind and one the first of its bucket.
    a_due_trip_is_seen_across_buckets, preemptions: Some(3), refuted by [SplitSwap], {
        let window = window(3);
        let due = |window: &TimeWindow, bucket| {
            record(window, FAILED, bucket, NONE).is_some_and(|seen| window.rates().trip_cause(seen).is_some())
        };
        let [one, two] = [(); 2].map(|()| Arc::clone(&window));
        let one = thread::spawn(move || due(&one, 0));
        let two = thread::spawn(move || due(&two, 1));
        let seen = due(&window, 1);
        let seen = [seen, one.join().unwrap(), two.join().unwrap()];
        assert!(seen.contains(&true), "three failures of three calls");
    }
}

model! {
    /// time.I2: a call of an earlier generation never counts in a later one.
    an_older_generation_never_counts, preemptions: None, refuted by [SplitSwap], {
        use loom::sync::atomic::{AtomicU64, Ordering::{Acquire, Release}};

        let window = window(9);
        record(&window, FAILED, 0, NONE);
        let current = Arc::new(AtomicU64::new(0));
        let (other, now) = (Arc::clone(&window), Arc::clone(&current));
        let there = thread::spawn(move || {
            other.record(0, FAILED, at(0), NONE, || now.load(Acquire) == 0);
        });
        current.store(1, Release);
        window.record(1, FAILED, at(0), NONE, || true);
        there.join().unwrap();
        assert_eq!(window.snapshot(1, at(0)), counts(1, 1));
    }
}
