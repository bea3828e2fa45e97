//! Runs the fault lab: prints the tables and writes the page.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::Parser;
use fault_lab::{jobs, report::Findings, scenarios, stacks, sweep, table};

/// Measures resilience stacks in simulated incidents.
#[derive(Parser)]
struct Options {
    /// The seed of all random numbers.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Run only this scenario.
    #[arg(long)]
    only: Option<String>,
    /// Skip the sweeps of the defaults and the day without an incident.
    #[arg(long)]
    quick: bool,
    /// The file to write the page to.
    #[arg(long, default_value = "target/fault_lab.html")]
    html: PathBuf,
    /// The folder to write evidence.md and its charts to.
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
            eprintln!("unknown scenario `{only}`; choose one of: {}", names.join(", "));
            return ExitCode::FAILURE;
        }
    }
    let full = !options.quick && options.only.is_none();
    let stacks = stacks::all();
    let grid = jobs::grid(&scenarios, &stacks, options.seed);
    for (scenario, figures) in scenarios.iter().zip(&grid) {
        println!("{}: {}\n\n{}", scenario.name, scenario.summary, table::scenario(&stacks, figures).text());
    }
    let calm = full.then(|| jobs::run(&[(&scenarios::calm(), &stacks::Rampart::new())], options.seed).remove(0));
    let sweeps = if full { sweep::all() } else { Vec::new() };
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
            eprintln!("could not write the report: {error}");
            ExitCode::FAILURE
        }
    }
}
