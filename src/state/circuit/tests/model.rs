use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;
use crate::state::window::Sample;

/// About a second, in whole ticks, so that rounding does not matter.
const SECOND: Duration = Duration::from_nanos(1000 << 20);

/// A reference circuit: lists, and no packing.
struct ReferenceCircuit {
    config: CircuitConfig,
    state: CircuitState,
    generation: u64,
    reopen_count: u32,
    consecutive_failures: u32,
    calls: VecDeque<Sample>,
    timed: Vec<(u64, Sample)>,
    deadline: Nanos,
    probes: u32,
    succeeded: u32,
    lease: Option<Nanos>,
}

impl ReferenceCircuit {
    fn new(config: CircuitConfig) -> Self {
        Self {
            config,
            state: CircuitState::Closed,
            generation: 0,
            reopen_count: 0,
            consecutive_failures: 0,
            calls: VecDeque::new(),
            timed: Vec::new(),
            deadline: Nanos::new(0),
            probes: 0,
            succeeded: 0,
            lease: None,
        }
    }

    fn set(&mut self, state: CircuitState, now: Nanos) {
        self.reopen_count = 0;
        self.deadline = now.saturating_add(SECOND);
        self.enter(state);
    }

    fn enter(&mut self, state: CircuitState) {
        self.state = state;
        self.generation += 1;
        (self.consecutive_failures, self.probes, self.succeeded, self.lease) = (0, 0, 0, None);
        self.calls.clear();
        self.timed.clear();
    }

    fn admit(&mut self, now: Nanos) -> Option<bool> {
        match self.state {
            CircuitState::Closed | CircuitState::Disabled => Some(false),
            CircuitState::ForcedOpen => None,
            CircuitState::Open if now < self.deadline => None,
            CircuitState::Open => {
                self.enter(CircuitState::HalfOpen);
                self.probes = 1;
                Some(true)
            }
            CircuitState::HalfOpen if self.probes < self.config.probes => {
                self.probes += 1;
                self.lease = None;
                Some(true)
            }
            CircuitState::HalfOpen => match self.lease {
                None => {
                    self.lease = Some(now.saturating_add(self.config.probe_timeout));
                    None
                }
                Some(expiry) if now < expiry => None,
                Some(_) => {
                    let succeeded = self.succeeded;
                    self.enter(CircuitState::HalfOpen);
                    (self.probes, self.succeeded) = (1, succeeded);
                    Some(true)
                }
            },
        }
    }

    fn open(&mut self, now: Nanos, reopen_count: u32) {
        self.reopen_count = reopen_count;
        self.deadline = now.saturating_add(SECOND * (reopen_count + 1));
        self.enter(CircuitState::Open);
    }

    fn finish(&mut self, (generation, probe): (u64, bool), outcome: Outcome, slow: bool, now: Nanos) {
        if generation != self.generation {
            return;
        }
        if probe {
            match outcome {
                Outcome::Ignored => self.probes -= 1,
                Outcome::CancelledSlow if !self.config.slow => self.probes -= 1,
                Outcome::Success if !slow => {
                    (self.probes, self.succeeded) = (self.probes - 1, self.succeeded + 1);
                    if self.succeeded == self.config.successes {
                        self.reopen_count = 0;
                        self.enter(CircuitState::Closed);
                    }
                }
                Outcome::Success | Outcome::Failure | Outcome::Throttled | Outcome::CancelledSlow => {
                    self.open(now, (self.reopen_count + 1).min(15));
                }
            }
            return;
        }
        let slow = self.config.slow && (slow || outcome == Outcome::CancelledSlow);
        let sample = Sample { failed: matches!(outcome, Outcome::Failure | Outcome::Throttled), slow };
        match outcome {
            Outcome::Ignored => return,
            Outcome::CancelledSlow if !self.config.slow => return,
            Outcome::Success => self.consecutive_failures = 0,
            Outcome::Failure => self.consecutive_failures += 1,
            Outcome::Throttled | Outcome::CancelledSlow => {}
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
            rates.trip_cause(Counts { calls: samples.len() as u64, failed: bad, slow }).is_some()
        };
        let by_consecutive =
            outcome == Outcome::Failure && self.consecutive_failures >= self.config.consecutive.unwrap().get();
        let by_count = due(self.config.count.unwrap().1, &mut self.calls.iter().copied());
        let by_time = !sample.is_clean() && due(self.config.time.unwrap().2, &mut self.timed.iter().map(|call| call.1));
        if self.state == CircuitState::Closed && (by_consecutive || by_count || by_time) {
            self.open(now, self.reopen_count);
        }
    }
}

#[derive(Clone, Debug)]
enum Op {
    Advance(u64),
    Admit,
    Finish(usize, Outcome, bool),
    Forget(usize),
    Set(CircuitState),
}

fn op() -> impl Strategy<Value = Op> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Success),
        5 => Just(Outcome::Failure),
        1 => Just(Outcome::Throttled),
        1 => Just(Outcome::CancelledSlow),
        1 => Just(Outcome::Ignored)
    ];
    let state = prop_oneof![
        Just(CircuitState::Closed),
        Just(CircuitState::HalfOpen),
        Just(CircuitState::ForcedOpen),
        Just(CircuitState::Disabled),
        Just(CircuitState::Open)
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

    /// The whole circuit, with stale, lost and cancelled calls and manual changes.
    #[test]
    fn circuit_matches_the_reference(
        limit in 2_u32..8,
        size in 4_u32..40,
        probes in 1_u32..4,
        successes in 1_u32..4,
        slow in any::<bool>(),
        ops in prop::collection::vec(op(), 0..300),
    ) {
        let rates = |failed, slow_rate| Rates { min_calls: 4, failed: Some(failed), slow: slow.then_some(slow_rate) };
        let config = CircuitConfig {
            consecutive: NonZeroU32::new(limit),
            count: Some((size, rates(600_000, 700_000))),
            time: Some((secs10(), 10, rates(500_000, 800_000))),
            slow,
            probes,
            successes,
            probe_timeout: 5 * SECOND,
            ..config()
        };
        let circuit = Circuit::new(config);
        let mut reference = ReferenceCircuit::new(config);
        let millis = |millis: u64| Nanos::new(millis << 20);
        let mut time = 1_000_000;
        let mut in_flight_calls: Vec<(Admitted, (u64, bool))> = Vec::new();
        for op in ops {
            let now = millis(time);
            match op {
                Op::Advance(by) => time += by,
                Op::Admit => {
                    let expected = reference.admit(now);
                    match circuit.admit(|| now) {
                        Admission::Rejected { .. } | Admission::RejectedInRecovery { .. } => {
                            prop_assert_eq!(expected, None);
                        }
                        Admission::Admitted(admitted) | Admission::Probe(admitted, _) => {
                            prop_assert_eq!(expected, Some(admitted.is_probe()));
                            in_flight_calls.push((admitted, (reference.generation, admitted.is_probe())));
                        }
                    }
                }
                Op::Finish(which, outcome, is_slow) if !in_flight_calls.is_empty() => {
                    let (admitted, by_reference) = in_flight_calls.swap_remove(which % in_flight_calls.len());
                    let before = (reference.state, reference.generation);
                    reference.finish(by_reference, outcome, is_slow && slow, now);
                    let transition = circuit.finish(admitted, outcome, is_slow, || which, || now, |reopen_count| SECOND * (reopen_count + 1));
                    prop_assert_eq!(transition.map(|t| (t.from, t.to)), (before.1 != reference.generation).then_some((before.0, reference.state)));
                }
                Op::Forget(which) if !in_flight_calls.is_empty() => drop(in_flight_calls.swap_remove(which % in_flight_calls.len())),
                Op::Finish(..) | Op::Forget(_) => {}
                Op::Set(state) => {
                    reference.set(state, now);
                    circuit.set(state, now, SECOND);
                }
            }
            let view = circuit.view(|| millis(time));
            prop_assert_eq!(view.state, reference.state);
            prop_assert_eq!(view.generation, reference.generation);
            prop_assert_eq!((view.probes_in_flight, view.probes_succeeded), (reference.probes, reference.succeeded));
            prop_assert_eq!(view.reopen_count, reference.reopen_count);
        }
    }
}
