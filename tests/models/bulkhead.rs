//! A list of waiters and a count of permits.

use std::{collections::VecDeque, future::Future, pin::Pin, task::Poll, time::Duration};

use futures_util::FutureExt;
use proptest::prelude::*;
use tokio_test::task::{self, Spawn};
use tower::{Layer, Service};
use tower_rampart::{
    Rejection,
    bulkhead::{Bulkhead, BulkheadService, OwnedPermit, Permit},
    readiness::Backpressure,
};

use super::{
    paused,
    support::{
        probe::{Probe, Script},
        recorder::Recorder,
    },
};

const STEP: u64 = 10;
/// Between two steps, so that it is never a matter of a timer's rounding whether it is over.
const WAIT: u64 = 25;
const MAX_QUEUE: usize = 3;

#[derive(Clone, Debug)]
enum Op {
    TryAcquire,
    TryAcquireOwned,
    Acquire,
    /// `poll_ready` of a service with backpressure: waits as long as it takes, and in a queue of any length.
    PollReady,
    Release(usize),
    /// A waiter is dropped, perhaps one that has just been handed a permit.
    GiveUp(usize),
    Resize(u32),
    Advance,
    /// The waiters' tasks run. Until then, what they were handed lies with them.
    RunWaiters,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::TryAcquire),
        1 => Just(Op::TryAcquireOwned),
        4 => Just(Op::Acquire),
        2 => Just(Op::PollReady),
        5 => any::<usize>().prop_map(Op::Release),
        2 => any::<usize>().prop_map(Op::GiveUp),
        1 => (1_u32..6).prop_map(Op::Resize),
        2 => Just(Op::Advance),
        6 => Just(Op::RunWaiters),
    ]
}

/// What is expected.
struct Model {
    limit: u32,
    out: u32,
    /// Those who wait, in order.
    queue: VecDeque<u64>,
    /// Those who were handed a permit and have not run since.
    granted: Vec<u64>,
    heard: Heard,
}

/// What the observer is expected to have heard.
#[derive(Default, Debug, PartialEq)]
struct Heard {
    admitted: usize,
    completed: usize,
    rejected: usize,
    cancelled_waiting: usize,
    waited: usize,
}

impl Model {
    fn may_enter(&self) -> bool {
        self.queue.is_empty() && self.out < self.limit
    }

    fn hand_on(&mut self) {
        while self.out < self.limit
            && let Some(id) = self.queue.pop_front()
        {
            self.out += 1;
            self.granted.push(id);
        }
    }

    fn release(&mut self) {
        self.out -= 1;
        self.hand_on();
    }

    /// Takes the grant of this waiter, if it has one.
    fn take_grant(&mut self, id: u64) -> bool {
        let at = self.granted.iter().position(|granted| *granted == id);
        at.map(|at| self.granted.remove(at)).is_some()
    }
}

type Ready = BulkheadService<Probe, Backpressure>;
type Acquire<'a> = Pin<Box<dyn Future<Output = Result<Permit<'a>, Rejection>> + 'a>>;

/// What is held; only its end is of interest.
#[allow(dead_code)]
enum Held<'a> {
    Permit(Permit<'a>),
    Owned(OwnedPermit),
    /// A service that is ready. Dropping it is the end of no call.
    Ready(Ready),
}

enum Waiter<'a> {
    Acquire { task: Spawn<Acquire<'a>>, until: u64 },
    Ready(Spawn<Ready>),
}

/// What became of a waiter that ran.
enum Ran<'a> {
    Waits(Waiter<'a>),
    Has(Held<'a>),
    Refused(Rejection),
}

impl<'a> Waiter<'a> {
    fn run(self) -> Ran<'a> {
        match self {
            Self::Acquire { mut task, until } => match task.poll() {
                Poll::Ready(Ok(permit)) => Ran::Has(Held::Permit(permit)),
                Poll::Ready(Err(rejection)) => Ran::Refused(rejection),
                Poll::Pending => Ran::Waits(Self::Acquire { task, until }),
            },
            Self::Ready(mut task) => match task.enter(|cx, mut service| service.poll_ready(cx)) {
                Poll::Ready(ready) => {
                    ready.unwrap();
                    Ran::Has(Held::Ready(task.into_inner()))
                }
                Poll::Pending => Ran::Waits(Self::Ready(task)),
            },
        }
    }

    fn is_woken(&self) -> bool {
        match self {
            Self::Acquire { task, .. } => task.is_woken(),
            Self::Ready(task) => task.is_woken(),
        }
    }

    /// Whether its patience is over.
    fn is_late(&self, now: u64) -> bool {
        matches!(self, Self::Acquire { until, .. } if now >= *until)
    }
}

/// The bulkhead, its model, and all who have to do with it.
struct Course<'a> {
    bulkhead: &'a Bulkhead,
    model: Model,
    now: u64,
    next: u64,
    held: Vec<Held<'a>>,
    waiters: Vec<(u64, Waiter<'a>)>,
}

impl<'a> Course<'a> {
    fn try_acquire(&mut self, got: Result<Held<'a>, Rejection>) {
        assert_eq!(got.is_ok(), self.model.may_enter());
        match got {
            Ok(held) => {
                self.model.out += 1;
                self.model.heard.admitted += 1;
                self.held.push(held);
            }
            Err(rejection) => {
                self.model.heard.rejected += 1;
                let Rejection::BulkheadFull { limit, .. } = rejection else { panic!("{rejection}") };
                assert_eq!(limit, self.model.limit);
            }
        }
    }

    /// Somebody comes who is ready to wait, in a queue of at most so many.
    fn join(&mut self, waiter: Waiter<'a>, max_queue: usize) {
        let is_call = matches!(waiter, Waiter::Acquire { .. });
        match waiter.run() {
            Ran::Has(held) => {
                assert!(self.model.may_enter());
                self.model.out += 1;
                self.model.heard.admitted += usize::from(is_call);
                self.held.push(held);
            }
            Ran::Waits(waiter) => {
                assert!(!self.model.may_enter() && self.model.queue.len() < max_queue);
                self.model.queue.push_back(self.next);
                self.waiters.push((self.next, waiter));
                self.next += 1;
            }
            Ran::Refused(rejection) => {
                assert!(!self.model.may_enter() && self.model.queue.len() >= max_queue);
                assert!(matches!(rejection, Rejection::BulkheadFull { .. }), "{rejection}");
                self.model.heard.rejected += 1;
            }
        }
    }

    fn release(&mut self, which: usize) {
        if !self.held.is_empty() {
            let held = self.held.swap_remove(which % self.held.len());
            self.model.heard.completed += usize::from(!matches!(held, Held::Ready(_)));
            drop(held);
            self.model.release();
        }
    }

    fn give_up(&mut self, which: usize) {
        if !self.waiters.is_empty() {
            let (id, waiter) = self.waiters.swap_remove(which % self.waiters.len());
            self.model.heard.cancelled_waiting += usize::from(matches!(waiter, Waiter::Acquire { .. }));
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
            match waiter.run() {
                Ran::Has(held) => {
                    assert!(self.model.take_grant(id), "not its turn");
                    self.model.heard.admitted += usize::from(is_call);
                    self.model.heard.waited += usize::from(is_call);
                    self.held.push(held);
                }
                Ran::Waits(waiter) => {
                    assert!(self.model.queue.contains(&id) && !is_late, "it has a permit, or waits for too long");
                    self.waiters.push((id, waiter));
                }
                Ran::Refused(rejection) => {
                    assert!(is_late && matches!(rejection, Rejection::QueueTimeout { .. }), "{rejection}");
                    assert!(!self.model.take_grant(id), "it had a permit");
                    self.model.queue.retain(|waiting| *waiting != id);
                    self.model.heard.rejected += 1;
                }
            }
        }
    }

    fn compare(&self) {
        let snapshot = self.bulkhead.snapshot();
        assert_eq!((snapshot.in_flight, snapshot.limit), (self.model.out, self.model.limit));
        assert_eq!(snapshot.waiting as usize, self.model.queue.len());
        for (id, waiter) in &self.waiters {
            let should_run = self.model.granted.contains(id) || waiter.is_late(self.now);
            assert!(waiter.is_woken() || !should_run, "a wake-up is lost");
        }
    }
}

async fn compare(limit: u32, ops: Vec<Op>) {
    let recorder = Recorder::new();
    let bulkhead = Bulkhead::builder("k")
        .max_concurrent(limit)
        .max_wait(Duration::from_millis(WAIT))
        .max_queue(MAX_QUEUE as u32)
        .observer(recorder.clone())
        .build()
        .unwrap();
    let model = Model { limit, out: 0, queue: VecDeque::new(), granted: Vec::new(), heard: Heard::default() };
    let mut course = Course { bulkhead: &bulkhead, model, now: 0, next: 0, held: Vec::new(), waiters: Vec::new() };
    for op in ops {
        match op {
            Op::TryAcquire => course.try_acquire(bulkhead.try_acquire().map(Held::Permit)),
            Op::TryAcquireOwned => course.try_acquire(bulkhead.try_acquire_owned().map(Held::Owned)),
            Op::Acquire => {
                let task = task::spawn(bulkhead.acquire().boxed_local());
                course.join(Waiter::Acquire { task, until: course.now + WAIT }, MAX_QUEUE);
            }
            Op::PollReady => {
                let service = bulkhead.layer().backpressure().layer(Script::new().1);
                course.join(Waiter::Ready(task::spawn(service)), usize::MAX);
            }
            Op::Release(which) => course.release(which),
            Op::GiveUp(which) => course.give_up(which),
            Op::Resize(limit) => {
                bulkhead.resize(limit).unwrap();
                course.model.limit = limit;
                course.model.hand_on();
            }
            Op::Advance => {
                tokio::time::advance(Duration::from_millis(STEP)).await;
                course.now += STEP;
            }
            Op::RunWaiters => course.run_waiters(),
        }
        course.compare();
    }
    let Course { held, waiters, mut model, .. } = course;
    model.heard.completed += held.iter().filter(|held| !matches!(held, Held::Ready(_))).count();
    model.heard.cancelled_waiting += waiters.iter().filter(|(_, w)| matches!(w, Waiter::Acquire { .. })).count();
    drop((held, waiters));
    let home = bulkhead.snapshot();
    assert_eq!((home.in_flight, home.waiting), (0, 0), "all permits are home");
    let heard = Heard {
        admitted: recorder.count("admitted"),
        completed: recorder.count("completed"),
        rejected: recorder.count("rejected"),
        cancelled_waiting: recorder.count("cancelled waiting"),
        waited: recorder.count("waited"),
    };
    assert_eq!(heard, model.heard);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    // K1, K11 to K15, K23, K24, G8, G23
    #[test]
    fn a_bulkhead_agrees_with_a_list_of_waiters(limit in 1_u32..5, ops in prop::collection::vec(op(), 0..200)) {
        paused(compare(limit, ops));
    }
}
