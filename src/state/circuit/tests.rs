use std::{
    cell::Cell,
    collections::VecDeque,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
};

use proptest::prelude::*;

use super::*;
use crate::state::sync::{Ops, count};

const OPEN_FOR: Duration = Duration::from_secs(1);

fn config() -> CircuitConfig {
    CircuitConfig {
        consecutive: None,
        count: None,
        time: None,
        slow: false,
        probes: 1,
        successes: 1,
        probe_timeout: Duration::from_secs(60),
        recovery: None,
        stripes: 2,
    }
}

fn consecutive(run: u32) -> Circuit {
    Circuit::new(CircuitConfig { consecutive: NonZeroU32::new(run), ..config() })
}

fn half(min_calls: u32) -> Rates {
    Rates { min_calls, failed: Some(500_000), slow: None }
}

fn secs(seconds: u64) -> Nanos {
    Nanos::new(seconds * 1_000_000_000)
}

/// A circuit with a clock that counts its readings.
struct Bench {
    circuit: Circuit,
    now: Cell<Nanos>,
    reads: Cell<u32>,
}

impl Bench {
    fn new(circuit: Circuit) -> Self {
        Self { circuit, now: Cell::new(secs(1000)), reads: Cell::new(0) }
    }

    fn now(&self) -> Nanos {
        self.reads.set(self.reads.get() + 1);
        self.now.get()
    }

    fn advance(&self, by: Duration) {
        self.now.set(self.now.get().saturating_add(by));
    }

    fn admit(&self) -> Option<Ticket> {
        match self.circuit.admit(|| self.now()) {
            Admission::Admitted(ticket) | Admission::Probe(ticket, _) => Some(ticket),
            Admission::Rejected { .. } => None,
        }
    }

    fn finish(&self, ticket: Ticket, outcome: Outcome) -> Option<Transition> {
        self.circuit.finish(ticket, outcome, false, 0, || self.now(), |flaps| OPEN_FOR * (flaps + 1))
    }

    fn call(&self, outcome: Outcome) -> Option<Transition> {
        let ticket = self.admit().expect("the circuit refuses");
        self.finish(ticket, outcome)
    }
}

#[test]
fn the_cost_contract_holds() {
    let load = |loads| Ops { loads, stores: 0, rmws: 0 };
    let by_count = Bench::new(Circuit::new(CircuitConfig { count: Some((100, half(10))), ..config() }));
    for _ in 0..120 {
        by_count.call(Outcome::Success);
    }
    let (ticket, ops) = count(|| by_count.admit().unwrap());
    assert_eq!(ops, load(1), "admit closed");
    assert_eq!(count(|| by_count.finish(ticket, Outcome::Success)), (None, load(2)), "success, clean");
    assert_eq!(by_count.reads.get(), 0, "a count window needs no clock");
    let (_, ops) = count(|| by_count.call(Outcome::Failure));
    assert!(ops.loads <= 11 && ops.rmws <= 2, "failure, count window: {ops:?}");
    assert_eq!(by_count.reads.get(), 0);

    let run = Bench::new(consecutive(3));
    assert_eq!(count(|| run.call(Outcome::Success)).1, load(2), "admit and success, consecutive");
    let (_, ops) = count(|| run.call(Outcome::Failure));
    assert_eq!(ops, Ops { loads: 2, stores: 0, rmws: 1 }, "failure, consecutive");
    run.call(Outcome::Failure);
    let (tripped, ops) = count(|| run.call(Outcome::Failure));
    assert!(tripped.is_some() && ops.rmws == 1, "the trip is one swap: {ops:?}");
    assert_eq!(run.reads.replace(0), 1, "the clock is read on the trip");
    assert_eq!(count(|| run.admit()), (None, load(1)), "reject open");
    assert_eq!(run.reads.replace(0), 1);
    run.advance(OPEN_FOR);
    let (_, ops) = count(|| run.call(Outcome::Success));
    assert_eq!(ops, Ops { loads: 2, stores: 0, rmws: 2 }, "probe, admit and finish");
    assert_eq!(run.reads.get(), 1);

    let timed = Bench::new(Circuit::new(CircuitConfig { time: Some((secs10(), 10, half(10))), ..config() }));
    let (_, ops) = count(|| timed.call(Outcome::Success));
    assert_eq!(ops, Ops { loads: 3, stores: 0, rmws: 1 }, "success, time window");
    assert_eq!(timed.reads.get(), 1);
}

fn secs10() -> Duration {
    Duration::from_secs(10)
}

// B10
#[test]
fn of_several_rules_the_run_of_failures_is_named_first() {
    let all = CircuitConfig {
        consecutive: NonZeroU32::new(4),
        count: Some((10, half(4))),
        time: Some((secs10(), 10, half(4))),
        ..config()
    };
    let bench = Bench::new(Circuit::new(all));
    (0..3).for_each(|_| assert_eq!(bench.call(Outcome::Failure), None));
    assert_eq!(bench.call(Outcome::Failure).unwrap().cause, Cause::ConsecutiveFailures);
}

// B16, B24, I5
#[test]
fn a_probe_that_never_ends_loses_its_place_to_the_lease() {
    let bench = Bench::new(consecutive(1));
    bench.call(Outcome::Failure);
    bench.advance(OPEN_FOR);
    let silent = bench.admit().unwrap();
    assert!(silent.is_probe());
    assert_eq!(bench.admit(), None, "arms the lease");
    bench.advance(Duration::from_secs(59));
    assert_eq!(bench.admit(), None);
    bench.advance(Duration::from_secs(1));
    let second = bench.admit().expect("the lease is over");
    assert_eq!(bench.finish(silent, Outcome::Failure), None, "the silent one counts no more");
    assert_eq!(bench.finish(second, Outcome::Success).unwrap().to, State::Closed);
}

// B25, B26, B27
#[test]
fn stragglers_count_for_nothing() {
    let bench = Bench::new(consecutive(1));
    let stragglers: Vec<_> = (0..4).map(|_| bench.admit().unwrap()).collect();
    bench.call(Outcome::Failure);
    assert_eq!(bench.finish(stragglers[0], Outcome::Success), None, "does not close");
    assert_eq!(bench.finish(stragglers[1], Outcome::Failure), None, "does not extend");
    bench.advance(OPEN_FOR);
    let probe = bench.admit().unwrap();
    assert_eq!(bench.finish(stragglers[2], Outcome::Success), None, "is not the probe");
    assert_eq!(bench.finish(stragglers[3], Outcome::Failure), None, "is not the probe");
    assert_eq!(bench.finish(probe, Outcome::Success).unwrap().to, State::Closed);
}

#[test]
fn recovery_admits_a_growing_share() {
    let recovery = Some(Duration::from_secs(10));
    let bench = Bench::new(Circuit::new(CircuitConfig { consecutive: NonZeroU32::new(1), recovery, ..config() }));
    bench.call(Outcome::Failure);
    bench.advance(OPEN_FOR);
    bench.call(Outcome::Success);
    let mut shares = Vec::new();
    for _ in 0..10 {
        let admitted = (0..1000).filter(|_| bench.admit().is_some()).count();
        shares.push(admitted);
        bench.advance(Duration::from_secs(1));
    }
    for (second, share) in shares.iter().enumerate() {
        let expected = 100 + 90 * second;
        assert!(share.abs_diff(expected) <= 12, "{share} of 1000 in second {second}, not {expected}");
    }
    // Its clock is coarse: a tick of 17 ms.
    bench.advance(Duration::from_millis(17));
    let before = bench.reads.get();
    assert!(bench.admit().is_some() && bench.admit().is_some());
    assert_eq!(bench.reads.get(), before + 1, "recovered: the mark is gone, and with it the clock");
}

#[test]
fn times_beyond_the_horizon_saturate() {
    let bench = Bench::new(consecutive(1));
    let ticket = bench.admit().unwrap();
    bench.circuit.finish(ticket, Outcome::Failure, false, 0, || secs(1), |_| Duration::MAX);
    bench.now.set(secs(86_400 * 365 * 8));
    assert_eq!(bench.admit(), None);
    bench.now.set(Nanos::MAX);
    assert!(bench.admit().is_some(), "at the end of time it looks again");
    bench.now.set(Nanos::new(0));
    assert_eq!(bench.admit(), None, "one probe only");
}

// B15, B37, I2, I3
#[test]
fn racing_threads_make_one_transition_and_conserve_the_places_of_probes() {
    for _ in 0..200 {
        let circuit =
            Circuit::new(CircuitConfig { consecutive: NonZeroU32::new(3), probes: 2, successes: 3, ..config() });
        let transitions = AtomicUsize::new(0);
        let time = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u64 {
                let (circuit, transitions, time) = (&circuit, &transitions, &time);
                scope.spawn(move || {
                    for step in 0..60_u64 {
                        let now = || Nanos::new(1 << 40).saturating_add(OPEN_FOR * (time.load(SeqCst) / 8));
                        time.fetch_add(1, SeqCst);
                        let ticket = match circuit.admit(now) {
                            Admission::Admitted(ticket) => ticket,
                            Admission::Probe(ticket, transition) => {
                                transitions.fetch_add(usize::from(transition.is_some()), SeqCst);
                                ticket
                            }
                            Admission::Rejected { .. } => continue,
                        };
                        let outcome = match (thread * 7 + step * 3) % 5 {
                            0 | 1 => Outcome::Success,
                            2 => Outcome::Ignored,
                            _ => Outcome::Failure,
                        };
                        let transition = circuit.finish(ticket, outcome, false, 0, now, |_| OPEN_FOR);
                        transitions.fetch_add(usize::from(transition.is_some()), SeqCst);
                    }
                });
            }
        });
        let view = circuit.view(|| Nanos::new(1 << 40));
        assert_eq!(view.probes_in_flight, 0);
        assert_eq!(view.generation, transitions.load(SeqCst) as u64, "every generation has one transition");
    }
}

/// An obviously right circuit: lists, and no packing.
struct Model {
    config: CircuitConfig,
    state: State,
    generation: u64,
    flaps: u32,
    run: u32,
    calls: VecDeque<Sample>,
    timed: Vec<(u64, Sample)>,
    deadline: Nanos,
    probes: u32,
    succeeded: u32,
    lease: Option<Nanos>,
}

impl Model {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.generation += 1;
        (self.run, self.probes, self.succeeded, self.lease) = (0, 0, 0, None);
        self.calls.clear();
        self.timed.clear();
    }

    fn admit(&mut self, now: Nanos) -> Option<bool> {
        match self.state {
            State::Closed | State::Disabled => Some(false),
            State::ForcedOpen => None,
            State::Open if now < self.deadline => None,
            State::Open => {
                self.enter(State::HalfOpen);
                self.probes = 1;
                Some(true)
            }
            State::HalfOpen if self.probes < self.config.probes => {
                self.probes += 1;
                Some(true)
            }
            State::HalfOpen => match self.lease {
                None => {
                    self.lease = Some(now.saturating_add(self.config.probe_timeout));
                    None
                }
                Some(expiry) if now < expiry => None,
                Some(_) => {
                    self.enter(State::HalfOpen);
                    self.probes = 1;
                    Some(true)
                }
            },
        }
    }

    fn open(&mut self, now: Nanos, flaps: u32) {
        self.flaps = flaps;
        self.deadline = now.saturating_add(OPEN_FOR * (flaps + 1));
        self.enter(State::Open);
    }

    fn finish(&mut self, (generation, probe): (u64, bool), outcome: Outcome, slow: bool, now: Nanos) {
        if generation != self.generation {
            return;
        }
        if probe {
            match outcome {
                Outcome::Ignored => self.probes -= 1,
                Outcome::GivenUp if !self.config.slow => self.probes -= 1,
                Outcome::Success if !slow => {
                    (self.probes, self.succeeded) = (self.probes - 1, self.succeeded + 1);
                    self.lease = None;
                    if self.succeeded == self.config.successes {
                        self.flaps = 0;
                        self.enter(State::Closed);
                    }
                }
                Outcome::Success | Outcome::Failure | Outcome::Throttled | Outcome::GivenUp => {
                    self.open(now, (self.flaps + 1).min(15));
                }
            }
            return;
        }
        let slow = self.config.slow && (slow || outcome == Outcome::GivenUp);
        let sample = Sample { failed: matches!(outcome, Outcome::Failure | Outcome::Throttled), slow };
        match outcome {
            Outcome::Ignored => return,
            Outcome::GivenUp if !self.config.slow => return,
            Outcome::Success => self.run = 0,
            Outcome::Failure => self.run += 1,
            Outcome::Throttled | Outcome::GivenUp => {}
        }
        let second = now.get() / 1_000_000_000;
        self.calls.push_back(sample);
        if self.calls.len() > self.config.count.unwrap().0 as usize {
            self.calls.pop_front();
        }
        self.timed.push((second, sample));
        self.timed.retain(|(at, _)| at + 10 > second);
        let due = |rates: Rates, samples: &mut dyn Iterator<Item = Sample>| {
            let samples: Vec<_> = samples.collect();
            let bad = samples.iter().filter(|sample| sample.failed).count() as u64;
            let slow = samples.iter().filter(|sample| sample.slow).count() as u64;
            rates.due(Counts { calls: samples.len() as u64, failed: bad, slow }).is_some()
        };
        let by_run = outcome == Outcome::Failure && self.run >= self.config.consecutive.unwrap().get();
        let by_count = due(self.config.count.unwrap().1, &mut self.calls.iter().copied());
        let by_time = !sample.is_clean() && due(self.config.time.unwrap().2, &mut self.timed.iter().map(|call| call.1));
        if self.state == State::Closed && (by_run || by_count || by_time) {
            self.open(now, self.flaps);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Admit,
    Finish(usize, Outcome, bool),
    Forget(usize),
    Set(State),
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Success),
        5 => Just(Outcome::Failure),
        1 => Just(Outcome::Throttled),
        1 => Just(Outcome::GivenUp),
        1 => Just(Outcome::Ignored)
    ];
    let state = prop_oneof![
        Just(State::Closed),
        Just(State::HalfOpen),
        Just(State::ForcedOpen),
        Just(State::Disabled),
        Just(State::Open)
    ];
    prop_oneof![
        4 => (0_u64..3000).prop_map(Op::Advance),
        12 => Just(Op::Admit),
        12 => (any::<usize>(), outcome, any::<bool>()).prop_map(|(which, outcome, slow)| Op::Finish(which, outcome, slow)),
        1 => any::<usize>().prop_map(Op::Forget),
        1 => state.prop_map(Op::Set),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// The whole circuit, with stale, forgotten and cancelled calls and changes by hand.
    #[test]
    fn it_agrees_with_an_obviously_right_circuit(
        run in 2_u32..8,
        size in 4_u32..40,
        probes in 1_u32..4,
        successes in 1_u32..4,
        slow in any::<bool>(),
        ops in prop::collection::vec(op(), 0..300),
    ) {
        let rates = |failed, slow_rate| Rates { min_calls: 4, failed: Some(failed), slow: slow.then_some(slow_rate) };
        let config = CircuitConfig {
            consecutive: NonZeroU32::new(run),
            count: Some((size, rates(600_000, 700_000))),
            time: Some((secs10(), 10, rates(500_000, 800_000))),
            slow,
            probes,
            successes,
            probe_timeout: Duration::from_secs(5),
            ..config()
        };
        let circuit = Circuit::new(config);
        let mut model = Model {
            config, state: State::Closed, generation: 0, flaps: 0, run: 0, calls: VecDeque::new(), timed: Vec::new(),
            deadline: Nanos::new(0), probes: 0, succeeded: 0, lease: None,
        };
        // Whole ticks, so that rounding does not matter.
        let millis = |millis: u64| Nanos::new((millis * 1_000_000) >> 18 << 18);
        let mut time = 1_000_000;
        let mut tickets: Vec<(Ticket, (u64, bool))> = Vec::new();
        for op in ops {
            let now = millis(time);
            match op {
                Op::Advance(by) => time += by,
                Op::Admit => {
                    let expected = model.admit(now);
                    match circuit.admit(|| now) {
                        Admission::Rejected { .. } => prop_assert_eq!(expected, None),
                        Admission::Admitted(ticket) | Admission::Probe(ticket, _) => {
                            prop_assert_eq!(expected, Some(ticket.is_probe()));
                            tickets.push((ticket, (model.generation, ticket.is_probe())));
                        }
                    }
                }
                Op::Finish(which, outcome, is_slow) if !tickets.is_empty() => {
                    let (ticket, admitted) = tickets.swap_remove(which % tickets.len());
                    let before = (model.state, model.generation);
                    model.finish(admitted, outcome, is_slow && slow, now);
                    let transition = circuit.finish(ticket, outcome, is_slow, which, || now, |flaps| OPEN_FOR * (flaps + 1));
                    prop_assert_eq!(transition.map(|t| (t.from, t.to)), (before.1 != model.generation).then_some((before.0, model.state)));
                }
                Op::Finish(..) => {}
                Op::Forget(which) => if !tickets.is_empty() { tickets.swap_remove(which % tickets.len()); },
                Op::Set(state) => {
                    model.flaps = 0;
                    model.deadline = now.saturating_add(OPEN_FOR);
                    model.enter(state);
                    circuit.set(state, now, OPEN_FOR);
                }
            }
            let view = circuit.view(|| millis(time));
            prop_assert_eq!(view.state, model.state);
            prop_assert_eq!(view.generation, model.generation);
            prop_assert_eq!((view.probes_in_flight, view.probes_succeeded), (model.probes, model.succeeded));
            prop_assert_eq!(view.flaps, model.flaps);
        }
    }
}
