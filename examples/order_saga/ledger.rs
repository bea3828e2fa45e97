//! Payment, inventory and shipping: services that take an amount from an account and can return it.
//!
//! For payment an account is a customer's money, for inventory an item's stock, for shipping a
//! region's capacity. Requests are idempotent by their key: taking twice takes once, and a returned
//! amount cannot be taken again, even if the request to take it arrives after the request to return
//! it.

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

/// The state of a service.
pub struct Ledger {
    /// Whether the service ignores idempotency keys.
    forgets_keys: bool,
    inner: Mutex<Books>,
}

#[derive(Default)]
struct Books {
    opening: HashMap<String, i64>,
    accounts: HashMap<String, i64>,
    known: HashMap<String, Outcome>,
    /// All executed changes, in order, from which the audit recomputes the accounts.
    effects: Vec<Value>,
    suppressed: u64,
}

#[derive(Clone)]
enum Outcome {
    Taken { account: String, amount: i64 },
    Rejected,
    Returned,
}

impl Ledger {
    pub fn new(accounts: HashMap<String, i64>, forgets_keys: bool) -> Arc<Self> {
        let inner = Books { opening: accounts.clone(), accounts, ..Books::default() };
        Arc::new(Self { forgets_keys, inner: Mutex::new(inner) })
    }

    fn take(&self, key: &str, order: &str, account: &str, amount: i64) -> StatusCode {
        let mut inner = self.inner.lock().unwrap();
        let known = inner.known.get(key).cloned();
        match known {
            Some(Outcome::Taken { .. }) if self.forgets_keys => {}
            Some(outcome) => {
                inner.suppressed += 1;
                return match outcome {
                    Outcome::Taken { .. } => StatusCode::OK,
                    Outcome::Rejected => StatusCode::UNPROCESSABLE_ENTITY,
                    Outcome::Returned => StatusCode::GONE,
                };
            }
            None => {}
        }
        let left = inner.accounts.get(account).copied().unwrap_or(0);
        if left < amount {
            inner.known.insert(key.to_owned(), Outcome::Rejected);
            return StatusCode::UNPROCESSABLE_ENTITY;
        }
        inner.accounts.insert(account.to_owned(), left - amount);
        inner.effects.push(json!({ "order": order, "account": account, "change": -amount }));
        inner.known.insert(key.to_owned(), Outcome::Taken { account: account.to_owned(), amount });
        StatusCode::OK
    }

    /// Returns the amount if it was taken, and prevents it from being taken later.
    fn return_amount(&self, key: &str, order: &str) -> StatusCode {
        let mut inner = self.inner.lock().unwrap();
        match inner.known.insert(key.to_owned(), Outcome::Returned) {
            Some(Outcome::Taken { account, amount }) => {
                *inner.accounts.entry(account.clone()).or_default() += amount;
                inner.effects.push(json!({ "order": order, "account": account, "change": amount }));
            }
            Some(Outcome::Returned) => inner.suppressed += 1,
            Some(Outcome::Rejected) | None => {}
        }
        StatusCode::OK
    }

    fn books(&self) -> Value {
        let Books { opening, accounts, effects, suppressed, .. } = &*self.inner.lock().unwrap();
        json!({ "opening": opening, "accounts": accounts, "effects": effects, "suppressed": suppressed })
    }
}

/// The service over HTTP: `POST /take`, `POST /return`, `GET /books`.
pub fn router(ledger: Arc<Ledger>, faults: Arc<Faults>) -> Router {
    Router::new()
        .route("/take", post(take))
        .route("/return", post(return_amount))
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

async fn return_amount(State(ledger): State<Arc<Ledger>>, headers: HeaderMap, body: String) -> StatusCode {
    let (Some(key), Ok(body)) = (key(&headers), serde_json::from_str::<Value>(&body)) else {
        return StatusCode::BAD_REQUEST;
    };
    body["order"].as_str().map_or(StatusCode::BAD_REQUEST, |order| ledger.return_amount(key, order))
}

async fn books(State(ledger): State<Arc<Ledger>>) -> Response {
    ledger.books().to_string().into_response()
}

fn key(headers: &HeaderMap) -> Option<&str> {
    headers.get("idempotency-key")?.to_str().ok()
}
