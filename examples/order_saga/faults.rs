//! What goes wrong on the way to a service and back.

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

/// Shares of the requests to which something happens.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    /// Refused with a 503, before anything is done.
    pub refused: f64,
    /// Done, and the answer is lost: nobody knows whether it was done.
    pub lost: f64,
    /// Done late: after the caller has given up, so that it may overtake or be overtaken.
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
    Refused,
    Lost,
    Late,
}

impl Faults {
    pub fn new(rates: Rates, seed: u64) -> Arc<Self> {
        Arc::new(Self { rates, rng: Mutex::new(SmallRng::seed_from_u64(seed)), down: AtomicBool::new(false) })
    }

    /// An outage: everything is refused, until it is over.
    pub fn set_down(&self, down: bool) {
        self.down.store(down, Relaxed);
    }

    fn fate(&self) -> Fate {
        let Rates { refused, lost, late } = self.rates;
        match self.rng.lock().unwrap().random::<f64>() {
            _ if self.down.load(Relaxed) => Fate::Refused,
            draw if draw < refused => Fate::Refused,
            draw if draw < refused + lost => Fate::Lost,
            draw if draw < refused + lost + late => Fate::Late,
            _ => Fate::Fine,
        }
    }
}

/// The middleware. Reading the books is not disturbed.
pub async fn inject(State(faults): State<Arc<Faults>>, request: Request, next: Next) -> Response {
    if request.method() == Method::GET {
        return next.run(request).await;
    }
    match faults.fate() {
        Fate::Fine => next.run(request).await,
        Fate::Refused => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Fate::Lost => {
            next.run(request).await;
            // Until the caller gives up and closes the connection.
            std::future::pending().await
        }
        Fate::Late => {
            // In a task of its own: it happens although the caller has left.
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(400)).await;
                next.run(request).await;
            });
            std::future::pending().await
        }
    }
}
