//! Another service, called through rampart's stacks.

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

/// What the stacks did, for the table.
#[derive(Default)]
pub struct Tally {
    pub retries: AtomicU64,
    pub undo_retries: AtomicU64,
    pub refused: AtomicU64,
    pub opened: AtomicU64,
}

/// Two ways to call one service; they share its circuit breaker.
#[derive(Clone)]
pub struct Remote {
    address: SocketAddr,
    /// Three attempts within a second and a budget: for what can be given up.
    eager: Service,
    /// Attempts until it succeeds: for what must happen.
    until_done: Service,
}

impl Remote {
    /// With so much time for an attempt.
    pub fn new(
        name: &'static str,
        address: SocketAddr,
        attempt: Duration,
        tally: &Arc<Tally>,
    ) -> Result<Self, BoxError> {
        let watching = tally.clone();
        let breaker = CircuitBreaker::builder(name)
            .open_duration(Duration::from_millis(300))
            .observer(move |event: &Event<'_>| {
                let count = match event.kind {
                    EventKind::Rejected { .. } => &watching.refused,
                    EventKind::StateChanged { to: CircuitState::Open, .. } => &watching.opened,
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
        // A third of the calls may be repeated: the faults here are many, and the callers few.
        let budget = RetryBudget::builder().ratio(0.3).capacity(100).build()?;
        let few =
            Retry::builder(name).interactive().budget(&budget).observer(counting(|tally| &tally.retries)).build()?;
        let endless = Retry::builder(name)
            .max_attempts(u32::MAX)
            .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_millis(500)).jitter(Jitter::Equal))
            .no_budget()
            // An open circuit is waited for: it says how long.
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
            eager: service(stack::client(name).retry(&few).total_timeout(attempt * 5))?,
            until_done: service(stack::client(name).retry(&endless).without_total_timeout())?,
        })
    }

    /// Posts, and gives up at some time. The key makes it safe to repeat.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<(StatusCode, String), BoxError> {
        send(self.eager.clone(), self.request(path, key, body)?).await
    }

    /// Posts until there is an answer that is no failure.
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
