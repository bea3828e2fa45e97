//! Payment, inventory and shipping: services that take something from an account and can give it back.
//!
//! For payment an account is a customer's money, for inventory an item's stock, for shipping a region's capacity. They know
//! what they have done by the order: taking twice takes once, and what was given back can no longer be taken, even if
//! the request to take it arrives later than the one to give it back.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::faults::{self, Faults};

/// What a service knows.
pub struct Ledger {
    /// Forgets which requests it has seen, as a service does that takes no notice of idempotency keys.
    forgets_keys: bool,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    opening: HashMap<String, i64>,
    accounts: HashMap<String, i64>,
    known: HashMap<String, Known>,
    /// All that was done, in order: what the audit recomputes everything from.
    effects: Vec<Value>,
    suppressed: u64,
}

#[derive(Clone)]
enum Known {
    Taken { account: String, amount: i64 },
    Refused,
    GivenBack,
}

impl Ledger {
    pub fn new(accounts: HashMap<String, i64>, forgets_keys: bool) -> Arc<Self> {
        let inside = Inside { opening: accounts.clone(), accounts, ..Inside::default() };
        Arc::new(Self { forgets_keys, inside: Mutex::new(inside) })
    }

    fn take(&self, key: &str, order: &str, account: &str, amount: i64) -> StatusCode {
        let mut inside = self.inside.lock().unwrap();
        let known = inside.known.get(key).cloned();
        match known {
            Some(Known::Taken { .. }) if self.forgets_keys => {}
            Some(known) => {
                inside.suppressed += 1;
                return match known {
                    Known::Taken { .. } => StatusCode::OK,
                    Known::Refused => StatusCode::UNPROCESSABLE_ENTITY,
                    Known::GivenBack => StatusCode::GONE,
                };
            }
            None => {}
        }
        let left = inside.accounts.get(account).copied().unwrap_or(0);
        if left < amount {
            inside.known.insert(key.to_owned(), Known::Refused);
            return StatusCode::UNPROCESSABLE_ENTITY;
        }
        inside.accounts.insert(account.to_owned(), left - amount);
        inside.effects.push(json!({ "order": order, "account": account, "change": -amount }));
        inside.known.insert(key.to_owned(), Known::Taken { account: account.to_owned(), amount });
        StatusCode::OK
    }

    /// Whether or not it was taken, afterwards it is not, and never will be.
    fn give_back(&self, key: &str, order: &str) -> StatusCode {
        let mut inside = self.inside.lock().unwrap();
        match inside.known.insert(key.to_owned(), Known::GivenBack) {
            Some(Known::Taken { account, amount }) => {
                *inside.accounts.entry(account.clone()).or_default() += amount;
                inside.effects.push(json!({ "order": order, "account": account, "change": amount }));
            }
            Some(Known::GivenBack) => inside.suppressed += 1,
            Some(Known::Refused) | None => {}
        }
        StatusCode::OK
    }

    fn books(&self) -> Value {
        let Inside { opening, accounts, effects, suppressed, .. } = &*self.inside.lock().unwrap();
        json!({ "opening": opening, "accounts": accounts, "effects": effects, "suppressed": suppressed })
    }
}

/// The service over HTTP: `POST /take`, `POST /give-back`, `GET /books`.
pub fn router(ledger: Arc<Ledger>, faults: Arc<Faults>) -> Router {
    Router::new()
        .route("/take", post(take))
        .route("/give-back", post(give_back))
        .route("/books", get(books))
        .with_state(ledger)
        .layer(middleware::from_fn_with_state(faults, faults::inject))
}

async fn take(State(ledger): State<Arc<Ledger>>, headers: HeaderMap, body: String) -> StatusCode {
    let (Some(key), Ok(body)) = (key(&headers), serde_json::from_str::<Value>(&body)) else {
        return StatusCode::BAD_REQUEST;
    };
    match (body["order"].as_str(), body["account"].as_str(), body["amount"].as_i64()) {
        (Some(order), Some(account), Some(amount)) => ledger.take(key, order, account, amount),
        _ => StatusCode::BAD_REQUEST,
    }
}

async fn give_back(State(ledger): State<Arc<Ledger>>, headers: HeaderMap, body: String) -> StatusCode {
    let (Some(key), Ok(body)) = (key(&headers), serde_json::from_str::<Value>(&body)) else {
        return StatusCode::BAD_REQUEST;
    };
    body["order"].as_str().map_or(StatusCode::BAD_REQUEST, |order| ledger.give_back(key, order))
}

async fn books(State(ledger): State<Arc<Ledger>>) -> Response {
    ledger.books().to_string().into_response()
}

fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get("idempotency-key")?.to_str().ok()
}
