//! The coordinator's journal: all state that it needs to continue after a crash.
//!
//! It stands for a table in a durable database: appends are atomic, and appended records are never
//! lost.

use std::{collections::HashMap, sync::Mutex};

use serde_json::{Value, json};
use tokio::sync::Notify;

/// An order as placed by the customer.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub id: String,
    pub customer: String,
    pub item: String,
    pub quantity: i64,
    pub price: i64,
    pub region: String,
}

/// The steps of the saga, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Reserve,
    Charge,
    Ship,
}

impl Step {
    pub const ALL: [Self; 3] = [Self::Reserve, Self::Charge, Self::Ship];
}

/// How an order ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Confirmed,
    Cancelled,
}

impl End {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Cancelled => "cancelled",
        }
    }
}

/// A record about an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    Placed(Order),
    /// Written before the step's request is sent: from here on the step may have been executed.
    Started(Step),
    Done(Step),
    /// The saga compensates from here on.
    Failed,
    Compensated(Step),
    Ended(End),
}

/// The progress of an order.
#[derive(Clone, Debug)]
pub struct Progress {
    pub order: Order,
    pub started: Vec<Step>,
    pub done: Vec<Step>,
    pub failed: bool,
    pub compensated: Vec<Step>,
    pub end: Option<End>,
}

#[derive(Default)]
struct Contents {
    orders: HashMap<String, Progress>,
    /// The ids, in the order in which the orders were placed.
    placed: Vec<String>,
    outbox: Vec<Value>,
    published: usize,
}

#[derive(Default)]
pub struct Journal {
    contents: Mutex<Contents>,
    /// Notified when an event was added to the outbox.
    pub posted: Notify,
    /// Notified when an order has ended.
    pub ended: Notify,
}

impl Journal {
    /// Writes a fact and, in the same atomic step, the event that announces it, if there is one:
    /// neither exists without the other.
    pub fn write(&self, id: &str, fact: Fact) {
        let mut contents = self.contents.lock().unwrap();
        let event = match &fact {
            Fact::Placed(_) => Some("placed"),
            Fact::Ended(end) => Some(end.as_str()),
            _ => None,
        };
        match fact {
            Fact::Placed(order) => {
                let known = contents.orders.contains_key(id);
                assert!(!known, "an order is placed once");
                contents.placed.push(id.to_owned());
                let (started, done, compensated) = (Vec::new(), Vec::new(), Vec::new());
                let progress = Progress { order, started, done, failed: false, compensated, end: None };
                contents.orders.insert(id.to_owned(), progress);
            }
            fact => {
                let progress = contents.orders.get_mut(id).expect("the order was placed");
                match fact {
                    Fact::Placed(_) => unreachable!("handled above"),
                    Fact::Started(step) => progress.started.push(step),
                    Fact::Done(step) => progress.done.push(step),
                    Fact::Failed => progress.failed = true,
                    Fact::Compensated(step) => progress.compensated.push(step),
                    Fact::Ended(end) => {
                        assert_eq!(progress.end, None, "{id} ends once");
                        progress.end = Some(end);
                    }
                }
            }
        }
        if let Some(event) = event {
            let number = contents.outbox.len();
            contents.outbox.push(json!({ "id": number, "order": id, "event": event }));
        }
        drop(contents);
        if event.is_some() {
            self.posted.notify_one();
            self.ended.notify_waiters();
        }
    }

    pub fn progress(&self, id: &str) -> Option<Progress> {
        self.contents.lock().unwrap().orders.get(id).cloned()
    }

    /// Returns all orders, in the order in which they were placed.
    pub fn all(&self) -> Vec<Progress> {
        let contents = self.contents.lock().unwrap();
        contents.placed.iter().map(|id| contents.orders[id].clone()).collect()
    }

    /// Returns the first unpublished event.
    pub fn next_event(&self) -> Option<Value> {
        let contents = self.contents.lock().unwrap();
        contents.outbox.get(contents.published).cloned()
    }

    /// Records that the first unpublished event has been published.
    pub fn published(&self) {
        self.contents.lock().unwrap().published += 1;
    }

    /// Returns the number of events written, and of events published.
    pub fn outbox(&self) -> (usize, usize) {
        let contents = self.contents.lock().unwrap();
        (contents.outbox.len(), contents.published)
    }
}
