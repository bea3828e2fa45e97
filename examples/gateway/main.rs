//! An API gateway in front of three services with three instances each.
//!
//! It routes requests, limits each user to 100 requests a minute, limits logins by sender and by
//! e-mail address, propagates request ids, discovers instances through `tower::discover` and
//! balances between them with p2c, sends retries to another instance, checks the instances' health,
//! and serves a partial dashboard when a service fails.
//!
//! Without options it runs a demonstration: under load, each instance in turn is killed and
//! restarted. The demonstration fails if any user gets an error. To try the gateway manually:
//!
//! ```text
//! cargo run --all-features --example gateway -- --serve 127.0.0.1:8080
//! curl -i -H 'authorization: Bearer user-alice' http://127.0.0.1:8080/api/dashboard
//! curl -i -d '{"email":"alice@example.com"}' http://127.0.0.1:8080/login
//! curl -s http://127.0.0.1:8080/health
//! ```
#![allow(clippy::disallowed_methods, missing_docs, unreachable_pub)] // runs in real time; its items are not a public API

mod app;
mod load;
mod pool;
#[path = "../support/serve.rs"]
mod serve;
mod system;
mod upstream;

use std::{net::SocketAddr, process::ExitCode, sync::atomic::Ordering::Relaxed, time::Duration};

use clap::Parser;
use tower_rampart::BoxError;

use crate::{load::Load, pool::Settings, system::System};

/// An API gateway in front of three services with three instances each.
#[derive(Parser)]
struct Options {
    /// Serve at this address until interrupted, instead of running the demonstration.
    #[arg(long)]
    serve: Option<SocketAddr>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    let outcome = match options.serve {
        Some(address) => serve(address).await.map(|()| true),
        None => demonstrate().await,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the gateway could not run: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(address: SocketAddr) -> Result<(), BoxError> {
    let system = System::start(address, Settings::default()).await?;
    println!("the gateway listens at http://{}; press ctrl-c to stop it", system.address);
    Ok(tokio::signal::ctrl_c().await?)
}

async fn demonstrate() -> Result<bool, BoxError> {
    let system = System::start("127.0.0.1:0".parse()?, Settings::default()).await?;
    let paths = ["/api/users/7", "/api/orders/7", "/api/catalog/7"];
    let load = Load::start(paths.map(|path| system.url(path)).to_vec(), 16, Duration::from_millis(20));
    load.more(300).await;
    for instance in &system.instances {
        let before = instance.requests();
        instance.kill().await;
        system.in_rotation(&instance.name, false).await;
        load.more(200).await;
        instance.revive().await?;
        system.in_rotation(&instance.name, true).await;
        load.more(200).await;
        println!("{}: killed and restarted, {} requests so far", instance.name, instance.requests());
        assert!(instance.requests() > before, "the restarted instance receives requests");
    }
    // A bad build: the instance accepts requests and fails all of them.
    let bad = &system.instances[0];
    bad.fail(true);
    system.in_rotation(&bad.name, false).await;
    load.more(200).await;
    bad.fail(false);
    println!("{}: failed for a while and recovered", bad.name);
    let tally = load.stop().await;
    let (good, failed) = (tally.good.load(Relaxed), tally.failed.load(Relaxed));
    let tried: u64 = system.instances.iter().map(|instance| instance.requests()).sum();
    println!("\n{good} requests answered, {failed} failed; {tried} reached an instance");

    let client = reqwest::Client::new();
    let mut passed = 0;
    let rejected = loop {
        let response = client.get(system.url(paths[0])).bearer_auth("user-eager").send().await?;
        if response.status() != 200 {
            break response.status().as_u16();
        }
        passed += 1;
    };
    println!("one user's requests: {passed} passed, the next got {rejected}");
    for instance in system.instances.iter().filter(|instance| instance.service == "orders") {
        instance.kill().await;
    }
    let dashboard = client.get(system.url("/api/dashboard")).bearer_auth("user-alice").send().await?.text().await?;
    println!("dashboard without the orders service: {dashboard}");
    Ok(failed == 0 && passed >= 100 && rejected == 429 && dashboard.contains("degraded"))
}
