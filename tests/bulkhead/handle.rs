//! The handle, without Tower.

use std::{
    sync::atomic::{AtomicU32, Ordering::SeqCst},
    time::Duration,
};

use proptest::prelude::*;
use tokio::time::advance;
use tokio_test::{assert_pending, assert_ready, task};
use tower_rampart::{
    Rejection,
    bulkhead::{Bulkhead, BulkheadBuilder},
};

use crate::support::{BoxError, on_threads, paused, recorder::Recorder};

const WAIT: Duration = Duration::from_millis(100);
const TICK: Duration = Duration::from_millis(1);

fn waiting(limit: u32, queue: u32) -> BulkheadBuilder {
    Bulkhead::builder("db").max_concurrent(limit).max_wait(WAIT).max_queue(queue)
}

fn counts(bulkhead: &Bulkhead) -> (u32, u32) {
    let snapshot = bulkhead.snapshot();
    (snapshot.in_flight, snapshot.waiting)
}

// K1, K2, K3, K20, K21, K22
#[test]
fn it_admits_exactly_the_limit_counted_across_clones() {
    let bulkhead = Bulkhead::new("db", 3).unwrap();
    let clone = bulkhead.clone();
    let permits = [bulkhead.try_acquire().unwrap(), clone.try_acquire().unwrap(), bulkhead.try_acquire().unwrap()];
    let Err(Rejection::BulkheadFull { name, limit, .. }) = clone.try_acquire().map(drop) else {
        panic!("admitted a fourth")
    };
    assert_eq!((name.as_str(), limit), ("db", 3));
    assert!(Bulkhead::new("db", 3).unwrap().try_acquire().is_ok(), "another handle has its own limit");
    drop(permits);
    assert_eq!(counts(&bulkhead), (0, 0));
    let owned = bulkhead.try_acquire_owned().unwrap();
    assert_eq!(counts(&clone), (1, 0));
    std::thread::spawn(move || drop(owned)).join().unwrap();
    assert_eq!(counts(&clone), (0, 0));
}

// K11, K14
#[tokio::test(start_paused = true)]
async fn waiters_are_served_in_order_and_a_dropped_waiter_takes_no_permit() {
    let bulkhead = waiting(1, 10).build().unwrap();
    let first = bulkhead.try_acquire().unwrap();
    let mut waiters: Vec<_> = (0..3).map(|_| task::spawn(bulkhead.acquire())).collect();
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    assert!(bulkhead.try_acquire().is_err());
    assert_eq!(counts(&bulkhead), (1, 3));
    drop(waiters.remove(0));
    assert_eq!(counts(&bulkhead), (1, 2));
    drop(first);
    assert!(waiters[0].is_woken() && !waiters[1].is_woken());
    assert!(bulkhead.try_acquire().is_err(), "a new caller does not overtake waiters");
    let second = assert_ready!(waiters[0].poll()).unwrap();
    drop(second);
    assert!(waiters[1].is_woken());
    drop(assert_ready!(waiters[1].poll()).unwrap());
    assert_eq!(counts(&bulkhead), (0, 0));
}

// K12, K13
#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_in_time_and_length() {
    let bulkhead = waiting(1, 1).build().unwrap();
    let _permit = bulkhead.try_acquire().unwrap();
    let mut waiter = task::spawn(bulkhead.acquire());
    assert_pending!(waiter.poll());
    let full = bulkhead.acquire().await.map(drop);
    assert!(matches!(full, Err(Rejection::BulkheadFull { .. })), "immediately: {full:?}");
    advance(WAIT - TICK).await;
    assert_pending!(waiter.poll());
    advance(TICK * 2).await;
    assert!(waiter.is_woken());
    let late = assert_ready!(waiter.poll()).map(drop);
    assert!(matches!(late, Err(Rejection::QueueTimeout { after, .. }) if after == WAIT), "{late:?}");
    drop(waiter);
    assert_eq!(counts(&bulkhead), (1, 0));
}

// K15
#[tokio::test(start_paused = true)]
async fn a_permit_granted_to_a_dropped_waiter_goes_to_the_next() {
    let bulkhead = waiting(1, 10).build().unwrap();
    let permit = bulkhead.try_acquire().unwrap();
    let mut first = task::spawn(bulkhead.acquire());
    let mut second = task::spawn(bulkhead.acquire());
    assert_pending!(first.poll());
    assert_pending!(second.poll());
    drop(permit);
    assert!(first.is_woken() && !second.is_woken());
    drop(first);
    assert!(second.is_woken());
    drop(assert_ready!(second.poll()).unwrap());
    assert_eq!(counts(&bulkhead), (0, 0));
}

// K23
#[tokio::test(start_paused = true)]
async fn raising_the_limit_admits_waiters_and_lowering_it_revokes_nothing() {
    let bulkhead = waiting(1, 10).build().unwrap();
    let first = bulkhead.try_acquire().unwrap();
    let mut waiters: Vec<_> = (0..3).map(|_| task::spawn(bulkhead.acquire())).collect();
    for waiter in &mut waiters {
        assert_pending!(waiter.poll());
    }
    bulkhead.resize(3).unwrap();
    assert_eq!(counts(&bulkhead), (3, 1));
    let second = assert_ready!(waiters[0].poll()).unwrap();
    let third = assert_ready!(waiters[1].poll()).unwrap();
    bulkhead.resize(1).unwrap();
    assert_eq!(counts(&bulkhead), (3, 1));
    drop(first);
    drop(second);
    assert_pending!(waiters[2].poll());
    assert_eq!(counts(&bulkhead), (1, 1), "no admission above the new limit");
    drop(third);
    drop(assert_ready!(waiters[2].poll()).unwrap());
    assert_eq!(bulkhead.resize(0).unwrap_err().field(), "max_concurrent");
    assert_eq!(bulkhead.snapshot().limit, 1);
}

// K7, K24
#[tokio::test(start_paused = true)]
async fn run_releases_its_permit_and_reports_one_terminal_event_however_it_ends() {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;

    let recorder = Recorder::new();
    let bulkhead = waiting(1, 1).observer(recorder.clone()).build().unwrap();
    bulkhead.run(async { Ok::<_, BoxError>(()) }).await.unwrap();
    assert!(bulkhead.run(async { Err::<(), BoxError>("boom".into()) }).await.is_err());
    let panics = bulkhead.run(async { if true { panic!("deliberate panic") } else { Ok::<_, BoxError>(()) } });
    assert!(AssertUnwindSafe(panics).catch_unwind().await.is_err());
    let mut pending = task::spawn(bulkhead.run(std::future::pending::<Result<(), BoxError>>()));
    assert_pending!(pending.poll());
    let mut queued = task::spawn(bulkhead.run(async { Ok::<_, BoxError>(()) }));
    assert_pending!(queued.poll());
    assert!(bulkhead.run(async { Ok::<_, BoxError>(()) }).await.is_err());
    drop(queued);
    let mut queued = task::spawn(bulkhead.run(async { Ok::<_, BoxError>(()) }));
    assert_pending!(queued.poll());
    advance(TICK * 7).await;
    drop(pending);
    assert!(assert_ready!(queued.poll()).is_ok());
    assert_eq!(counts(&bulkhead), (0, 0));
    assert_eq!(
        recorder.take(),
        [
            "admitted",
            "completed success",
            "admitted",
            "completed failure",
            "admitted",
            "completed failure",
            "admitted",
            "rejected bulkhead_full",
            "cancelled waiting",
            "cancelled",
            "waited 7ms",
            "admitted",
            "completed success",
        ]
    );
}

// K19
#[test]
fn a_configuration_error_names_the_field() {
    assert_eq!(Bulkhead::new("db", 0).unwrap_err().field(), "max_concurrent");
    assert_eq!(waiting(1, 0).build().unwrap_err().field(), "max_queue");
    assert!(Bulkhead::builder("db").max_queue(0).build().is_ok());
    assert_eq!(Bulkhead::queued("db", 0, WAIT).unwrap_err().field(), "max_concurrent");
    let queued = Bulkhead::queued("db", 3, WAIT).unwrap().snapshot();
    assert_eq!((queued.limit, queued.max_queue, queued.max_wait), (3, 3, WAIT));
    assert!(Bulkhead::builder("db").max_wait(Duration::MAX).max_concurrent(u32::MAX).build().is_ok());
}

// K25, K24, G26
#[test]
fn eight_threads_never_exceed_a_changing_limit() {
    let bulkhead = waiting(4, 1000).build().unwrap();
    let (in_flight, peak) = (AtomicU32::new(0), AtomicU32::new(0));
    on_threads(8, |thread| {
        let (bulkhead, in_flight, peak) = (&bulkhead, &in_flight, &peak);
        async move {
            for round in 0..300 {
                if thread == 0 && round % 10 == 0 {
                    bulkhead.resize(2 + round / 10 % 3).unwrap();
                }
                let Ok(permit) = bulkhead.acquire().await else { continue };
                peak.fetch_max(in_flight.fetch_add(1, SeqCst) + 1, SeqCst);
                if round % 3 == 0 {
                    tokio::task::yield_now().await;
                }
                in_flight.fetch_sub(1, SeqCst);
                drop(permit);
            }
        }
    });
    assert_eq!(counts(&bulkhead), (0, 0));
    assert!(peak.load(SeqCst) <= 4, "{peak:?} permits at once");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    // K24
    #[test]
    fn any_sequence_of_operations_releases_all_permits(ops in prop::collection::vec((0_u8..6, any::<usize>()), 0..80)) {
        paused(async {
            let bulkhead = waiting(2, 3).build().unwrap();
            let (mut permits, mut waiters) = (Vec::new(), Vec::new());
            for (op, which) in ops {
                match op {
                    0 => permits.extend(bulkhead.try_acquire()),
                    1 => waiters.push(task::spawn(Box::pin(bulkhead.acquire()))),
                    2 if !permits.is_empty() => drop(permits.swap_remove(which % permits.len())),
                    3 if !waiters.is_empty() => drop(waiters.swap_remove(which % waiters.len())),
                    4 => bulkhead.resize(1 + which as u32 % 4).unwrap(),
                    5 => advance(WAIT / 3).await,
                    _ => {}
                }
                waiters.retain_mut(|waiter| match waiter.poll() {
                    std::task::Poll::Ready(result) => {
                        permits.extend(result);
                        false
                    }
                    std::task::Poll::Pending => true,
                });
                let (in_flight, queued) = counts(&bulkhead);
                assert!(in_flight as usize >= permits.len());
                assert!(queued as usize <= waiters.len());
            }
            drop(permits);
            drop(waiters);
            assert_eq!(counts(&bulkhead), (0, 0));
        });
    }
}

// G24: the waiter has left the queue when its observer learns that its time is over.
#[tokio::test(start_paused = true)]
async fn a_timeout_in_the_queue_is_reported_after_the_waiter_has_left() {
    use std::sync::{Arc, Mutex, OnceLock};

    let (handle, seen) = (Arc::new(OnceLock::<Bulkhead>::new()), Arc::new(Mutex::new(Vec::new())));
    let (observed, counted) = (handle.clone(), seen.clone());
    let observer = move |event: &tower_rampart::Event<'_>| {
        if let (tower_rampart::EventKind::Rejected { .. }, Some(bulkhead)) = (&event.kind, observed.get()) {
            counted.lock().unwrap().push(counts(bulkhead));
        }
    };
    let bulkhead = handle.get_or_init(|| waiting(1, 1).observer(observer).build().unwrap());
    let _permit = bulkhead.try_acquire().unwrap();
    assert!(matches!(bulkhead.acquire().await, Err(Rejection::QueueTimeout { .. })));
    assert_eq!(seen.lock().unwrap()[..], [(1, 0)]);
}
