//! Faults on the way to a service and back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode};
use rand::{RngExt, SeedableRng, rngs::SmallRng};

/// The shares of requests that suffer each fault.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Rejected with a 503 before execution.
    pub rejected: f64,
    /// Executed, but the response is lost: the caller cannot know whether the request was executed.
    pub lost: f64,
    /// Executed late, after the caller has timed out, so that requests may be reordered.
    pub late: f64,
}

/// The faults of one service.
pub struct Faults {
    rates: Rates,
    rng: Mutex<SmallRng>,
    down: AtomicBool,
}

enum Fate {
    Fine,
    Rejected,
    Lost,
    Late,
}

impl Faults {
    pub fn new(rates: Rates, seed: u64) -> Arc<Self> {
        Arc::new(Self { rates, rng: Mutex::new(SmallRng::seed_from_u64(seed)), down: AtomicBool::new(false) })
    }

    /// Starts or ends an outage, during which every request is rejected.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Relaxed);
    }

    fn fate(&self) -> Fate {
        let Rates { rejected, lost, late } = self.rates;
        match self.rng.lock().unwrap().random::<f64>() {
            _ if self.down.load(Relaxed) => Fate::Rejected,
            draw if draw < rejected => Fate::Rejected,
            draw if draw < rejected + lost => Fate::Lost,
            draw if draw < rejected + lost + late => Fate::Late,
            _ => Fate::Fine,
        }
    }
}

/// The middleware that injects the faults. `GET` requests, which read the books, are not affected.
pub async fn inject(State(faults): State<Arc<Faults>>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    match faults.fate() {
        Fate::Fine => next.run(request).await,
        Fate::Rejected => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Fate::Lost => {
            next.run(request).await;
            // Pending until the caller times out and closes the connection.
            std::future::pending().await
        }
        Fate::Late => {
            // Runs in its own task, so that the request is executed although the caller has left.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(400)).await;
                next.run(request).await;
            });
            std::future::pending().await
        }
    }
}
