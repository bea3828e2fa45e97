//! The example saga, over sockets, in each kind of trouble by itself and in all of it.
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

fn quiet() -> Settings {
    let rates = Rates { refused: 0.0, lost: 0.0, late: 0.0 };
    Settings { orders: 60, at_once: 6, rates, outages: false, crash: false, ..Settings::default() }
}

async fn clean(settings: Settings) -> Outcome {
    let outcome = run(settings).await.unwrap();
    let audit = &outcome.audit;
    assert_eq!(audit.complaints, Vec::<String>::new());
    assert_eq!((audit.orders, audit.confirmed + audit.cancelled), (60, 60));
    assert!(audit.confirmed > 0 && audit.cancelled > 0, "{audit:?}");
    outcome
}

#[tokio::test]
async fn without_faults_every_request_is_sent_once() {
    let outcome = clean(Settings { attempt: Duration::from_secs(10), ..quiet() }).await;
    let Outcome { audit, tally, .. } = outcome;
    assert_eq!((tally.retries.load(Relaxed), tally.undo_retries.load(Relaxed)), (0, 0));
    assert_eq!((audit.suppressed, audit.repeated_events), (0, 0));
}

#[tokio::test]
async fn lost_answers_and_late_requests_double_nothing() {
    let outcome = clean(Settings { rates: Rates { refused: 0.1, lost: 0.1, late: 0.05 }, ..quiet() }).await;
    // A charge that is retried is known by its key.
    assert!(outcome.audit.suppressed > 0 && outcome.tally.retries.load(Relaxed) > 0);
}

#[tokio::test]
async fn a_service_that_takes_no_notice_of_keys_is_found_out() {
    let rates = Rates { refused: 0.0, lost: 0.2, late: 0.0 };
    let outcome = run(Settings { rates, payment_forgets: true, ..quiet() }).await.unwrap();
    let complaints = &outcome.audit.complaints;
    assert!(
        !complaints.is_empty() && complaints.iter().all(|complaint| complaint.starts_with("payment")),
        "{complaints:?}"
    );
}

#[tokio::test]
async fn a_coordinator_that_crashes_begins_again_from_its_journal() {
    let rates = Rates { refused: 0.02, lost: 0.05, late: 0.02 };
    assert_eq!(clean(Settings { rates, crash: true, ..quiet() }).await.crashes, 1);
}

#[tokio::test]
async fn outages_of_services_and_broker_are_waited_out() {
    let outcome = clean(Settings { outages: true, ..quiet() }).await;
    assert!(outcome.tally.undo_retries.load(Relaxed) > 0);
}

#[tokio::test]
async fn all_at_once_loses_and_doubles_nothing() {
    for seed in 2..4 {
        clean(Settings { orders: 60, at_once: 6, seed, ..Settings::default() }).await;
    }
}
