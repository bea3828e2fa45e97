//! A circuit of lists, with what the handle adds to the core: permits, their time, changes by hand, waiting services and
//! what the observer hears.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    task::Poll,
    time::Duration,
};

use proptest::prelude::*;
use tokio_test::task::{self, Spawn};
use tower::{Layer, Service};
use tower_rampart::{
    AsRejection, DefaultClassifier, Verdict,
    circuit_breaker::{CircuitBreaker, CircuitBreakerService, CircuitState as State, Permit},
    clock::{ManualClock, Nanos},
    readiness::Backpressure,
};

use super::{
    paused,
    support::{
        poll_once,
        probe::{Probe, Script},
        recorder::Recorder,
    },
};

/// The unit of time, about a millisecond: open times are kept in quarters of it, so nothing is rounded.
const UNIT: u64 = 1 << 20;

const fn units(units: u64) -> Duration {
    Duration::from_nanos(units * UNIT)
}

const OPEN: u64 = 1000;
const OPEN_MAX: u64 = 6000;
const SLOW: u64 = 500;
const PROBE_TIMEOUT: u64 = 3000;

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Acquire,
    Finish(usize, Verdict),
    Drop(usize),
    Panic(usize),
    Close,
    ForceOpen,
    OpenFor(u64),
    HoldOff(u64),
    HalfOpen,
    Disable,
    /// A new service with backpressure, and those that wait, are polled.
    PollReady,
    RunWaiters,
    /// A service that is ready calls, or is dropped.
    Call(usize),
    DropReady(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let verdict = prop_oneof![
        4 => Just(Verdict::Success),
        4 => Just(Verdict::Failure),
        1 => Just(Verdict::Throttled),
        1 => Just(Verdict::Ignored),
    ];
    prop_oneof![
        6 => (0_u64..1500).prop_map(Op::Advance),
        12 => Just(Op::Acquire),
        12 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Op::Finish(which, verdict)),
        2 => any::<usize>().prop_map(Op::Drop),
        1 => any::<usize>().prop_map(Op::Panic),
        1 => prop_oneof![
            Just(Op::Close),
            Just(Op::ForceOpen),
            (1_u64..3000).prop_map(Op::OpenFor),
            (1_u64..3000).prop_map(Op::HoldOff),
            Just(Op::HalfOpen),
            Just(Op::Disable),
        ],
        3 => Just(Op::PollReady),
        4 => Just(Op::RunWaiters),
        4 => any::<usize>().prop_map(Op::Call),
        2 => any::<usize>().prop_map(Op::DropReady),
    ]
}

#[derive(Clone, Copy, Debug)]
struct Settings {
    run: u32,
    size: usize,
    slow: bool,
    probes: u32,
    successes: u32,
}

const MIN_CALLS: usize = 4;

/// When a call was admitted, in which generation, and whether as a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ticket {
    generation: u64,
    probe: bool,
    at: u64,
}

/// Times are in units.
struct Model {
    settings: Settings,
    state: State,
    generation: u64,
    reopened: u32,
    run: u32,
    /// Failed, slow.
    window: VecDeque<(bool, bool)>,
    deadline: u64,
    probes: u32,
    succeeded: u32,
    lease: Option<u64>,
    heard: Vec<String>,
}

enum Outcome {
    Verdict(Verdict),
    GivenUp,
}

impl Model {
    fn enter(&mut self, state: State, cause: &str) {
        if state != self.state {
            self.heard.push(format!("state {} -> {state}: {cause}", self.state));
        }
        self.state = state;
        self.generation += 1;
        (self.run, self.probes, self.succeeded, self.lease) = (0, 0, 0, None);
        self.window.clear();
    }

    fn by_hand(&mut self, state: State) {
        self.reopened = 0;
        self.enter(state, "manual");
    }

    fn open(&mut self, now: u64, cause: &str) {
        self.deadline = now + (OPEN << self.reopened).min(OPEN_MAX);
        self.enter(State::Open, cause);
    }

    fn admit(&mut self, now: u64) -> Option<Ticket> {
        let probe = match self.state {
            State::Closed | State::Disabled => false,
            State::ForcedOpen => return None,
            State::Open if now < self.deadline => return None,
            State::Open => {
                self.enter(State::HalfOpen, "open_timeout");
                true
            }
            _ if self.probes < self.settings.probes => {
                self.lease = None;
                true
            }
            _ => {
                if now < *self.lease.get_or_insert(now + PROBE_TIMEOUT) {
                    return None;
                }
                // The places of all probes that are silent are free.
                let succeeded = self.succeeded;
                self.enter(State::HalfOpen, "");
                self.succeeded = succeeded;
                true
            }
        };
        self.probes += u32::from(probe);
        Some(Ticket { generation: self.generation, probe, at: now })
    }

    fn give_back(&mut self, ticket: Ticket) {
        if ticket.probe && ticket.generation == self.generation {
            self.probes -= 1;
        }
    }

    /// The verdict is told, whatever it comes to.
    fn finish(&mut self, ticket: Ticket, outcome: Outcome, now: u64) {
        let Settings { run, size, slow, successes, .. } = self.settings;
        let slow = slow && now - ticket.at > SLOW;
        if ticket.generation != self.generation {
            return;
        }
        if ticket.probe {
            match outcome {
                Outcome::Verdict(Verdict::Ignored) => self.probes -= 1,
                Outcome::GivenUp if !slow => self.probes -= 1,
                Outcome::Verdict(Verdict::Success) if !slow => {
                    (self.probes, self.succeeded) = (self.probes - 1, self.succeeded + 1);
                    if self.succeeded == successes {
                        self.reopened = 0;
                        self.enter(State::Closed, "probe_succeeded");
                    }
                }
                _ => {
                    self.reopened += 1;
                    self.open(now, "probe_failed");
                }
            }
            return;
        }
        let failed = match outcome {
            Outcome::Verdict(Verdict::Ignored) => return,
            Outcome::GivenUp if !slow => return,
            Outcome::GivenUp => false,
            Outcome::Verdict(Verdict::Success) => {
                self.run = 0;
                false
            }
            Outcome::Verdict(Verdict::Failure) => {
                self.run += 1;
                true
            }
            Outcome::Verdict(_) => true,
        };
        let by_run = self.run >= run && matches!(outcome, Outcome::Verdict(Verdict::Failure));
        self.window.push_back((failed, slow));
        if self.window.len() > size {
            self.window.pop_front();
        }
        let share =
            |bad: usize, percent: usize| self.window.len() >= MIN_CALLS && bad * 100 >= percent * self.window.len();
        let by_rate = share(self.window.iter().filter(|sample| sample.0).count(), 50);
        let by_slow = self.settings.slow && share(self.window.iter().filter(|sample| sample.1).count(), 75);
        let cause = match () {
            () if self.state != State::Closed => return,
            () if by_run => "consecutive_failures",
            () if by_rate => "failure_rate",
            () if by_slow => "slow_rate",
            () => return,
        };
        self.open(now, cause);
    }

    /// Whether somebody who waits would be let in.
    fn lets_in(&self, now: u64) -> bool {
        match self.state {
            State::Closed | State::Disabled => true,
            State::Open => now >= self.deadline,
            State::HalfOpen => self.probes < self.settings.probes || self.lease.is_some_and(|expiry| now >= expiry),
            _ => false,
        }
    }
}

type Waiting = CircuitBreakerService<Probe, DefaultClassifier, Backpressure>;

struct Course<'a> {
    breaker: &'a CircuitBreaker,
    recorder: Recorder,
    model: Model,
    permits: Vec<(Permit<'a>, Ticket)>,
    waiters: Vec<Spawn<Waiting>>,
    /// With the place that is reserved, if any.
    ready: Vec<(Waiting, Option<Ticket>)>,
    now: u64,
}

impl<'a> Course<'a> {
    fn acquire(&mut self) {
        let (before, now) = (self.model.deadline, self.now);
        let expected = self.model.admit(now);
        let state = self.model.state;
        match (self.breaker.try_acquire(), expected) {
            (Ok(permit), Some(ticket)) => {
                self.model.heard.push("admitted".into());
                self.permits.push((permit, ticket));
            }
            (Err(rejection), None) => {
                self.model.heard.push("rejected circuit_open".into());
                // B14
                let left = (state == State::Open).then(|| units(before - now));
                assert_eq!(rejection.retry_after(), left);
            }
            (got, expected) => panic!("{got:?} where {expected:?} was expected"),
        }
    }

    fn finish(&mut self, which: usize, verdict: Verdict) {
        if !self.permits.is_empty() {
            let (permit, ticket) = self.permits.swap_remove(which % self.permits.len());
            permit.finish(verdict);
            self.model.finish(ticket, Outcome::Verdict(verdict), self.now);
            self.model.heard.push(format!("completed {verdict}"));
        }
    }

    fn drop_permit(&mut self, which: usize) {
        if !self.permits.is_empty() {
            let (permit, ticket) = self.permits.swap_remove(which % self.permits.len());
            drop(permit);
            self.model.finish(ticket, Outcome::GivenUp, self.now);
            self.model.heard.push("cancelled".into());
        }
    }

    fn panic(&mut self, which: usize) {
        if !self.permits.is_empty() {
            let (permit, ticket) = self.permits.swap_remove(which % self.permits.len());
            let panics = AssertUnwindSafe(move || {
                let _permit = permit;
                std::panic::resume_unwind(Box::new("quietly"));
            });
            assert!(catch_unwind(panics).is_err());
            self.model.finish(ticket, Outcome::Verdict(Verdict::Failure), self.now);
            self.model.heard.push("completed failure".into());
        }
    }

    /// Polls a service's readiness.
    fn poll_ready(&mut self, mut service: Spawn<Waiting>) {
        let (state, probes) = (self.model.state, self.model.probes);
        let expected = self.model.admit(self.now);
        match service.enter(|cx, mut service| service.poll_ready(cx)) {
            Poll::Ready(ready) => {
                ready.unwrap();
                let ticket = expected.unwrap_or_else(|| panic!("ready while {state}, with {probes} probes"));
                self.ready.push((service.into_inner(), ticket.probe.then_some(ticket)));
            }
            Poll::Pending => {
                assert!(expected.is_none(), "pending while {state}, with {probes} probes");
                self.waiters.push(service);
            }
        }
    }

    fn call(&mut self, which: usize) {
        if self.ready.is_empty() {
            return;
        }
        let (mut service, reserved) = self.ready.swap_remove(which % self.ready.len());
        let current = reserved.filter(|ticket| ticket.generation == self.model.generation);
        // The place may have been lost; then it is as if nobody had asked before.
        let expected = current.or_else(|| self.model.admit(self.now)).map(|ticket| Ticket { at: self.now, ..ticket });
        let Poll::Ready(result) = poll_once(service.call("request")) else { panic!("pending") };
        match expected {
            Some(ticket) => {
                assert_eq!(result.unwrap(), "ok");
                self.model.heard.push("admitted".into());
                self.model.finish(ticket, Outcome::Verdict(Verdict::Success), self.now);
                self.model.heard.push("completed success".into());
            }
            None => {
                assert!(result.unwrap_err().as_rejection().is_some());
                self.model.heard.push("rejected circuit_open".into());
            }
        }
    }

    fn compare(&mut self) {
        let (snapshot, model) = (self.breaker.snapshot(), &mut self.model);
        assert_eq!((snapshot.state, snapshot.generation), (model.state, model.generation));
        assert_eq!((snapshot.probes_in_flight, snapshot.probes_succeeded), (model.probes, model.succeeded));
        // A run leads to nothing but while closed.
        let run = if model.state == State::Closed { model.run } else { 0 };
        assert_eq!((snapshot.reopened, snapshot.consecutive_failures), (model.reopened.min(15), run));
        let left = (model.state == State::Open).then(|| units(model.deadline.saturating_sub(self.now)));
        assert_eq!(snapshot.open_for, left);
        let window = snapshot.count_window.unwrap();
        if matches!(model.state, State::Closed | State::Disabled) {
            let failed = model.window.iter().filter(|sample| sample.0).count();
            assert_eq!((window.calls, window.failed), (model.window.len() as u64, failed as u64));
        }
        assert_eq!(self.recorder.take(), std::mem::take(&mut model.heard));
        for waiter in &self.waiters {
            assert!(!model.lets_in(self.now) || waiter.is_woken(), "a wake-up is lost");
        }
    }
}

async fn compare(settings: Settings, ops: Vec<Op>) {
    let clock = ManualClock::new();
    let start = 1_000_000;
    clock.set(Nanos::new(start * UNIT));
    let recorder = Recorder::new();
    let mut builder = CircuitBreaker::builder("b")
        .no_time_window()
        .count_window(settings.size as u32)
        .min_calls(MIN_CALLS as u32)
        .failure_rate(0.5)
        .consecutive_failures(settings.run)
        .open_duration(units(OPEN))
        .open_growth(2.0, units(OPEN_MAX))
        .open_jitter(false)
        .probes(settings.probes)
        .probe_successes(settings.successes)
        .probe_timeout(units(PROBE_TIMEOUT))
        .observer(recorder.clone())
        .clock(clock.clone());
    if settings.slow {
        builder = builder.slow_calls(units(SLOW), 0.75);
    }
    let breaker = builder.build().unwrap();
    let (script, probe) = Script::new();
    let model = Model {
        settings,
        state: State::Closed,
        generation: 0,
        reopened: 0,
        run: 0,
        window: VecDeque::new(),
        deadline: start,
        probes: 0,
        succeeded: 0,
        lease: None,
        heard: Vec::new(),
    };
    let mut course = Course {
        breaker: &breaker,
        recorder,
        model,
        permits: Vec::new(),
        waiters: Vec::new(),
        ready: Vec::new(),
        now: start,
    };
    for op in ops {
        match op {
            Op::Advance(by) => {
                course.now += by;
                clock.advance(units(by));
                // Timers are tokio's, and are a millisecond late at most.
                tokio::time::advance(units(by) + Duration::from_millis(2)).await;
            }
            Op::Acquire => course.acquire(),
            Op::Finish(which, verdict) => course.finish(which, verdict),
            Op::Drop(which) => course.drop_permit(which),
            Op::Panic(which) => course.panic(which),
            Op::Close => {
                breaker.close();
                course.model.by_hand(State::Closed);
            }
            Op::ForceOpen => {
                breaker.force_open();
                course.model.by_hand(State::ForcedOpen);
            }
            Op::OpenFor(by) => {
                breaker.open_for(units(by));
                course.model.by_hand(State::Open);
                course.model.deadline = course.now + by;
            }
            Op::HoldOff(by) => {
                breaker.honor_retry_after(units(by));
                if matches!(course.model.state, State::Closed | State::HalfOpen) {
                    course.model.enter(State::Open, "retry_after");
                    course.model.deadline = course.now + by;
                }
            }
            Op::HalfOpen => {
                breaker.half_open();
                course.model.by_hand(State::HalfOpen);
            }
            Op::Disable => {
                breaker.disable();
                course.model.by_hand(State::Disabled);
            }
            Op::PollReady => course.poll_ready(task::spawn(breaker.layer().backpressure().layer(probe.clone()))),
            Op::RunWaiters => {
                for waiter in std::mem::take(&mut course.waiters) {
                    course.poll_ready(waiter);
                }
            }
            Op::Call(which) => course.call(which),
            Op::DropReady(which) => {
                if !course.ready.is_empty() {
                    let (service, reserved) = course.ready.swap_remove(which % course.ready.len());
                    drop(service);
                    if let Some(ticket) = reserved {
                        course.model.give_back(ticket);
                    }
                }
            }
        }
        course.compare();
    }
    // No course leaves it stuck: time alone brings a probe, and probes that are well close it.
    drop((course.permits, course.waiters, course.ready));
    if matches!(breaker.state(), State::ForcedOpen | State::Disabled) {
        breaker.half_open();
    }
    for _ in 0..settings.successes {
        // A success in a window that is bad enough already trips the circuit, rightly.
        if breaker.state() != State::Closed {
            clock.advance(units(OPEN_MAX));
            breaker.try_acquire().unwrap().success();
        }
    }
    assert_eq!(breaker.state(), State::Closed);
    assert_eq!((breaker.snapshot().probes_in_flight, script.live()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    // B2 to B6, B11, B14 to B27, B31, B33, B35 to B38, G8, G23
    #[test]
    fn a_circuit_agrees_with_one_of_lists(
        run in 2_u32..8,
        size in 4_usize..30,
        slow in any::<bool>(),
        probes in 1_u32..4,
        successes in 1_u32..4,
        ops in prop::collection::vec(op(), 0..250),
    ) {
        paused(compare(Settings { run, size, slow, probes, successes }, ops));
    }
}
