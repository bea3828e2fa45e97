//! The broker: keeps all published events, including duplicates.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State,
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::StatusCode;
use serde_json::Value;

use crate::faults::{self, Faults};

#[derive(Default)]
pub struct Broker(Mutex<Vec<Value>>);

/// The broker over HTTP: `POST /publish`, `GET /books`.
pub fn router(broker: Arc<Broker>, faults: Arc<Faults>) -> Router {
    Router::new()
        .route("/publish", post(publish))
        .route("/books", get(books))
        .with_state(broker)
        .layer(middleware::from_fn_with_state(faults, faults::inject))
}

async fn publish(State(broker): State<Arc<Broker>>, body: String) -> StatusCode {
    match serde_json::from_str(&body) {
        Ok(event) => {
            broker.0.lock().unwrap().push(event);
            StatusCode::OK
        }
        Err(_) => StatusCode::BAD_REQUEST,
    }
}

async fn books(State(broker): State<Arc<Broker>>) -> Response {
    Value::from(broker.0.lock().unwrap().clone()).to_string().into_response()
}
