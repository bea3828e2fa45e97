//! Reads all services' books over HTTP, and recomputes from the recorded effects whether anything
//! was lost or duplicated.

use std::collections::HashMap;

use serde_json::Value;
use tower_rampart::BoxError;

use crate::{coordinator::Services, remote::Remote};

/// The result of the audit.
#[derive(Debug, Default)]
pub struct Audit {
    pub orders: usize,
    pub confirmed: usize,
    pub cancelled: usize,
    /// Requests that a service recognized by their key and did not execute again.
    pub suppressed: u64,
    /// Events that reached the broker more than once.
    pub repeated_events: usize,
    /// The violated invariants.
    pub complaints: Vec<String>,
}

/// Audits an idle system.
pub async fn audit(coordinator: &Remote, services: &Services) -> Result<Audit, BoxError> {
    let orders = coordinator.get("/orders").await?;
    let orders = orders.as_array().ok_or("orders are a list")?;
    let count = |end: &str| orders.iter().filter(|order| order["end"] == end).count();
    let mut audit = Audit {
        orders: orders.len(),
        confirmed: count("confirmed"),
        cancelled: count("cancelled"),
        ..Audit::default()
    };
    if audit.confirmed + audit.cancelled < audit.orders {
        audit.complaints.push("an order has not ended".to_owned());
    }
    let one = Value::from(1);
    for (name, service, account, amount) in [
        ("inventory", &services.inventory, "item", "quantity"),
        ("payment", &services.payment, "customer", "price"),
        ("shipping", &services.shipping, "region", ""),
    ] {
        let books = service.get("/books").await?;
        audit.suppressed += books["suppressed"].as_u64().unwrap_or(0);
        let amount_of = |order: &Value| order.get(amount).unwrap_or(&one).as_i64().unwrap_or(0);
        balance(name, &books, &mut audit.complaints);
        compare(name, &books, orders, account, amount_of, &mut audit.complaints);
    }
    events(&services.broker.get("/books").await?, orders, &mut audit);
    Ok(audit)
}

/// Checks that each account holds its opening balance plus all recorded changes.
fn balance(name: &str, books: &Value, complaints: &mut Vec<String>) {
    let mut expected: HashMap<&str, i64> = HashMap::new();
    for (account, amount) in books["opening"].as_object().into_iter().flatten() {
        *expected.entry(account).or_default() += amount.as_i64().unwrap_or(0);
    }
    for effect in books["effects"].as_array().into_iter().flatten() {
        *expected.entry(effect["account"].as_str().unwrap_or("")).or_default() +=
            effect["change"].as_i64().unwrap_or(0);
    }
    for (account, expected) in expected {
        if books["accounts"][account].as_i64() != Some(expected) {
            complaints.push(format!("{name}: {account} holds {}, expected {expected}", books["accounts"][account]));
        }
    }
}

/// Checks that a confirmed order took its exact amount once, from the right account, and that any
/// other order holds nothing.
fn compare(
    name: &str,
    books: &Value,
    orders: &[Value],
    account: &str,
    amount: impl Fn(&Value) -> i64,
    complaints: &mut Vec<String>,
) {
    let mut effects: HashMap<&str, Vec<(&str, i64)>> = HashMap::new();
    for effect in books["effects"].as_array().into_iter().flatten() {
        let (order, account) = (effect["order"].as_str().unwrap_or(""), effect["account"].as_str().unwrap_or(""));
        effects.entry(order).or_default().push((account, effect["change"].as_i64().unwrap_or(0)));
    }
    for order in orders {
        let id = order["order"].as_str().unwrap_or("");
        let done = effects.remove(id).unwrap_or_default();
        let takes = done.iter().filter(|(_, change)| *change < 0).count();
        let left: i64 = -done.iter().map(|(_, change)| change).sum::<i64>();
        let expected = if order["end"] == "confirmed" { amount(order) } else { 0 };
        if takes > 1 || left != expected {
            complaints.push(format!("{name}: order {id} holds {left} after {takes} takes, expected {expected}"));
        }
        if done.iter().any(|(from, _)| *from != order[account]) {
            complaints.push(format!("{name}: order {id} took from another customer's account"));
        }
    }
    for id in effects.into_keys() {
        complaints.push(format!("{name}: order {id} was never placed"));
    }
}

/// Checks that a consumer that ignores repeated events sees each order being placed and then
/// ending.
fn events(received: &Value, orders: &[Value], audit: &mut Audit) {
    let mut seen: HashMap<u64, &Value> = HashMap::new();
    let mut stories: HashMap<&str, Vec<&str>> = HashMap::new();
    for event in received.as_array().into_iter().flatten() {
        let id = event["id"].as_u64().unwrap_or(u64::MAX);
        if seen.insert(id, event).is_some() {
            audit.repeated_events += 1;
            continue;
        }
        let (order, event) = (event["order"].as_str().unwrap_or(""), event["event"].as_str().unwrap_or(""));
        stories.entry(order).or_default().push(event);
    }
    for order in orders {
        let story = stories.remove(order["order"].as_str().unwrap_or("")).unwrap_or_default();
        if story != ["placed", order["end"].as_str().unwrap_or("")] {
            audit.complaints.push(format!("the events of order {} are {story:?}", order["order"]));
        }
    }
    for order in stories.into_keys() {
        audit.complaints.push(format!("there are events of order {order}, which was never placed"));
    }
}
