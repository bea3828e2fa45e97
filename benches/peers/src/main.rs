//! tower-rampart beside its peers.
//!
//! `cargo run --release -p peers` measures all rows and prints the tables; `-- --only breaker` those whose name contains
//! the word; `-- --quick` runs everything once, to see that it runs; `-- behaviours` asks all for the same behaviour.

mod allocations;
mod behaviours;
mod harness;
mod inner;
mod report;
mod rows;

use clap::{Parser, Subcommand};
use harness::Effort;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// Measures tower-rampart and its peers, on the same work, in one run.
#[derive(Parser)]
struct Options {
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Few and short rounds: shows that all runs, and no figure to quote.
    #[arg(long)]
    quick: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Asks every peer that has the feature for the same behaviour.
    Behaviours,
}

fn main() {
    let options = Options::parse();
    // Some layers want a runtime when they are made.
    let _timers = inner::RUNTIME.enter();
    if let Some(Command::Behaviours) = options.command {
        behaviours::print();
        return;
    }
    let effort = if options.quick { Effort::QUICK } else { Effort::FULL };
    let wanted = |name: &str| name.contains(&options.only);
    for row in rows::all().iter().filter(|row| wanted(row.name)) {
        report::row(row, &harness::measure(&row.candidates, &row.settings, effort));
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
