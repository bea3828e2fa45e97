//! What the coordinator has written down: all that it needs to go on after a crash.
//!
//! It stands for a table in a durable database: appending is atomic, what was appended stays.

use std::{collections::HashMap, sync::Mutex};

use serde_json::{Value, json};
use tokio::sync::Notify;

/// An order, as it was placed.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub id: String,
    pub customer: String,
    pub item: String,
    pub quantity: i64,
    pub price: i64,
    pub region: String,
}

/// The steps of the saga, in their order.
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

/// What is written down of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    Placed(Order),
    /// Written before the step's request is sent: from here on it may have been done.
    Begins(Step),
    Done(Step),
    /// The saga goes backwards from here.
    Fails,
    Undone(Step),
    Ended(End),
}

/// How far an order has come.
#[derive(Clone, Debug)]
pub struct Progress {
    pub order: Order,
    pub begun: Vec<Step>,
    pub done: Vec<Step>,
    pub fails: bool,
    pub undone: Vec<Step>,
    pub end: Option<End>,
}

#[derive(Default)]
struct Inside {
    orders: HashMap<String, Progress>,
    /// In the order in which they were placed.
    placed: Vec<String>,
    outbox: Vec<Value>,
    published: usize,
}

#[derive(Default)]
pub struct Journal {
    inside: Mutex<Inside>,
    /// Something was put into the outbox.
    pub posted: Notify,
    /// An order has ended.
    pub ended: Notify,
}

impl Journal {
    /// Writes a fact down, and in the same step, if others should know of it, the event: there is never one without the
    /// other.
    pub fn write(&self, id: &str, fact: Fact) {
        let mut inside = self.inside.lock().unwrap();
        let event = match &fact {
            Fact::Placed(_) => Some("placed"),
            Fact::Ended(end) => Some(end.as_str()),
            _ => None,
        };
        match fact {
            Fact::Placed(order) => {
                let known = inside.orders.contains_key(id);
                assert!(!known, "an order is placed once");
                inside.placed.push(id.to_owned());
                let (begun, done, undone) = (Vec::new(), Vec::new(), Vec::new());
                inside.orders.insert(id.to_owned(), Progress { order, begun, done, fails: false, undone, end: None });
            }
            fact => {
                let progress = inside.orders.get_mut(id).expect("it was placed");
                match fact {
                    Fact::Placed(_) => unreachable!("see above"),
                    Fact::Begins(step) => progress.begun.push(step),
                    Fact::Done(step) => progress.done.push(step),
                    Fact::Fails => progress.fails = true,
                    Fact::Undone(step) => progress.undone.push(step),
                    Fact::Ended(end) => {
                        assert_eq!(progress.end, None, "{id} ends once");
                        progress.end = Some(end);
                    }
                }
            }
        }
        if let Some(event) = event {
            let number = inside.outbox.len();
            inside.outbox.push(json!({ "id": number, "order": id, "event": event }));
        }
        drop(inside);
        if event.is_some() {
            self.posted.notify_one();
            self.ended.notify_waiters();
        }
    }

    pub fn progress(&self, id: &str) -> Option<Progress> {
        self.inside.lock().unwrap().orders.get(id).cloned()
    }

    /// All orders, in the order in which they were placed.
    pub fn all(&self) -> Vec<Progress> {
        let inside = self.inside.lock().unwrap();
        inside.placed.iter().map(|id| inside.orders[id].clone()).collect()
    }

    /// The first event that has not been published.
    pub fn next_event(&self) -> Option<Value> {
        let inside = self.inside.lock().unwrap();
        inside.outbox.get(inside.published).cloned()
    }

    pub fn published(&self) {
        self.inside.lock().unwrap().published += 1;
    }

    pub fn outbox(&self) -> (usize, usize) {
        let inside = self.inside.lock().unwrap();
        (inside.outbox.len(), inside.published)
    }
}
