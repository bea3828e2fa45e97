//! A bulkhead against a list of waiters and a count of permits.

use std::{collections::VecDeque, future::Future, pin::Pin, task::Poll, time::Duration};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio_test::task::{self, Spawn};
use tower::{Layer, Service};
use tower_rampart::{
    Rejection,
    bulkhead::{Bulkhead, BulkheadService, OwnedPermit, Permit},
    clock::ManualClock,
    readiness::Backpressure,
};

use super::support::{
    paused,
    probe::{Probe, Script},
    recorder::Recorder,
};

const STEP: u64 = 10;
/// Between two steps, so that the rounding of timers never decides whether it is over.
const MAX_WAIT: u64 = 25;
const MAX_QUEUE: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    TryAcquire,
    TryAcquireOwned,
    Acquire,
    /// `poll_ready` of a service with backpressure, whose wait and queue are not bounded.
    PollReady,
    Release(usize),
    /// Drops a waiter, possibly one that was just granted a permit.
    DropWaiter(usize),
    Resize(u32),
    Advance,
    /// Runs the waiters' tasks, which take up their grants.
    RunWaiters,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::TryAcquire),
        1 => Just(Op::TryAcquireOwned),
        4 => Just(Op::Acquire),
        2 => Just(Op::PollReady),
        5 => any::<usize>().prop_map(Op::Release),
        2 => any::<usize>().prop_map(Op::DropWaiter),
        1 => (1_u32..6).prop_map(Op::Resize),
        2 => Just(Op::Advance),
        6 => Just(Op::RunWaiters),
    ]
}

/// The reference model.
struct Model {
    limit: u32,
    in_flight: u32,
    /// Waiters in order of arrival.
    queue: VecDeque<u64>,
    /// Waiters that were granted a permit and have not run since.
    granted: Vec<u64>,
    events: Events,
}

/// Counts of events.
#[derive(Default, Debug, PartialEq)]
struct Events {
    admitted: usize,
    completed: usize,
    rejected: usize,
    cancelled_waiting: usize,
    waited: usize,
}

impl Model {
    fn admits(&self) -> bool {
        self.queue.is_empty() && self.in_flight < self.limit
    }

    fn grant(&mut self) {
        while self.in_flight < self.limit
            && let Some(id) = self.queue.pop_front()
        {
            self.in_flight += 1;
            self.granted.push(id);
        }
    }

    fn release(&mut self) {
        self.in_flight -= 1;
        self.grant();
    }

    /// Takes this waiter's grant, if it has one.
    fn take_grant(&mut self, id: u64) -> bool {
        let at = self.granted.iter().position(|granted| *granted == id);
        at.map(|at| self.granted.remove(at)).is_some()
    }
}

type Ready = BulkheadService<Probe, Backpressure>;
type Acquire<'a> = Pin<Box<dyn Future<Output = Result<Permit<'a>, Rejection>> + 'a>>;

/// A permit in use.
#[allow(dead_code)] // held only to be dropped
enum Held<'a> {
    Permit(Permit<'a>),
    Owned(OwnedPermit),
    /// A ready service. Dropping it ends no call.
    Ready(Ready),
}

enum Waiter<'a> {
    Acquire { task: Spawn<Acquire<'a>>, until: u64 },
    Ready(Spawn<Ready>),
}

/// The outcome of polling a waiter.
enum Polled<'a> {
    Pending(Waiter<'a>),
    Admitted(Held<'a>),
    Rejected(Rejection),
}

impl<'a> Waiter<'a> {
    fn poll(self) -> Polled<'a> {
        match self {
            Self::Acquire { mut task, until } => match task.poll() {
                Poll::Ready(Ok(permit)) => Polled::Admitted(Held::Permit(permit)),
                Poll::Ready(Err(rejection)) => Polled::Rejected(rejection),
                Poll::Pending => Polled::Pending(Self::Acquire { task, until }),
            },
            Self::Ready(mut task) => match task.enter(|cx, mut service| service.poll_ready(cx)) {
                Poll::Ready(ready) => {
                    ready.unwrap();
                    Polled::Admitted(Held::Ready(task.into_inner()))
                }
                Poll::Pending => Polled::Pending(Self::Ready(task)),
            },
        }
    }

    fn is_woken(&self) -> bool {
        match self {
            Self::Acquire { task, .. } => task.is_woken(),
            Self::Ready(task) => task.is_woken(),
        }
    }

    /// Whether its maximum wait has passed.
    fn is_late(&self, now: u64) -> bool {
        matches!(self, Self::Acquire { until, .. } if now >= *until)
    }
}

/// The bulkhead, its model, and all permits and waiters.
struct Run<'a> {
    bulkhead: &'a Bulkhead,
    model: Model,
    now: u64,
    next: u64,
    held: Vec<Held<'a>>,
    waiters: Vec<(u64, Waiter<'a>)>,
}

impl<'a> Run<'a> {
    fn try_acquire(&mut self, got: Result<Held<'a>, Rejection>) {
        assert_eq!(got.is_ok(), self.model.admits());
        match got {
            Ok(held) => {
                self.model.in_flight += 1;
                self.model.events.admitted += 1;
                self.held.push(held);
            }
            Err(rejection) => {
                self.model.events.rejected += 1;
                let Rejection::BulkheadFull { limit, .. } = rejection else { panic!("{rejection}") };
                assert_eq!(limit, self.model.limit);
            }
        }
    }

    /// A caller that can wait arrives; the queue holds at most `max_queue` waiters.
    fn join(&mut self, waiter: Waiter<'a>, max_queue: usize) {
        let is_call = matches!(waiter, Waiter::Acquire { .. });
        match waiter.poll() {
            Polled::Admitted(held) => {
                assert!(self.model.admits());
                self.model.in_flight += 1;
                self.model.events.admitted += usize::from(is_call);
                self.held.push(held);
            }
            Polled::Pending(waiter) => {
                assert!(!self.model.admits() && self.model.queue.len() < max_queue);
                self.model.queue.push_back(self.next);
                self.waiters.push((self.next, waiter));
                self.next += 1;
            }
            Polled::Rejected(rejection) => {
                assert!(!self.model.admits() && self.model.queue.len() >= max_queue);
                assert!(matches!(rejection, Rejection::BulkheadFull { .. }), "{rejection}");
                self.model.events.rejected += 1;
            }
        }
    }

    fn release(&mut self, which: usize) {
        if !self.held.is_empty() {
            let held = self.held.swap_remove(which % self.held.len());
            self.model.events.completed += usize::from(!matches!(held, Held::Ready(_)));
            drop(held);
            self.model.release();
        }
    }

    fn drop_waiter(&mut self, which: usize) {
        if !self.waiters.is_empty() {
            let (id, waiter) = self.waiters.swap_remove(which % self.waiters.len());
            self.model.events.cancelled_waiting += usize::from(matches!(waiter, Waiter::Acquire { .. }));
            drop(waiter);
            if self.model.take_grant(id) {
                self.model.release();
            } else {
                self.model.queue.retain(|waiting| *waiting != id);
            }
        }
    }

    fn run_waiters(&mut self) {
        for (id, waiter) in std::mem::take(&mut self.waiters) {
            let (is_call, is_late) = (matches!(waiter, Waiter::Acquire { .. }), waiter.is_late(self.now));
            match waiter.poll() {
                Polled::Admitted(held) => {
                    assert!(self.model.take_grant(id), "not its turn");
                    self.model.events.admitted += usize::from(is_call);
                    self.model.events.waited += usize::from(is_call);
                    self.held.push(held);
                }
                Polled::Pending(waiter) => {
                    assert!(self.model.queue.contains(&id) && !is_late, "it has a permit, or has waited too long");
                    self.waiters.push((id, waiter));
                }
                Polled::Rejected(rejection) => {
                    assert!(is_late && matches!(rejection, Rejection::QueueTimeout { .. }), "{rejection}");
                    assert!(!self.model.take_grant(id), "it had a permit");
                    self.model.queue.retain(|waiting| *waiting != id);
                    self.model.events.rejected += 1;
                }
            }
        }
    }

    fn compare(&self) {
        let snapshot = self.bulkhead.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.limit), (self.model.in_flight, self.model.limit));
        assert_eq!(snapshot.waiting as usize, self.model.queue.len());
        for (id, waiter) in &self.waiters {
            let should_run = self.model.granted.contains(id) || waiter.is_late(self.now);
            assert!(waiter.is_woken() || !should_run, "a wakeup is lost");
        }
    }
}

async fn compare(limit: u32, ops: Vec<Op>) {
    let recorder = Recorder::new();
    let bulkhead = Bulkhead::builder("k")
        .max_concurrent(limit)
        .max_wait(Duration::from_millis(MAX_WAIT))
        .max_queue(MAX_QUEUE as u32)
        .observer(recorder.clone())
        // Reservations do not lapse: that is the business of `tests/bulkhead/idle.rs`.
        .clock(ManualClock::new())
        .build()
        .unwrap();
    let model = Model { limit, in_flight: 0, queue: VecDeque::new(), granted: Vec::new(), events: Events::default() };
    let mut run = Run { bulkhead: &bulkhead, model, now: 0, next: 0, held: Vec::new(), waiters: Vec::new() };
    for op in ops {
        match op {
            Op::TryAcquire => run.try_acquire(bulkhead.try_acquire().map(Held::Permit)),
            Op::TryAcquireOwned => run.try_acquire(bulkhead.try_acquire_owned().map(Held::Owned)),
            Op::Acquire => {
                let task = task::spawn(bulkhead.acquire().boxed_local());
                run.join(Waiter::Acquire { task, until: run.now + MAX_WAIT }, MAX_QUEUE);
            }
            Op::PollReady => {
                let service = bulkhead.layer().backpressure().layer(Script::new().1);
                run.join(Waiter::Ready(task::spawn(service)), usize::MAX);
            }
            Op::Release(which) => run.release(which),
            Op::DropWaiter(which) => run.drop_waiter(which),
            Op::Resize(limit) => {
                bulkhead.resize(limit).unwrap();
                run.model.limit = limit;
                run.model.grant();
            }
            Op::Advance => {
                tokio::time::advance(Duration::from_millis(STEP)).await;
                run.now += STEP;
            }
            Op::RunWaiters => run.run_waiters(),
        }
        run.compare();
    }
    let Run { held, waiters, mut model, .. } = run;
    model.events.completed += held.iter().filter(|held| !matches!(held, Held::Ready(_))).count();
    model.events.cancelled_waiting += waiters.iter().filter(|(_, w)| matches!(w, Waiter::Acquire { .. })).count();
    drop((held, waiters));
    let snapshot = bulkhead.snapshot();
    assert_eq!((snapshot.in_flight, snapshot.waiting), (0, 0), "all permits are released");
    let events = Events {
        admitted: recorder.count("admitted"),
        completed: recorder.count("completed"),
        rejected: recorder.count("rejected"),
        cancelled_waiting: recorder.count("cancelled waiting"),
        waited: recorder.count("waited"),
    };
    assert_eq!(events, model.events);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // K1, K11 to K15, K23, K24, G8, G23
    #[test]
    fn a_bulkhead_matches_a_list_of_waiters(limit in 1_u32..5, ops in prop::collection::vec(op(), 0..200)) {
        paused(compare(limit, ops));
    }
}
