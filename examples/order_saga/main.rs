//! Orders that need three services, of which any may fail at any moment: a saga.
//!
//! An order reserves stock, charges money and books a shipment, each from a service of its own, over HTTP. There is no
//! transaction over all three. So the coordinator writes down what it is about to do, does it through rampart's stacks
//! with an idempotency key, and if a step cannot be done, undoes in reverse order what may have been done, until that has
//! succeeded. What others should know it puts into an outbox, with the change itself, and a publisher brings it to the
//! broker.
//!
//! Requests are refused, answers are lost, requests are carried out after their caller has given up, services and the
//! broker are down for a while, and the coordinator crashes in the middle. At the end the program reads everybody's books and
//! computes whether money, stock or events were lost or doubled; it fails if so.
//!
//! ```text
//! cargo run --all-features --example order_saga -- --orders 1000 --seed 7
//! cargo run --all-features --example order_saga -- --payment-forgets   # without idempotency keys: it is found out
//! ```
#![allow(clippy::disallowed_methods, missing_docs, unreachable_pub)] // in real time; its items are not for others

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

/// Orders that need three services, of which any may fail at any moment.
#[derive(Parser)]
struct Options {
    /// How many orders are placed.
    #[arg(long, default_value_t = Settings::default().orders)]
    orders: u32,
    /// How many customers order at once.
    #[arg(long, default_value_t = Settings::default().at_once)]
    at_once: u32,
    /// The seed of orders and faults.
    #[arg(long, default_value_t = Settings::default().seed)]
    seed: u64,
    /// Payment takes no notice of idempotency keys: what the audit must find.
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
                println!("DOES NOT HOLD: {complaint}");
            }
            if outcome.audit.complaints.is_empty() {
                println!("no money, no stock and no event was lost or doubled");
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
