mod model;

use std::{
    cell::Cell,
    sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
};

use super::{step::ProbeOutcome, *};
use crate::state::{
    atomics::{Ops, count},
    transition::Cause,
};

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

fn consecutive(limit: u32) -> Circuit {
    Circuit::new(CircuitConfig { consecutive: NonZeroU32::new(limit), ..config() })
}

fn half(min_calls: u32) -> Rates {
    Rates { min_calls, failed: Some(500_000), slow: None }
}

fn secs(seconds: u64) -> Nanos {
    Nanos::new(seconds * 1_000_000_000)
}

/// A circuit with a clock that counts its reads.
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

    fn admit(&self) -> Option<Admitted> {
        match self.circuit.admit(|| self.now()) {
            Admission::Admitted(admitted) | Admission::Probe(admitted, _) => Some(admitted),
            Admission::Rejected { .. } | Admission::RejectedInRecovery { .. } => None,
        }
    }

    fn finish(&self, admitted: Admitted, outcome: Outcome) -> Option<Transition> {
        self.circuit.finish(admitted, outcome, false, || 0, || self.now(), |reopen_count| OPEN_FOR * (reopen_count + 1))
    }

    fn call(&self, outcome: Outcome) -> Option<Transition> {
        let admitted = self.admit().expect("the circuit admits");
        self.finish(admitted, outcome)
    }
}

#[test]
fn the_cost_contract_holds() {
    let load = |loads| Ops { loads, stores: 0, rmws: 0 };
    let by_count = Bench::new(Circuit::new(CircuitConfig { count: Some((100, half(10))), ..config() }));
    for _ in 0..120 {
        by_count.call(Outcome::Success);
    }
    let (admitted, ops) = count(|| by_count.admit().unwrap());
    assert_eq!(ops, load(1), "admit closed");
    assert_eq!(count(|| by_count.finish(admitted, Outcome::Success)), (None, load(2)), "success, clean");
    assert_eq!(by_count.reads.get(), 0, "a count window needs no clock");
    let (_, ops) = count(|| by_count.call(Outcome::Failure));
    assert!(ops.loads <= 11 && ops.rmws <= 2, "failure, count window: {ops:?}");
    assert_eq!(by_count.reads.get(), 0);

    let by_failures = Bench::new(consecutive(3));
    assert_eq!(count(|| by_failures.call(Outcome::Success)).1, load(2), "admit and success, consecutive");
    let (_, ops) = count(|| by_failures.call(Outcome::Failure));
    assert_eq!(ops, Ops { loads: 2, stores: 0, rmws: 1 }, "failure, consecutive");
    by_failures.call(Outcome::Failure);
    let (tripped, ops) = count(|| by_failures.call(Outcome::Failure));
    assert!(tripped.is_some() && ops.rmws == 1, "the trip is one swap: {ops:?}");
    assert_eq!(by_failures.reads.replace(0), 1, "the clock is read on the trip");
    assert_eq!(count(|| by_failures.admit()), (None, load(1)), "reject open");
    assert_eq!(by_failures.reads.replace(0), 1);
    by_failures.advance(OPEN_FOR);
    let (_, ops) = count(|| by_failures.call(Outcome::Success));
    assert_eq!(ops, Ops { loads: 2, stores: 0, rmws: 2 }, "probe, admit and finish");
    assert_eq!(by_failures.reads.get(), 1);

    let timed = Bench::new(Circuit::new(CircuitConfig { time: Some((secs10(), 10, half(10))), ..config() }));
    let (_, ops) = count(|| timed.call(Outcome::Success));
    assert_eq!(ops, Ops { loads: 3, stores: 1, rmws: 0 }, "success, time window");
    assert_eq!(timed.reads.get(), 1);
}

fn secs10() -> Duration {
    Duration::from_secs(10)
}

// contract B10
#[test]
fn consecutive_failures_come_first_among_several_causes() {
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

// contract B16, B24; circuit.I5
#[test]
fn a_probe_that_never_completes_loses_its_slot_when_the_lease_expires() {
    let bench = Bench::new(consecutive(1));
    bench.call(Outcome::Failure);
    bench.advance(OPEN_FOR);
    let lost = bench.admit().unwrap();
    assert!(lost.is_probe());
    assert_eq!(bench.admit(), None, "arms the lease");
    bench.advance(Duration::from_secs(59));
    assert_eq!(bench.admit(), None);
    bench.advance(Duration::from_secs(1));
    let second = bench.admit().expect("the lease has expired");
    assert_eq!(bench.finish(lost, Outcome::Failure), None, "the lost probe no longer counts");
    assert_eq!(bench.finish(second, Outcome::Success).unwrap().to, CircuitState::Closed);
}

// contract B20, B24: the lease counts from the last admission
#[test]
fn an_admission_renews_the_lease() {
    let bench = Bench::new(consecutive(1));
    bench.call(Outcome::Failure);
    bench.advance(OPEN_FOR);
    let first = bench.admit().unwrap();
    assert_eq!(bench.admit(), None, "arms the lease");
    bench.advance(Duration::from_secs(50));
    bench.finish(first, Outcome::Ignored);
    let second = bench.admit().unwrap();
    bench.advance(Duration::from_secs(59));
    assert_eq!(bench.admit(), None, "the first lease has expired, the second begins");
    bench.advance(Duration::from_secs(59));
    assert_eq!(bench.admit(), None);
    assert_eq!(bench.finish(second, Outcome::Success).unwrap().to, CircuitState::Closed);
}

#[test]
fn a_circuit_closes_although_every_other_probe_hangs() {
    let circuit = Circuit::new(CircuitConfig { consecutive: NonZeroU32::new(1), successes: 5, ..config() });
    let bench = Bench::new(circuit);
    bench.call(Outcome::Failure);
    bench.advance(OPEN_FOR);
    let mut closed = None;
    for probe in 0..10 {
        let admitted = bench.admit().expect("a free slot, or an expired lease");
        if probe % 2 == 1 {
            closed = closed.or(bench.finish(admitted, Outcome::Success));
        } else {
            assert_eq!(bench.admit(), None, "arms the lease");
            bench.advance(Duration::from_secs(60));
        }
    }
    assert_eq!(closed.unwrap().to, CircuitState::Closed);
}

#[test]
fn peeking_shows_when_a_lost_probe_loses_its_slot() {
    let bench = Bench::new(consecutive(1));
    assert_eq!(bench.circuit.peek_admission(|| bench.now()), PeekedAdmission::Admit);
    bench.call(Outcome::Failure);
    let PeekedAdmission::Reject { until: Some(until) } = bench.circuit.peek_admission(|| bench.now()) else {
        panic!("open")
    };
    bench.now.set(until);
    assert_eq!(bench.circuit.peek_admission(|| bench.now()), PeekedAdmission::AdmitProbe);
    bench.admit().unwrap();
    let PeekedAdmission::Reject { until: Some(until) } = bench.circuit.peek_admission(|| bench.now()) else {
        panic!("taken")
    };
    bench.advance(Duration::from_secs(59));
    assert_eq!(
        bench.circuit.peek_admission(|| bench.now()),
        PeekedAdmission::Reject { until: Some(until) },
        "peeking does not renew the lease"
    );
    bench.now.set(until);
    assert_eq!(bench.circuit.peek_admission(|| bench.now()), PeekedAdmission::AdmitProbe);
    assert!(bench.admit().is_some());
    bench.circuit.set(CircuitState::ForcedOpen, secs(0), OPEN_FOR);
    assert_eq!(bench.circuit.peek_admission(|| bench.now()), PeekedAdmission::Reject { until: None });
}

// counting a failure and tripping by it are one swap
#[test]
fn a_success_before_the_trip_prevents_it() {
    let bench = Bench::new(consecutive(2));
    let (late, success) = (bench.admit().unwrap(), bench.admit().unwrap());
    bench.call(Outcome::Failure);
    // The second failure reads the clock to open the circuit; at that moment a success resets the
    // count.
    let now = || {
        bench.finish(success, Outcome::Success);
        bench.now()
    };
    assert_eq!(bench.circuit.finish(late, Outcome::Failure, false, || 0, now, |_| OPEN_FOR), None);
    let view = bench.circuit.view(|| bench.now());
    assert_eq!((view.state, view.consecutive_failures), (CircuitState::Closed, 1));
}

#[test]
fn windows_still_trip_after_an_outage_of_thousands_of_probes() {
    for probes in [1, 600, 5_000, 9_000] {
        let rules = CircuitConfig { count: Some((4, half(4))), time: Some((secs10(), 10, half(4))), ..config() };
        for rules in [CircuitConfig { time: None, ..rules }, CircuitConfig { count: None, ..rules }] {
            let bench = Bench::new(Circuit::new(rules));
            let trip = || (0..4).find_map(|_| bench.call(Outcome::Failure));
            assert_eq!(trip().unwrap().cause, Cause::FailureRate);
            for _ in 0..probes {
                bench.advance(OPEN_FOR * 20);
                bench.call(Outcome::Failure);
            }
            bench.advance(OPEN_FOR * 20);
            assert_eq!(bench.call(Outcome::Success).unwrap().to, CircuitState::Closed);
            assert_eq!(trip().map(|it| it.cause), Some(Cause::FailureRate), "after {probes} probes that failed");
        }
    }
}

// contract B25, B26, B27
#[test]
fn outcomes_of_earlier_generations_do_not_count() {
    let bench = Bench::new(consecutive(1));
    let late: Vec<_> = (0..4).map(|_| bench.admit().unwrap()).collect();
    bench.call(Outcome::Failure);
    assert_eq!(bench.finish(late[0], Outcome::Success), None, "does not close");
    assert_eq!(bench.finish(late[1], Outcome::Failure), None, "does not extend");
    bench.advance(OPEN_FOR);
    let probe = bench.admit().unwrap();
    assert_eq!(bench.finish(late[2], Outcome::Success), None, "is not the probe");
    assert_eq!(bench.finish(late[3], Outcome::Failure), None, "is not the probe");
    assert_eq!(bench.finish(probe, Outcome::Success).unwrap().to, CircuitState::Closed);
}

#[test]
fn an_event_of_another_generation_leaves_the_word_as_it_is() {
    let phases = [
        Phase::Closed { consecutive_failures: 1, recovering: false },
        Phase::Open { deadline: 7 },
        Phase::HalfOpen { in_flight: 1, succeeded: 0, probes_admitted: 1 },
        Phase::ForcedOpen,
        Phase::Disabled,
    ];
    let config = CircuitConfig { consecutive: NonZeroU32::new(2), ..config() };
    for (phase, generation) in phases.into_iter().flat_map(|phase| [4, 6].map(|generation| (phase, generation))) {
        let word = CircuitWord { reopen_count: 0, generation: 5, phase };
        let mut inputs = LazyInputs::new(|| unreachable!("no time is needed"), |_| unreachable!("nothing opens"));
        let outcomes = [ProbeOutcome::Succeeded, ProbeOutcome::Failed, ProbeOutcome::Ignored];
        let probes = outcomes.map(|outcome| CircuitEvent::CompleteProbe { generation, outcome });
        let calls = [true, false].map(|failed| CircuitEvent::Complete { generation, failed });
        let trip = CircuitEvent::Trip { generation, cause: Cause::FailureRate };
        for event in probes.into_iter().chain(calls).chain([trip]) {
            assert_eq!(word.step(event, &config, &mut inputs), (word, None), "{event:?}");
        }
    }
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
    // A tick of its start is a quarter of a millisecond.
    bench.advance(Duration::from_millis(1));
    let before = bench.reads.get();
    assert!(bench.admit().is_some() && bench.admit().is_some());
    assert_eq!(bench.reads.get(), before + 1, "once recovered, the circuit reads no clock");
}

// contract B41
#[test]
fn a_recovery_ends_even_without_calls() {
    const HOUR: u64 = 3600;
    let idles = [1, 10, 19, 20, 30, 38, 39, 40, 80, 24 * 26, 24 * 365, 24 * 365 * 5];
    let recoveries = [Duration::from_millis(100), Duration::from_secs(10), Duration::from_secs(HOUR)];
    for (hours, recovery) in idles.into_iter().flat_map(|hours| recoveries.map(|recovery| (hours, recovery))) {
        // Any offset within the hours.
        for minutes in [0, 7, 17, 37, 53] {
            let config = CircuitConfig { consecutive: NonZeroU32::new(1), recovery: Some(recovery), ..config() };
            let bench = Bench::new(Circuit::new(config));
            bench.call(Outcome::Failure);
            bench.advance(OPEN_FOR);
            bench.call(Outcome::Success);
            bench.advance(Duration::from_secs(hours * HOUR + minutes * 60) + Duration::from_millis(1));
            assert!((0..100).all(|_| bench.admit().is_some()), "after {hours} h {minutes} min, {recovery:?}");
        }
    }
}

#[test]
fn a_recovery_survives_a_clock_that_jumps() {
    let recovery = Some(Duration::from_secs(10));
    let (early, late) = (secs(10_000_000), secs(10_003_600));
    for (first, second) in [(late, early), (Nanos::MAX, early), (early, Nanos::MAX)] {
        let bench = Bench::new(Circuit::new(CircuitConfig { consecutive: NonZeroU32::new(1), recovery, ..config() }));
        bench.call(Outcome::Failure);
        bench.now.set(first);
        bench.call(Outcome::Success);
        bench.now.set(second);
        let admitted = (0..1000).filter(|_| bench.admit().is_some()).count();
        if second < first {
            assert!(admitted.abs_diff(100) <= 12, "the strict side: {admitted}");
        } else {
            assert_eq!(admitted, 1000);
        }
    }
}

#[test]
fn times_beyond_the_horizon_saturate() {
    let bench = Bench::new(consecutive(1));
    let admitted = bench.admit().unwrap();
    bench.circuit.finish(admitted, Outcome::Failure, false, || 0, || secs(1), |_| Duration::MAX);
    bench.now.set(secs(86_400 * 365 * 8));
    assert_eq!(bench.admit(), None);
    bench.now.set(Nanos::MAX);
    assert!(bench.admit().is_some(), "the deadline is at the end of time");
    bench.now.set(Nanos::new(0));
    assert_eq!(bench.admit(), None, "the one probe slot is taken");
}

// contract B15, B37; circuit.I2, circuit.I3
#[test]
fn racing_threads_make_one_transition_each_and_lose_no_probe_slot() {
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
                        let admitted = match circuit.admit(now) {
                            Admission::Admitted(admitted) => admitted,
                            Admission::Probe(admitted, transition) => {
                                transitions.fetch_add(usize::from(transition.is_some()), SeqCst);
                                admitted
                            }
                            Admission::Rejected { .. } | Admission::RejectedInRecovery { .. } => continue,
                        };
                        let outcome = match (thread * 7 + step * 3) % 5 {
                            0 | 1 => Outcome::Success,
                            2 => Outcome::Ignored,
                            _ => Outcome::Failure,
                        };
                        let transition = circuit.finish(admitted, outcome, false, || 0, now, |_| OPEN_FOR);
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
