//! A cascading failure on real sockets, bare and protected.
//!
//! Four services run in this program, each with its own listener and a bounded number of
//! connections and workers, like real services: an edge, an orders service, and its two
//! dependencies, inventory and payments. Users arrive in an open loop: they do not wait for each
//! other's responses, leave after a second, and retry manually. After a healthy phase payments
//! hangs, and later it recovers. The program runs this scenario twice: bare, and with rampart's
//! stacks at each hop.
//!
//! ```text
//! users -> edge -> orders -> inventory          GET /catalog    needs inventory
//!                         -> payments           GET /checkout   needs both
//! ```
//!
//! The program checks its own result: it fails if the bare run shows no cascade, or if the
//! protected run does.
#![allow(clippy::disallowed_methods, missing_docs, unreachable_pub)] // runs in real time; its items are not a public API

mod load;
mod measure;
mod options;
mod report;
mod system;
mod view;

use std::process::ExitCode;

use clap::Parser;
use measure::{Recorder, Run};
use options::Options;
use system::{Protection, System};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let outcome = runtime.block_on(demo(&options));
    // Calls that are still in flight are dropped here.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo could not run: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn demo(options: &Options) -> Result<bool, BoxError> {
    println!("{options}\n");
    let bare = run(options, Protection::None).await?;
    let protected = run(options, Protection::Rampart).await?;
    println!("\n{}", view::table(options, &bare, &protected));
    let path = report::write(options, &bare, &protected)?;
    println!("report with charts: {}\n", path.display());
    let complaints = measure::verify(options, &bare, &protected);
    for complaint in &complaints {
        println!("VIOLATED: {complaint}");
    }
    if complaints.is_empty() {
        println!("verified: the bare system collapsed, the protected one did not");
    }
    Ok(complaints.is_empty())
}

async fn run(options: &Options, protection: Protection) -> Result<Run, BoxError> {
    let recorder = Recorder::new();
    let system = System::start(protection, options).await?;
    if let Some(description) = system.description() {
        println!("{description}");
    }
    println!("--- {} run", protection.name());
    let watcher = tokio::spawn(view::watch(options.clone(), recorder.clone(), system.gauges()));
    let users = load::users(options, &system, &recorder);
    let fault = system.fault_schedule(options.phases());
    tokio::join!(users, fault);
    watcher.abort();
    let run = recorder.finish(protection, &system.gauges());
    system.stop().await;
    Ok(run)
}
