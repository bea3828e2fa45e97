//! A saga: orders across three services, any of which may fail at any moment.
//!
//! An order reserves stock, charges money and books a shipment, each at its own service over HTTP.
//! No transaction spans the three. So the coordinator records each step in a journal before it runs
//! it, through rampart's stacks and with an idempotency key. If a step fails, it compensates in
//! reverse order every step that may have been executed, and retries until that has succeeded.
//! Events go to an outbox, in one atomic write with the change, and a publisher sends them to the
//! broker.
//!
//! Requests are rejected, responses are lost, requests are executed after their caller has timed
//! out, services and the broker have outages, and the coordinator crashes halfway. At the end the
//! program reads all services' books and checks whether money, stock or events were lost or
//! duplicated; if so, it fails.
//!
//! ```text
//! cargo run --all-features --example order_saga -- --orders 1000 --seed 7
//! cargo run --all-features --example order_saga -- --payment-forgets   # without idempotency keys: the audit fails
//! ```
#![allow(clippy::disallowed_methods, missing_docs, unreachable_pub)] // runs in real time; its items are not a public API

mod audit;
mod broker;
mod coordinator;
mod faults;
mod journal;
mod ledger;
mod remote;
#[path = "../support/serve.rs"]
mod serve;
mod system;

use std::process::ExitCode;

use clap::Parser;

use crate::system::Settings;

/// Orders across three services, any of which may fail at any moment.
#[derive(Parser)]
struct Options {
    /// The number of orders.
    #[arg(long, default_value_t = Settings::default().orders)]
    orders: u32,
    /// The number of concurrent customers.
    #[arg(long, default_value_t = Settings::default().at_once)]
    at_once: u32,
    /// The seed of orders and faults.
    #[arg(long, default_value_t = Settings::default().seed)]
    seed: u64,
    /// Make payment ignore idempotency keys, which the audit must detect.
    #[arg(long)]
    payment_forgets: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Options { orders, at_once, seed, payment_forgets } = Options::parse();
    let settings = Settings { orders, at_once: at_once.max(1), seed, payment_forgets, ..Settings::default() };
    match system::run(settings).await {
        Ok(outcome) => {
            println!("{}", outcome.table());
            for complaint in &outcome.audit.complaints {
                println!("VIOLATED: {complaint}");
            }
            if outcome.audit.complaints.is_empty() {
                println!("no money, stock or event was lost or duplicated");
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("the saga could not run: {error}");
            ExitCode::FAILURE
        }
    }
}
