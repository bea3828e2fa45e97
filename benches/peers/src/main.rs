//! Compares tower-rampart with its peers.
//!
//! `cargo run --profile bench -p peers` measures all rows and prints the tables; `-- --only
//! breaker` measures the rows whose name contains the word; `-- --quick` runs everything once, as a
//! smoke test; `-- goals` prints the headline goals only; `-- behaviours` runs the behavioural
//! checks.

// The library's rule about reading the clock does not apply to a benchmark.
#![allow(clippy::disallowed_methods)]

mod allocations;
mod audit;
mod behaviours;
#[path = "../../support/harness.rs"]
mod harness;
mod inner;
#[path = "../../support/processor.rs"]
mod processor;
mod report;
mod rows;
#[path = "../../support/statistics.rs"]
mod statistics;

use clap::{Parser, Subcommand};
use harness::{Effort, Setting};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Measures tower-rampart and its peers on the same work in one run.
#[derive(Parser)]
struct Options {
    /// Measure only rows whose name contains this text.
    #[arg(long, global = true, default_value = "")]
    only: String,
    /// Few and short rounds: a smoke test, whose figures mean nothing.
    #[arg(long, global = true)]
    quick: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Measure only the candidates of the headline goals, and print one table.
    Goals,
    /// Run the same behavioural checks on every crate that has the feature.
    Behaviours,
    /// Count, with valgrind's lackey, the writes of healthy calls to shared memory.
    Audit,
    /// Run one subject of the audit.
    #[command(hide = true)]
    Audited { subject: String },
}

fn main() {
    let options = Options::parse();
    // Some layers need a runtime when they are created.
    let _timers = inner::RUNTIME.enter();
    match options.command {
        Some(Command::Behaviours) => return behaviours::print(),
        Some(Command::Audit) => return audit::print(),
        Some(Command::Audited { subject }) => return audit::run(&subject),
        Some(Command::Goals) => return goals(&options.only, options.quick),
        None => {}
    }
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let wanted = |name: &str| name.contains(&options.only);
    for row in rows::all().iter().filter(|row| wanted(row.name)) {
        report::row(row, &harness::measure(&row.candidates, &row.settings, effort), &allocations::per_call(row));
    }
    if wanted("tails") {
        report::tails(&rows::tails(options.quick));
    }
    if wanted("window sizes") {
        report::window_sizes(&rows::window_sizes(options.quick));
    }
    if wanted("keyed limiter") {
        let keys = if options.quick { 10_000 } else { 1_000_000 };
        report::memory(keys, &rows::memory(keys));
    }
    if options.quick {
        behaviours::print();
    }
}

fn goals(only: &str, quick: bool) {
    let effort = if quick { Effort::QUICK } else { Effort { rounds: 101, ..Effort::FULL } };
    report::goals_head();
    for row in rows::all().iter_mut().filter(|row| row.name.contains(only)) {
        let headlines: Vec<_> = row.claims.iter().filter_map(|claim| claim.headline).collect();
        row.candidates.retain(|candidate| headlines.iter().any(|headline| headline.names(candidate.name)));
        report::goals(row, &harness::measure(&row.candidates, &[Setting::Shared(1)], effort));
    }
}
