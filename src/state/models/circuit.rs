//! Models of the circuit.
//!
//! A transition is handed to one caller, who emits the one `StateChanged` of it: the handle's tests show that.

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

/// Trips at a run of two; one success closes it.
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
        Admission::Rejected { .. } => None,
    }
}

fn must_admit(circuit: &Circuit, now: Nanos) -> Admitted {
    admit(circuit, now).expect("it is let in").0
}

fn finish(circuit: &Circuit, admitted: Admitted, outcome: Outcome) -> Option<Transition> {
    circuit.finish(admitted, outcome, false, || usize::MAX, || NOW, |_| SECOND)
}

/// Open, and its time is over one second from now.
fn open(circuit: &Circuit) {
    circuit.set(CircuitState::Open, NOW, SECOND);
}

/// The transitions that happened, in order: each begins where the last one ended, and none is told twice.
fn chain(mut transitions: Vec<Transition>, circuit: &Circuit) -> Vec<(CircuitState, CircuitState)> {
    transitions.sort_by_key(|transition| transition.generation);
    assert!(transitions.windows(2).all(|pair| pair[0].generation < pair[1].generation), "{transitions:?}");
    assert!(transitions.windows(2).all(|pair| pair[0].to == pair[1].from), "{transitions:?}");
    assert_eq!(transitions.last().map(|last| last.to), Some(circuit.state()));
    transitions.iter().map(|transition| (transition.from, transition.to)).collect()
}

model! {
    /// I3, P1: failures that reach the limit at once trip once.
    one_of_many_failures_trips, preemptions: None, refuted by [SplitSwap], {
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
    /// I3, P1: as above with a count window, whose records and trips are two swaps.
    one_of_many_failures_trips_by_count, preemptions: None, refuted by [SplitSwap], {
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
    /// I2, I3, P1: of those who find the open time over, one makes the circuit half-open, and as many get in as may.
    one_of_many_callers_makes_it_half_open, preemptions: None, refuted by [SplitSwap], {
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
    /// I3, P1: probes that end at once decide once; the other's verdict belongs to a generation that is over.
    one_of_many_probes_decides, preemptions: None, refuted by [SplitSwap], {
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
    /// I3, P1: successes that are enough at once close it once.
    it_closes_once, preemptions: None, refuted by [SplitSwap], {
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
    /// I4, P2: the outcome of a call from before counts as nothing, however the circuit came to be closed again.
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
    /// I2, P3: places of probes are conserved while some succeed, some are given back and others come.
    places_are_conserved, preemptions: None, refuted by [SplitSwap], {
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
    /// I5, P4: a probe that is silent loses its place to one of those who come when its lease has run out.
    it_is_not_stuck_half_open, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(config());
        open(&circuit);
        let silent = must_admit(&circuit, at(SECOND));
        assert!(admit(&circuit, at(SECOND)).is_none(), "arms the lease");
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || admit(&other, at(SECOND * 2)));
        let here = admit(&circuit, at(SECOND * 2));
        let admitted: Vec<_> = [here, there.join().unwrap()].into_iter().flatten().collect();
        assert_eq!(admitted.len(), 1, "as many as there are places");
        // The silent one speaks after all: too late.
        assert_eq!(finish(&circuit, silent, Outcome::Failure), None);
        let closed = finish(&circuit, admitted[0].0, Outcome::Success);
        assert_eq!(closed.map(|it| it.to), Some(CircuitState::Closed));
    }
}

model! {
    /// I5: nor is it while the silent probe speaks at the very moment.
    a_late_probe_and_its_successor, preemptions: None, refuted by [SplitSwap], {
        let circuit = circuit(config());
        open(&circuit);
        let late = must_admit(&circuit, at(SECOND));
        assert!(admit(&circuit, at(SECOND)).is_none(), "arms the lease");
        let other = Arc::clone(&circuit);
        let there = thread::spawn(move || finish(&other, late, Outcome::Ignored));
        let here = admit(&circuit, at(SECOND * 2)).expect("its place or a free one").0;
        assert_eq!(there.join().unwrap(), None);
        assert_eq!(circuit.view(|| NOW).probes_in_flight, 1);
        assert_eq!(finish(&circuit, here, Outcome::Success).map(|it| it.to), Some(CircuitState::Closed));
    }
}

model! {
    /// I3: a state that is set by hand and a trip come one after the other.
    by_hand_and_by_itself, preemptions: None, refuted by [SplitSwap], {
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
