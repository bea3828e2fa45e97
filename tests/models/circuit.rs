//! A circuit breaker against a circuit made of lists, including what the handle adds to the core:
//! permits and their times, manual changes, waiting services, and events.

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

use super::support::{
    paused, poll_once,
    probe::{Probe, Script},
    recorder::Recorder,
};

/// The unit of time, about a millisecond. The breaker stores open times in quarters of it, so
/// nothing is rounded.
const UNIT: u64 = 1 << 20;

const fn units(units: u64) -> Duration {
    Duration::from_nanos(units * UNIT)
}

const OPEN: u64 = 1000;
const OPEN_MAX: u64 = 6000;
const SLOW: u64 = 500;
const PROBE_TIMEOUT: u64 = 3000;
/// 5 ms, rounded up.
const LAPSE_AFTER: u64 = 5;

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
    HonorRetryAfter(u64),
    HalfOpen,
    Disable,
    /// Polls a new service with backpressure.
    PollReady,
    /// Polls the waiting services.
    RunWaiters,
    /// A ready service makes a call, or is dropped.
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
        5 => (0_u64..1500).prop_map(Op::Advance),
        2 => (0_u64..8).prop_map(Op::Advance),
        12 => Just(Op::Acquire),
        12 => (any::<usize>(), verdict).prop_map(|(which, verdict)| Op::Finish(which, verdict)),
        2 => any::<usize>().prop_map(Op::Drop),
        1 => any::<usize>().prop_map(Op::Panic),
        1 => prop_oneof![
            Just(Op::Close),
            Just(Op::ForceOpen),
            (1_u64..3000).prop_map(Op::OpenFor),
            (1_u64..3000).prop_map(Op::HonorRetryAfter),
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
    consecutive_failures: u32,
    size: usize,
    slow: bool,
    probes: u32,
    successes: u32,
}

const MIN_CALLS: usize = 4;

/// When a call was admitted, in which generation, and whether as a probe.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Admitted {
    generation: u64,
    probe: bool,
    at: u64,
}

/// The reference model. Times are in units.
struct Model {
    settings: Settings,
    state: State,
    generation: u64,
    reopened: u32,
    consecutive_failures: u32,
    /// Whether each call failed, and whether it was slow.
    window: VecDeque<(bool, bool)>,
    deadline: u64,
    probes: u32,
    succeeded: u32,
    lease: Option<u64>,
    /// The probe slots of this state that are reserved and not used, and when they were reserved.
    reserved: VecDeque<(ReservationId, u64)>,
    events: Vec<String>,
}

type ReservationId = u64;

enum Outcome {
    Verdict(Verdict),
    Dropped,
}

impl Model {
    fn enter(&mut self, state: State, cause: &str) {
        if state != self.state {
            self.events.push(format!("state {} -> {state}: {cause}", self.state));
        }
        self.state = state;
        self.generation += 1;
        (self.consecutive_failures, self.probes, self.succeeded, self.lease) = (0, 0, 0, None);
        self.window.clear();
        self.reserved.clear();
    }

    /// Removes a reservation. Returns whether it had not lapsed.
    fn take_reservation(&mut self, id: ReservationId) -> bool {
        let at = self.reserved.iter().position(|(reserved, _)| *reserved == id);
        at.and_then(|at| self.reserved.remove(at)).is_some()
    }

    fn has_lapsed(&self, now: u64) -> bool {
        self.reserved.front().is_some_and(|(_, since)| now >= since + LAPSE_AFTER)
    }

    fn set_manually(&mut self, state: State) {
        self.reopened = 0;
        self.enter(state, "manual");
    }

    fn open(&mut self, now: u64, cause: &str) {
        self.deadline = now + (OPEN << self.reopened).min(OPEN_MAX);
        self.enter(State::Open, cause);
    }

    fn admit(&mut self, now: u64) -> Option<Admitted> {
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
                    if !self.has_lapsed(now) {
                        return None;
                    }
                    // The slot passes from one to the other.
                    self.reserved.pop_front();
                    return Some(Admitted { generation: self.generation, probe: true, at: now });
                }
                // The slots of all silent probes are released.
                let succeeded = self.succeeded;
                self.enter(State::HalfOpen, "");
                self.succeeded = succeeded;
                true
            }
        };
        self.probes += u32::from(probe);
        Some(Admitted { generation: self.generation, probe, at: now })
    }

    fn release(&mut self, admitted: Admitted) {
        if admitted.probe && admitted.generation == self.generation {
            self.probes -= 1;
        }
    }

    /// Records the outcome of an admitted call.
    fn finish(&mut self, admitted: Admitted, outcome: Outcome, now: u64) {
        let Settings { consecutive_failures, size, slow, successes, .. } = self.settings;
        let slow = slow && now - admitted.at > SLOW;
        if admitted.generation != self.generation {
            return;
        }
        if admitted.probe {
            match outcome {
                Outcome::Verdict(Verdict::Ignored) => self.probes -= 1,
                Outcome::Dropped if !slow => self.probes -= 1,
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
            Outcome::Dropped if !slow => return,
            Outcome::Dropped => false,
            Outcome::Verdict(Verdict::Success) => {
                self.consecutive_failures = 0;
                false
            }
            Outcome::Verdict(Verdict::Failure) => {
                self.consecutive_failures += 1;
                true
            }
            Outcome::Verdict(_) => true,
        };
        let by_failures =
            self.consecutive_failures >= consecutive_failures && matches!(outcome, Outcome::Verdict(Verdict::Failure));
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
            () if by_failures => "consecutive_failures",
            () if by_rate => "failure_rate",
            () if by_slow => "slow_rate",
            () => return,
        };
        self.open(now, cause);
    }

    /// Whether a waiter would be admitted.
    fn would_admit(&self, now: u64) -> bool {
        match self.state {
            State::Closed | State::Disabled => true,
            State::Open => now >= self.deadline,
            State::HalfOpen => {
                self.probes < self.settings.probes
                    || self.lease.is_some_and(|expiry| now >= expiry)
                    || self.has_lapsed(now)
            }
            _ => false,
        }
    }
}

type Waiting = CircuitBreakerService<Probe, DefaultClassifier, Backpressure>;

struct Run<'a> {
    breaker: &'a CircuitBreaker,
    recorder: Recorder,
    model: Model,
    permits: Vec<(Permit<'a>, Admitted)>,
    waiters: Vec<Spawn<Waiting>>,
    /// Ready services, with their reserved probe slot if any.
    ready: Vec<(Waiting, Option<(Admitted, ReservationId)>)>,
    next_id: ReservationId,
    now: u64,
}

impl<'a> Run<'a> {
    fn acquire(&mut self) {
        let (before, now) = (self.model.deadline, self.now);
        let expected = self.model.admit(now);
        let state = self.model.state;
        match (self.breaker.try_acquire(), expected) {
            (Ok(permit), Some(admitted)) => {
                self.model.events.push("admitted".into());
                self.permits.push((permit, admitted));
            }
            (Err(rejection), None) => {
                self.model.events.push("rejected circuit_open".into());
                // B14
                let left = (state == State::Open).then(|| units(before - now));
                assert_eq!(rejection.retry_after(), left);
            }
            (got, expected) => panic!("{got:?} where {expected:?} was expected"),
        }
    }

    fn finish(&mut self, which: usize, verdict: Verdict) {
        if !self.permits.is_empty() {
            let (permit, admitted) = self.permits.swap_remove(which % self.permits.len());
            permit.finish(verdict);
            self.model.finish(admitted, Outcome::Verdict(verdict), self.now);
            self.model.events.push(format!("completed {verdict}"));
        }
    }

    fn drop_permit(&mut self, which: usize) {
        if !self.permits.is_empty() {
            let (permit, admitted) = self.permits.swap_remove(which % self.permits.len());
            drop(permit);
            self.model.finish(admitted, Outcome::Dropped, self.now);
            self.model.events.push("cancelled".into());
        }
    }

    fn panic(&mut self, which: usize) {
        if !self.permits.is_empty() {
            let (permit, admitted) = self.permits.swap_remove(which % self.permits.len());
            let panics = AssertUnwindSafe(move || {
                let _permit = permit;
                std::panic::resume_unwind(Box::new("deliberate panic"));
            });
            assert!(catch_unwind(panics).is_err());
            // The panic may be that of other code.
            self.model.finish(admitted, Outcome::Dropped, self.now);
            self.model.events.push("cancelled".into());
        }
    }

    /// Polls a service's readiness.
    fn poll_ready(&mut self, mut service: Spawn<Waiting>) {
        let (state, probes) = (self.model.state, self.model.probes);
        let expected = self.model.admit(self.now);
        match service.enter(|cx, mut service| service.poll_ready(cx)) {
            Poll::Ready(ready) => {
                ready.unwrap();
                let admitted = expected.unwrap_or_else(|| panic!("ready while {state}, with {probes} probes"));
                if admitted.probe {
                    self.model.reserved.push_back((self.next_id, self.now));
                    self.next_id += 1;
                }
                let reserved = admitted.probe.then(|| (admitted, self.next_id - 1));
                self.ready.push((service.into_inner(), reserved));
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
        let current = reserved.filter(|(_, id)| self.model.take_reservation(*id)).map(|(admitted, _)| admitted);
        // Without a current reservation, the call is admitted as if readiness had not been polled.
        let expected =
            current.or_else(|| self.model.admit(self.now)).map(|admitted| Admitted { at: self.now, ..admitted });
        let Poll::Ready(result) = poll_once(service.call("request")) else { panic!("pending") };
        match expected {
            Some(admitted) => {
                assert_eq!(result.unwrap(), "ok");
                self.model.events.push("admitted".into());
                self.model.finish(admitted, Outcome::Verdict(Verdict::Success), self.now);
                self.model.events.push("completed success".into());
            }
            None => {
                assert!(result.unwrap_err().as_rejection().is_some());
                self.model.events.push("rejected circuit_open".into());
            }
        }
    }

    fn compare(&mut self) {
        let (snapshot, model) = (self.breaker.snapshot(), &mut self.model);
        assert_eq!((snapshot.state, snapshot.generation), (model.state, model.generation));
        assert_eq!((snapshot.probes_in_flight, snapshot.probes_succeeded), (model.probes, model.succeeded));
        // Consecutive failures are counted only while closed.
        let failures = if model.state == State::Closed { model.consecutive_failures } else { 0 };
        assert_eq!((snapshot.reopened, snapshot.consecutive_failures), (model.reopened.min(15), failures));
        let left = (model.state == State::Open).then(|| units(model.deadline.saturating_sub(self.now)));
        assert_eq!(snapshot.open_for, left);
        let window = snapshot.count_window.unwrap();
        if matches!(model.state, State::Closed | State::Disabled) {
            let failed = model.window.iter().filter(|sample| sample.0).count();
            assert_eq!((window.calls, window.failed), (model.window.len() as u64, failed as u64));
        }
        assert_eq!(self.recorder.take(), std::mem::take(&mut model.events));
        for waiter in &self.waiters {
            assert!(!model.would_admit(self.now) || waiter.is_woken(), "a wakeup is lost");
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
        .consecutive_failures(settings.consecutive_failures)
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
        consecutive_failures: 0,
        window: VecDeque::new(),
        deadline: start,
        probes: 0,
        succeeded: 0,
        lease: None,
        reserved: VecDeque::new(),
        events: Vec::new(),
    };
    let mut run = Run {
        breaker: &breaker,
        recorder,
        model,
        permits: Vec::new(),
        waiters: Vec::new(),
        ready: Vec::new(),
        next_id: 0,
        now: start,
    };
    for op in ops {
        match op {
            Op::Advance(by) => {
                run.now += by;
                clock.advance(units(by));
                // Tokio's timers are at most a millisecond late.
                tokio::time::advance(units(by) + Duration::from_millis(2)).await;
            }
            Op::Acquire => run.acquire(),
            Op::Finish(which, verdict) => run.finish(which, verdict),
            Op::Drop(which) => run.drop_permit(which),
            Op::Panic(which) => run.panic(which),
            Op::Close => {
                breaker.close();
                run.model.set_manually(State::Closed);
            }
            Op::ForceOpen => {
                breaker.force_open();
                run.model.set_manually(State::ForcedOpen);
            }
            Op::OpenFor(by) => {
                breaker.open_for(units(by));
                run.model.set_manually(State::Open);
                run.model.deadline = run.now + by;
            }
            Op::HonorRetryAfter(by) => {
                breaker.honor_retry_after(units(by));
                if matches!(run.model.state, State::Closed | State::HalfOpen) {
                    run.model.enter(State::Open, "retry_after");
                    run.model.deadline = run.now + by;
                }
            }
            Op::HalfOpen => {
                breaker.half_open();
                run.model.set_manually(State::HalfOpen);
            }
            Op::Disable => {
                breaker.disable();
                run.model.set_manually(State::Disabled);
            }
            Op::PollReady => run.poll_ready(task::spawn(breaker.layer().backpressure().layer(probe.clone()))),
            Op::RunWaiters => {
                for waiter in std::mem::take(&mut run.waiters) {
                    run.poll_ready(waiter);
                }
            }
            Op::Call(which) => run.call(which),
            Op::DropReady(which) => {
                if !run.ready.is_empty() {
                    let (service, reserved) = run.ready.swap_remove(which % run.ready.len());
                    drop(service);
                    if let Some((admitted, id)) = reserved
                        && run.model.take_reservation(id)
                    {
                        run.model.release(admitted);
                    }
                }
            }
        }
        run.compare();
    }
    // The circuit is never stuck: time alone admits a probe, and successful probes close it.
    drop((run.permits, run.waiters, run.ready));
    if matches!(breaker.state(), State::ForcedOpen | State::Disabled) {
        breaker.half_open();
    }
    for _ in 0..settings.successes {
        // A success can trip the circuit if the window is already above the rate.
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
    fn a_circuit_breaker_matches_a_circuit_of_lists(
        consecutive_failures in 2_u32..8,
        size in 4_usize..30,
        slow in any::<bool>(),
        probes in 1_u32..4,
        successes in 1_u32..4,
        ops in prop::collection::vec(op(), 0..250),
    ) {
        paused(compare(Settings { consecutive_failures, size, slow, probes, successes }, ops));
    }
}
