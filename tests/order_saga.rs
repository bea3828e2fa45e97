//! The example saga over sockets, with each kind of fault alone and with all of them together.
#![allow(clippy::disallowed_methods, missing_docs, unreachable_pub, dead_code)] // it runs in real time

#[path = "../examples/order_saga/audit.rs"]
mod audit;
#[path = "../examples/order_saga/broker.rs"]
mod broker;
#[path = "../examples/order_saga/coordinator.rs"]
mod coordinator;
#[path = "../examples/order_saga/faults.rs"]
mod faults;
#[path = "../examples/order_saga/journal.rs"]
mod journal;
#[path = "../examples/order_saga/ledger.rs"]
mod ledger;
#[path = "../examples/order_saga/remote.rs"]
mod remote;
#[path = "../examples/support/serve.rs"]
mod serve;
#[path = "../examples/order_saga/system.rs"]
mod system;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use faults::Rates;
use system::{Outcome, Settings, run};

fn without_faults() -> Settings {
    let rates = Rates { rejected: 0.0, lost: 0.0, late: 0.0 };
    Settings { orders: 60, at_once: 6, rates, outages: false, crash: false, ..Settings::default() }
}

async fn run_and_audit(settings: Settings) -> Outcome {
    let outcome = run(settings).await.unwrap();
    let audit = &outcome.audit;
    assert_eq!(audit.complaints, Vec::<String>::new());
    assert_eq!((audit.orders, audit.confirmed + audit.cancelled), (60, 60));
    assert!(audit.confirmed > 0 && audit.cancelled > 0, "{audit:?}");
    outcome
}

#[tokio::test]
async fn without_faults_every_request_is_sent_once() {
    let outcome = run_and_audit(Settings { attempt: Duration::from_secs(10), ..without_faults() }).await;
    let Outcome { audit, tally, .. } = outcome;
    assert_eq!((tally.retries.load(Relaxed), tally.undo_retries.load(Relaxed)), (0, 0));
    assert_eq!((audit.suppressed, audit.repeated_events), (0, 0));
}

#[tokio::test]
async fn lost_responses_and_late_requests_duplicate_nothing() {
    let outcome =
        run_and_audit(Settings { rates: Rates { rejected: 0.1, lost: 0.1, late: 0.05 }, ..without_faults() }).await;
    // A retried charge is recognized by its idempotency key.
    assert!(outcome.audit.suppressed > 0 && outcome.tally.retries.load(Relaxed) > 0);
}

#[tokio::test]
async fn the_audit_detects_a_service_that_ignores_idempotency_keys() {
    let rates = Rates { rejected: 0.0, lost: 0.2, late: 0.0 };
    let outcome = run(Settings { rates, payment_forgets: true, ..without_faults() }).await.unwrap();
    let complaints = &outcome.audit.complaints;
    assert!(
        !complaints.is_empty() && complaints.iter().all(|complaint| complaint.starts_with("payment")),
        "{complaints:?}"
    );
}

#[tokio::test]
async fn a_crashed_coordinator_resumes_from_its_journal() {
    let rates = Rates { rejected: 0.02, lost: 0.05, late: 0.02 };
    assert_eq!(run_and_audit(Settings { rates, crash: true, ..without_faults() }).await.crashes, 1);
}

#[tokio::test]
async fn orders_complete_after_outages_of_services_and_broker() {
    let outcome = run_and_audit(Settings { outages: true, ..without_faults() }).await;
    assert!(outcome.tally.undo_retries.load(Relaxed) > 0);
}

#[tokio::test]
async fn all_faults_together_lose_and_duplicate_nothing() {
    for seed in 2..4 {
        run_and_audit(Settings { orders: 60, at_once: 6, seed, ..Settings::default() }).await;
    }
}
