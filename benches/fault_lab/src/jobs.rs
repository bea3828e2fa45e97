//! Runs many simulations on all processors.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::{
    measure::Figures,
    scenarios::Scenario,
    sim::{self, Stack},
};

/// Returns the figures of each pair of a scenario and a stack, in order. They do not depend on the
/// number of processors.
pub fn run(pairs: &[(&Scenario, &dyn Stack)], seed: u64) -> Vec<Figures> {
    let next = AtomicUsize::new(0);
    let workers = thread::available_parallelism().map_or(1, usize::from).min(pairs.len().max(1));
    let work = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((scenario, stack)) = pairs.get(index) else { return done };
            done.push((index, Figures::of(&scenario.plan, &sim::run(&scenario.plan, *stack, seed))));
        }
    };
    let mut figures: Vec<_> = thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a run does not panic")).collect()
    });
    figures.sort_by_key(|(index, _)| *index);
    figures.into_iter().map(|(_, figures)| figures).collect()
}

/// Returns the figures of all stacks in all scenarios: by scenario, then by stack.
pub fn grid(scenarios: &[Scenario], stacks: &[Box<dyn Stack>], seed: u64) -> Vec<Vec<Figures>> {
    let pairs: Vec<_> = scenarios.iter().flat_map(|at| stacks.iter().map(move |stack| (at, &**stack))).collect();
    let mut figures = run(&pairs, seed).into_iter();
    scenarios.iter().map(|_| figures.by_ref().take(stacks.len()).collect()).collect()
}
