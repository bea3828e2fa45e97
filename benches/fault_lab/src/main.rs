//! Runs the fault lab: prints the table, writes the page.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use fault_lab::{jobs, report::Findings, scenarios, stacks, sweep, table};

/// What resilience stacks are worth when systems fall.
#[derive(Parser)]
struct Options {
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only this scenario, with all its figures.
    #[arg(long)]
    only: Option<String>,
    /// Neither sweeps nor the calm day.
    #[arg(long)]
    quick: bool,
    /// Where to write the page.
    #[arg(long, default_value = "target/fault_lab.html")]
    html: PathBuf,
    /// A folder to write evidence.md and its charts to.
    #[arg(long)]
    docs: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut scenarios = scenarios::incidents();
    if let Some(only) = &options.only {
        scenarios.retain(|scenario| scenario.name == only);
        if scenarios.is_empty() {
            let names: Vec<_> = scenarios::incidents().iter().map(|scenario| scenario.name).collect();
            eprintln!("there is no scenario `{only}`; there are: {}", names.join(", "));
            return ExitCode::FAILURE;
        }
    }
    let whole = !options.quick && options.only.is_none();
    let stacks = stacks::all();
    let grid = jobs::grid(&scenarios, &stacks, options.seed);
    for (scenario, figures) in scenarios.iter().zip(&grid) {
        println!("{}: {}\n\n{}", scenario.name, scenario.what, table::scenario(&stacks, figures).text());
    }
    let calm = whole.then(|| jobs::run(&[(&scenarios::calm(), &stacks::Rampart::new())], options.seed).remove(0));
    let sweeps = if whole { sweep::all() } else { Vec::new() };
    let curves = sweep::run(&sweeps, &scenarios, options.seed);
    let findings = Findings { scenarios, stacks, grid, calm, sweeps: sweeps.into_iter().zip(curves).collect() };
    for (sweep, curve) in &findings.sweeps {
        println!("{}", sweep::table(sweep, curve).text());
    }
    for (title, table) in findings.overviews() {
        println!("{title}\n\n{}", table.text());
    }
    if let Some(calm) = findings.calm_day() {
        println!("{calm}\n");
    }
    let folder = options.html.parent().map_or(Ok(()), fs::create_dir_all);
    let written = folder.and_then(|()| fs::write(&options.html, findings.page())).map(|()| options.html.display());
    let docs = options.docs.as_ref().map_or(Ok(()), |docs| findings.write_docs(docs));
    match written.and_then(|page| docs.map(|()| page)) {
        Ok(page) => {
            println!("page with charts: {page}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("could not write: {error}");
            ExitCode::FAILURE
        }
    }
}
