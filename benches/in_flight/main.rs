//! Calls that are in flight: their memory, their allocations, and the cost of a call among many.
//!
//! The inner service is pending until it is released, in a random order: a call among 100,000 finds
//! its memory in no cache. Times are processor times, which other processes do not add to, where
//! the system has them.
//!
//! `cargo bench --all-features --bench in_flight` prints the tables; `-- --quick` measures memory
//! and allocations, and is a smoke test of the rest. Both compare the memory of each layer and
//! stack with `benches/in_flight.txt`, and fail if a future has grown, if a call has more than 5%
//! (and more than two bytes) more on the heap, or if it allocates more often: only copies of HTTP
//! requests are allocated, as long as a call does not wait for a permit. `-- --bless` rewrites the
//! file. Sizes depend on the compiler, on the target and on tokio's timer: if these differ from
//! those that the file names, only allocations are compared.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods)] // the benchmark's clock

mod candidates;
mod footprint;
mod held;
#[path = "../support/processor.rs"]
mod processor;
mod record;
#[path = "../support/statistics.rs"]
mod statistics;
mod sustained;

use std::{process::ExitCode, time::Duration};

use candidates::Candidate;
use clap::{Parser, Subcommand};
use footprint::Footprint;
use rand::{rng, seq::SliceRandom};
use statistics::{median, median_of};
use sustained::Sustained;

/// Measures calls that are in flight.
#[derive(Parser)]
struct Options {
    /// Measure only the memory and the allocations, and run the rest once.
    #[arg(long, alias = "test")]
    quick: bool,
    /// Measure the time only of the bare service and of candidates whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Rewrite benches/in_flight.txt.
    #[arg(long)]
    bless: bool,
    /// The rounds of the measurements of time.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Keep calls of one candidate in flight for some milliseconds.
    #[command(hide = true)]
    Sustain { candidate: String, in_flight: usize, millis: u64 },
}

fn main() -> ExitCode {
    let options = Options::parse();
    let tables = candidates::tables();
    if let Some(Command::Sustain { candidate, in_flight, millis }) = options.command {
        let known = tables.iter().flatten().find(|known| known.name == candidate).expect("the candidate exists");
        (known.sustain)(in_flight, Duration::from_millis(millis)).print();
        return ExitCode::SUCCESS;
    }
    let footprints: Vec<_> = tables.iter().flat_map(|table| footprints(table)).collect();
    let (crowds, rounds, time) = if options.quick {
        ([1, 100, 2_000], 1, Duration::from_millis(5))
    } else {
        ([1, 100, 100_000], options.rounds, Duration::from_millis(100))
    };
    print_sustained(&tables[0], &options.only, crowds, rounds, time);
    record::compare(&footprints, options.bless)
}

/// Prints the memory of the candidates' calls, and returns what they have above the bare service.
fn footprints(candidates: &[Candidate]) -> Vec<(&Candidate, Footprint)> {
    let bare = (candidates[0].footprint)();
    println!("\n### bytes per call in flight, above the bare future's {}\n", bare.future);
    println!("| | future | on the heap | in all | allocations per call |\n|---|---|---|---|---|");
    let mut footprints = Vec::new();
    for candidate in candidates {
        let above = (candidate.footprint)().above(&bare);
        let Footprint { future, heap, allocations } = above;
        let all = future as f64 + heap;
        println!("| {} | {future} | {heap:.1} | {all:.1} | {allocations} |", candidate.name);
        footprints.push((candidate, above));
    }
    footprints
}

/// The measurements of one candidate, with one number of calls in flight.
struct Rounds {
    name: &'static str,
    rounds: Vec<Sustained>,
}

impl Rounds {
    fn nanos(&self) -> Vec<f64> {
        self.rounds.iter().map(|round| round.nanos_per_call).collect()
    }

    fn resident(&self) -> Option<f64> {
        let resident: Option<Vec<f64>> = self.rounds.iter().map(|round| round.resident).collect();
        resident.map(|resident| median(&resident))
    }
}

fn print_sustained(candidates: &[Candidate], only: &str, crowds: [usize; 3], rounds: usize, time: Duration) {
    let wanted = |candidate: &&Candidate| candidate.is_bare() || candidate.name.contains(only);
    let names: Vec<_> = candidates.iter().filter(wanted).map(|candidate| candidate.name).collect();
    for crowd in crowds {
        let measured = measure(&names, crowd, rounds, time);
        let bare = &measured[0];
        println!("\n### {crowd} in flight, a new call for each that completes, {rounds} rounds of {time:?}\n");
        println!(
            "| | calls per second of processor time | ns per call | above the bare service (95%) | resident bytes per call | above |"
        );
        println!("|---|---|---|---|---|---|");
        for one in &measured {
            let nanos = median(&one.nanos());
            let above: Vec<f64> = one.nanos().iter().zip(bare.nanos()).map(|(one, bare)| one - bare).collect();
            let (above, low, high) = median_of(&above);
            // The memory of a few calls is lost among pages.
            let resident = one.resident().zip(bare.resident()).filter(|_| crowd >= 1000);
            let resident =
                resident.map_or("| |".to_owned(), |(ours, bare)| format!("{ours:.0} | {:.0} |", ours - bare));
            println!(
                "| {} | {:.0} | {nanos:.0} | {above:.0} ({low:.0} to {high:.0}) | {resident}",
                one.name,
                1e9 / nanos
            );
        }
    }
}

fn measure(names: &[&'static str], crowd: usize, rounds: usize, time: Duration) -> Vec<Rounds> {
    let mut measured: Vec<_> = names.iter().map(|name| Rounds { name, rounds: Vec::new() }).collect();
    let mut order: Vec<usize> = (0..measured.len()).collect();
    for _ in 0..rounds {
        order.shuffle(&mut rng());
        for &which in &order {
            let one = &mut measured[which];
            one.rounds.push(Sustained::measure(one.name, crowd, time));
        }
    }
    measured
}
