//! A client for another service, with rampart's stacks.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::Value;
use tower::{Layer, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_rampart::{
    AdaptErrorLayer, BoxError,
    circuit_breaker::CircuitBreaker,
    event::{CircuitState, Event, EventKind},
    http::{HttpClassifier, HttpRepeat},
    retry::{Backoff, Jitter, Retry, RetryBudget},
    stack,
};

type Service = BoxCloneSyncService<Request<Full<Bytes>>, Response<Incoming>, BoxError>;

/// Counts of the stacks' actions, for the table.
#[derive(Default)]
pub struct Tally {
    pub retries: AtomicU64,
    pub undo_retries: AtomicU64,
    pub rejected: AtomicU64,
    pub opened: AtomicU64,
}

/// Two clients for one service, which share its circuit breaker.
#[derive(Clone)]
pub struct Remote {
    address: SocketAddr,
    /// Three attempts within the total timeout and a budget, for requests that may fail.
    bounded: Service,
    /// Unlimited attempts, for requests that must succeed.
    until_done: Service,
}

impl Remote {
    /// Creates the clients, with this attempt timeout.
    pub fn new(
        name: &'static str,
        address: SocketAddr,
        attempt: Duration,
        tally: &Arc<Tally>,
    ) -> Result<Self, BoxError> {
        let observed = tally.clone();
        let breaker = CircuitBreaker::builder(name)
            .open_duration(Duration::from_millis(300))
            .observer(move |event: &Event<'_>| {
                let count = match event.kind {
                    EventKind::Rejected { .. } => &observed.rejected,
                    EventKind::StateChanged { to: CircuitState::Open, .. } => &observed.opened,
                    _ => return,
                };
                count.fetch_add(1, Relaxed);
            })
            .build()?;
        let counting = |count: fn(&Tally) -> &AtomicU64| {
            let tally = tally.clone();
            move |event: &Event<'_>| {
                if let EventKind::RetryScheduled { .. } = event.kind {
                    count(&tally).fetch_add(1, Relaxed);
                }
            }
        };
        // Retries may add 30% to the calls: faults are frequent here, and callers few.
        let budget = RetryBudget::builder().ratio(0.3).capacity(100).build()?;
        let bounded =
            Retry::builder(name).interactive().budget(&budget).observer(counting(|tally| &tally.retries)).build()?;
        let unlimited = Retry::builder(name)
            .max_attempts(u32::MAX)
            .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_millis(500)).jitter(Jitter::Equal))
            .no_budget()
            // Waits for an open circuit as long as its rejection says.
            .retry_on_other_instance(true)
            .observer(counting(|tally| &tally.undo_retries))
            .build()?;
        let http = Client::builder(TokioExecutor::new()).build_http();
        let service = |stack: stack::ClientBuilder| -> Result<Service, BoxError> {
            let stack = stack.attempt_timeout(attempt).circuit_breaker(&breaker).without_bulkhead();
            let stack = stack.classify(HttpClassifier::new()).repeat(HttpRepeat::new()).build()?;
            let service = stack.layer(AdaptErrorLayer::new().layer(http.clone()));
            Ok(BoxCloneSyncService::new(ServiceBuilder::new().map_err(BoxError::from).service(service)))
        };
        Ok(Self {
            address,
            bounded: service(stack::client(name).retry(&bounded).total_timeout(attempt * 5))?,
            until_done: service(stack::client(name).retry(&unlimited).without_total_timeout())?,
        })
    }

    /// Posts with a bounded number of attempts. The key makes retries safe.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<(StatusCode, String), BoxError> {
        send(self.bounded.clone(), self.request(path, key, body)?).await
    }

    /// Posts until the response is not a failure.
    pub async fn post_until_done(&self, path: &str, key: &str, body: &Value) -> Result<(StatusCode, String), BoxError> {
        send(self.until_done.clone(), self.request(path, key, body)?).await
    }

    pub async fn get(&self, path: &str) -> Result<Value, BoxError> {
        let request = Request::get(format!("http://{}{path}", self.address)).body(Full::default())?;
        let (_, text) = send(self.until_done.clone(), request).await?;
        Ok(serde_json::from_str(&text)?)
    }

    fn request(&self, path: &str, key: &str, body: &Value) -> Result<Request<Full<Bytes>>, BoxError> {
        let request = Request::post(format!("http://{}{path}", self.address)).header("idempotency-key", key);
        Ok(request.body(Full::from(body.to_string()))?)
    }
}

async fn send(service: Service, request: Request<Full<Bytes>>) -> Result<(StatusCode, String), BoxError> {
    let response = service.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}
