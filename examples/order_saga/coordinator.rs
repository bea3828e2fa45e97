//! The order service: accepts orders, and drives each of them to its end despite faults and
//! crashes.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    task::{JoinHandle, JoinSet},
};

use crate::{
    journal::{End, Fact, Journal, Order, Progress, Step},
    remote::Remote,
    serve::Server,
};

/// The services that an order depends on.
#[derive(Clone)]
pub struct Services {
    pub inventory: Remote,
    pub payment: Remote,
    pub shipping: Remote,
    pub broker: Remote,
}

impl Services {
    fn of(&self, step: Step) -> &Remote {
        match step {
            Step::Reserve => &self.inventory,
            Step::Charge => &self.payment,
            Step::Ship => &self.shipping,
        }
    }
}

/// A running coordinator.
pub struct Coordinator {
    server: Server,
    publisher: JoinHandle<()>,
    shared: Arc<Shared>,
}

impl Coordinator {
    /// Starts from the journal: continues all open orders, publishes the events in the outbox, and
    /// accepts new orders.
    pub fn start(listener: TcpListener, journal: Arc<Journal>, services: Services) -> Self {
        let (driven, sagas) = (Mutex::default(), Mutex::new(Some(JoinSet::new())));
        let shared = Arc::new(Shared { journal, services, driven, sagas });
        for progress in shared.journal.all() {
            if progress.end.is_none() {
                shared.clone().drive(&progress.order.id);
            }
        }
        let router = Router::new().route("/orders", post(place).get(list)).with_state(shared.clone());
        let publisher = tokio::spawn(publish(shared.journal.clone(), shared.services.broker.clone()));
        Self { server: Server::start(listener, router), publisher, shared }
    }

    /// Crashes: aborts all work at its current point.
    pub async fn crash(self) {
        self.publisher.abort();
        drop(self.publisher.await);
        self.server.kill().await;
        let sagas = self.shared.sagas.lock().unwrap().take();
        if let Some(mut sagas) = sagas {
            sagas.shutdown().await;
        }
    }
}

struct Shared {
    journal: Arc<Journal>,
    services: Services,
    /// Orders that this coordinator is driving.
    driven: Mutex<HashSet<String>>,
    /// `None` after a crash, when a handler may still be running to its next await.
    sagas: Mutex<Option<JoinSet<()>>>,
}

impl Shared {
    fn drive(self: Arc<Self>, id: &str) {
        if self.driven.lock().unwrap().insert(id.to_owned()) {
            let (shared, id) = (self.clone(), id.to_owned());
            if let Some(sagas) = &mut *self.sagas.lock().unwrap() {
                sagas.spawn(async move { shared.saga(&id).await });
            }
        }
    }

    /// Runs the steps until all are done or one fails, then compensates every step that may have
    /// been executed. Each record is written to the journal before the action that follows from it,
    /// so the saga can resume after any record.
    async fn saga(&self, id: &str) {
        let write = |fact| self.journal.write(id, fact);
        let progress = self.journal.progress(id).expect("the order was placed");
        if progress.end.is_some() {
            return; // a repeated request for an order that has ended
        }
        let mut failed = progress.failed;
        for step in Step::ALL {
            if failed || progress.done.contains(&step) {
                continue;
            }
            if !progress.started.contains(&step) {
                write(Fact::Started(step));
            }
            if self.run_step(step, &progress.order).await {
                write(Fact::Done(step));
            } else {
                write(Fact::Failed);
                failed = true;
            }
        }
        if !failed {
            return write(Fact::Ended(End::Confirmed));
        }
        let started = self.journal.progress(id).expect("the order was placed").started;
        for step in started.into_iter().rev().filter(|step| !progress.compensated.contains(step)) {
            self.compensate(step, &progress.order).await;
            write(Fact::Compensated(step));
        }
        write(Fact::Ended(End::Cancelled));
    }

    /// Runs a step, and returns whether it is known to be done. If not, it may still have been
    /// executed: a response can be lost.
    async fn run_step(&self, step: Step, order: &Order) -> bool {
        let (account, amount) = match step {
            Step::Reserve => (&order.item, order.quantity),
            Step::Charge => (&order.customer, order.price),
            Step::Ship => (&order.region, 1),
        };
        let body = json!({ "order": order.id, "account": account, "amount": amount });
        let answer = self.services.of(step).post("/take", &key(step, order), &body).await;
        answer.is_ok_and(|(status, _)| status == StatusCode::OK)
    }

    async fn compensate(&self, step: Step, order: &Order) {
        let body = json!({ "order": order.id });
        let answer = self.services.of(step).post_until_done("/return", &key(step, order), &body).await;
        // The attempts are unlimited, and the request is valid.
        assert!(matches!(&answer, Ok((StatusCode::OK, _))), "{answer:?}");
    }
}

/// The idempotency key of a step: the same for all attempts and after a crash.
fn key(step: Step, order: &Order) -> String {
    format!("{}-{step:?}", order.id)
}

/// Publishes the outbox in order, retrying each event until the broker has it. A crash between the
/// publication and its record publishes an event twice; consumers recognize it by its id.
async fn publish(journal: Arc<Journal>, broker: Remote) {
    loop {
        let Some(event) = journal.next_event() else {
            journal.posted.notified().await;
            continue;
        };
        let key = event["id"].to_string();
        let answer = broker.post_until_done("/publish", &key, &event).await;
        assert!(matches!(&answer, Ok((StatusCode::OK, _))), "{answer:?}");
        journal.published();
    }
}

/// Accepts an order once, and responds when it has ended. The idempotency key is the order's id.
async fn place(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> Response {
    let id = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let (Some(id), Ok(body)) = (id, serde_json::from_str::<Value>(&body)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let text = |field: &str| body[field].as_str().map(str::to_owned);
    let (Some(customer), Some(item), Some(region), Some(quantity), Some(price)) =
        (text("customer"), text("item"), text("region"), body["quantity"].as_i64(), body["price"].as_i64())
    else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    {
        // The lock covers both steps, so that two requests with one key place one order.
        let driven = shared.driven.lock().unwrap();
        if shared.journal.progress(&id).is_none() {
            let order = Order { id: id.clone(), customer, item, quantity, price, region };
            shared.journal.write(&id, Fact::Placed(order));
        }
        drop(driven);
    }
    shared.clone().drive(&id);
    loop {
        let ended = shared.journal.ended.notified();
        if let Some(end) = shared.journal.progress(&id).and_then(|progress| progress.end) {
            return end.as_str().into_response();
        }
        ended.await;
    }
}

async fn list(State(shared): State<Arc<Shared>>) -> Response {
    let show = |Progress { order, end, .. }: Progress| {
        json!({
            "order": order.id,
            "customer": order.customer,
            "item": order.item,
            "quantity": order.quantity,
            "price": order.price,
            "region": order.region,
            "end": end.map(End::as_str),
        })
    };
    shared.journal.all().into_iter().map(show).collect::<Value>().to_string().into_response()
}
