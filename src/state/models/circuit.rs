//! Models of the circuit.
//!
//! Each transition is returned to one caller, which emits the one `StateChanged` for it: the
//! handle's tests check that.

use std::{num::NonZeroU32, time::Duration};

use loom::{sync::Arc, thread};

use super::model;
use crate::state::{
    circuit::{Admission, Admitted, Circuit, CircuitConfig, CircuitState, Outcome, Transition},
    time::Nanos,
    transition::Cause,
    window::Rates,
};

const SECOND: Duration = Duration::from_secs(1);
const NOW: Nanos = Nanos::new(1 << 50);

fn at(later: Duration) -> Nanos {
    NOW.saturating_add(later)
}

/// Trips after two consecutive failures; one success closes it.
fn config() -> CircuitConfig {
    CircuitConfig {
        consecutive: NonZeroU32::new(2),
        count: None,
        time: None,
        slow: false,
        probes: 1,
        successes: 1,
        probe_timeout: SECOND,
        recovery: None,
        stripes: 0,
    }
}

fn circuit(config: CircuitConfig) -> Arc<Circuit> {
    Arc::new(Circuit::new(config))
}

fn admit(circuit: &Circuit, now: Nanos) -> Option<(Admitted, Option<Transition>)> {
    match circuit.admit(|| now) {
        Admission::Admitted(admitted) => Some((admitted, None)),
        Admission::Probe(admitted, transition) => Some((admitted, transition)),
        Admission::Rejected { .. } | Admission::RejectedInRecovery { .. } => None,
    }
}

fn must_admit(circuit: &Circuit, now: Nanos) -> Admitted {
    admit(circuit, now).expect("it is admitted").0
}

fn finish(circuit: &Circuit, admitted: Admitted, outcome: Outcome) -> Option<Transition> {
    circuit.finish(admitted, outcome, false, || usize::MAX, || NOW, |_| SECOND)
}

/// Opens the circuit for one second.
fn open(circuit: &Circuit) {
    circuit.set(CircuitState::Open, NOW, SECOND);
}

/// The transitions in order. Each begins in the state that the one before ended in, and none is
/// returned twice.
fn chain(mut transitions: Vec<Transition>, circuit: &Circuit) -> Vec<(CircuitState, CircuitState)> {
    transitions.sort_by_key(|transition| transition.generation);
    assert!(transitions.windows(2).all(|pair| pair[0].generation < pair[1].generation), "{transitions:?}");
    assert!(transitions.windows(2).all(|pair| pair[0].to == pair[1].from), "{transitions:?}");
    assert_eq!(transitions.last().map(|last| last.to), Some(circuit.state()));
    transitions.iter().map(|transition| (transition.from, transition.to)).collect()
}

model! {
    /// circuit.I3: concurrent failures that reach the limit trip it once.
    concurrent_failures_trip_once, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(config());
        let [one, two] = [(); 2].map(|()| must_admit(&circuit, NOW));
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, one, Outcome::Failure));
        let here = finish(&circuit, two, Outcome::Failure);
        let transitions: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        assert_eq!(chain(transitions, &circuit), [(CircuitState::Closed, CircuitState::Open)]);
    }
}

model! {
    /// circuit.I3: the same with a count window, where recording and tripping are two swaps.
    concurrent_failures_trip_once_by_the_count_window, preemptions: None, refuted by [SplitSwap], {
        let rates = Rates { min_calls: 1, failed: Some(500_000), slow: None };
        let circuit = circuit(CircuitConfig { consecutive: None, count: Some((2, rates)), ..config() });
        let [one, two] = [(); 2].map(|()| must_admit(&circuit, NOW));
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, one, Outcome::Failure));
        let here = finish(&circuit, two, Outcome::Failure);
        let transitions: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        assert_eq!(chain(transitions, &circuit), [(CircuitState::Closed, CircuitState::Open)]);
    }
}

model! {
    /// circuit.I2, circuit.I3: one of the callers after the open time makes the circuit half-open,
    /// and only that one is admitted.
    one_caller_makes_an_open_circuit_half_open, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(config());
        open(&circuit);
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || admit(&other, at(SECOND)));
        let here = admit(&circuit, at(SECOND));
        let admitted: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        assert_eq!(admitted.len(), 1);
        assert_eq!(admitted[0].1.map(|it| (it.from, it.to, it.cause)), Some((CircuitState::Open, CircuitState::HalfOpen, Cause::OpenTimeout)));
    }
}

model! {
    /// circuit.I3: of two probes that complete concurrently one decides; the other is of an earlier
    /// generation then.
    concurrent_probes_decide_once, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(CircuitConfig { probes: 2, ..config() });
        open(&circuit);
        let [one, two] = [(); 2].map(|()| must_admit(&circuit, at(SECOND)));
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, one, Outcome::Failure));
        let here = finish(&circuit, two, Outcome::Success);
        let transitions: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        let decided = chain(transitions, &circuit);
        assert!(decided == [(CircuitState::HalfOpen, CircuitState::Open)] || decided == [(CircuitState::HalfOpen, CircuitState::Closed)]);
    }
}

model! {
    /// circuit.I3: concurrent successes close it once.
    concurrent_successes_close_once, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(CircuitConfig { probes: 2, ..config() });
        open(&circuit);
        let [one, two] = [(); 2].map(|()| must_admit(&circuit, at(SECOND)));
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, one, Outcome::Success));
        let here = finish(&circuit, two, Outcome::Success);
        let transitions: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        assert_eq!(chain(transitions, &circuit), [(CircuitState::HalfOpen, CircuitState::Closed)]);
    }
}

model! {
    /// circuit.I4: the outcome of a call of an earlier generation does not count, even if the
    /// circuit is closed again.
    a_stale_outcome_never_counts, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(config());
        let stale = must_admit(&circuit, NOW);
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, stale, Outcome::Failure));
        circuit.set(CircuitState::Open, NOW, SECOND);
        circuit.set(CircuitState::Closed, NOW, SECOND);
        let fresh = must_admit(&circuit, NOW);
        assert_eq!(finish(&circuit, fresh, Outcome::Failure), None, "the first of its generation");
        assert_eq!(there.join().unwrap(), None);
        assert_eq!((circuit.state(), circuit.view(|| NOW).consecutive_failures), (CircuitState::Closed, 1));
    }
}

model! {
    /// circuit.I2: no probe slot is lost while probes succeed, are cancelled and are admitted.
    probe_slots_are_conserved, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(CircuitConfig { probes: 2, successes: 9, ..config() });
        open(&circuit);
        let [one, two] = [(); 2].map(|()| must_admit(&circuit, at(SECOND)));
        let (succeeding, cancelling) = (Arc::clone(&circuit), Arc::clone(&circuit));
        let succeeded = thread::spawn(move || finish(&succeeding, one, Outcome::Success));
        let cancelled = thread::spawn(move || finish(&cancelling, two, Outcome::Ignored));
        let live = u32::from(admit(&circuit, at(SECOND)).is_some());
        assert_eq!((succeeded.join().unwrap(), cancelled.join().unwrap()), (None, None));
        let view = circuit.view(|| NOW);
        assert_eq!((view.probes_in_flight, view.probes_succeeded), (live, 1));
    }
}

model! {
    /// circuit.I5: a lost probe loses its slot to one of the callers after its lease.
    a_lost_probe_does_not_keep_the_circuit_half_open, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(config());
        open(&circuit);
        let lost = must_admit(&circuit, at(SECOND));
        assert!(admit(&circuit, at(SECOND)).is_none(), "arms the lease");
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || admit(&other, at(SECOND * 2)));
        let here = admit(&circuit, at(SECOND * 2));
        let admitted: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        assert_eq!(admitted.len(), 1, "there is one slot");
        // The lost probe completes after all, too late.
        assert_eq!(finish(&circuit, lost, Outcome::Failure), None);
        let closed = finish(&circuit, admitted[0].0, Outcome::Success);
        assert_eq!(closed.map(|it| it.to), Some(CircuitState::Closed));
    }
}

model! {
    /// circuit.I5: the same while the lost probe completes concurrently.
    a_late_probe_does_not_release_its_successors_slot, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(config());
        open(&circuit);
        let late = must_admit(&circuit, at(SECOND));
        assert!(admit(&circuit, at(SECOND)).is_none(), "arms the lease");
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, late, Outcome::Ignored));
        let here = admit(&circuit, at(SECOND * 2)).expect("the reclaimed slot, or the released one").0;
        assert_eq!(there.join().unwrap(), None);
        assert_eq!(circuit.view(|| NOW).probes_in_flight, 1);
        assert_eq!(finish(&circuit, here, Outcome::Success).map(|it| it.to), Some(CircuitState::Closed));
    }
}

model! {
    /// circuit.I3: a manual change and a trip happen one after the other.
    a_manual_change_and_a_trip_are_ordered, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(CircuitConfig { consecutive: NonZeroU32::new(1), ..config() });
        let call = must_admit(&circuit, NOW);
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, call, Outcome::Failure));
        let here = circuit.set(CircuitState::ForcedOpen, NOW, SECOND);
        let transitions: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        let changes = chain(transitions, &circuit);
        assert!(
            changes == [(CircuitState::Closed, CircuitState::ForcedOpen)]
                || changes == [(CircuitState::Closed, CircuitState::Open), (CircuitState::Open, CircuitState::ForcedOpen)],
            "{changes:?}"
        );
    }
}
