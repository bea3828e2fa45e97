//! One client for all instances of a service: discovery, health checks, balancing, and retries on
//! another instance.
//!
//! ```text
//! total timeout -> retry -> pick another -> buffer -> p2c balance
//!     -> [requests in flight -> tried before? -> breaker -> bulkhead -> attempt timeout -> deadline header -> client]
//! ```
//!
//! The part in brackets exists once per instance. Its breaker is in backpressure mode: while it is
//! open the instance is not ready, and the balancer does not pick it. The balancer's choice does
//! not depend on the request, so an instance that has already failed a request returns it unsent,
//! and the balancer picks again.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{future::BoxFuture, stream};
use http::{
    Request, Response, Uri,
    uri::{Authority, Scheme},
};
use http_body_util::{Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::sync::mpsc;
use tower::{
    Service, ServiceBuilder, ServiceExt,
    balance::p2c::Balance,
    buffer::Buffer,
    discover::Change,
    load::{CompleteOnResponse, PendingRequests},
    util::{BoxCloneSyncService, BoxService},
};
use tower_rampart::{
    AdaptErrorLayer, BoxError, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    event::CircuitState,
    http::{DeadlineHeader, HttpClassifier, HttpRepeat},
    retry::{Backoff, Retry, RetryBudget},
    timeout::Timeout,
};

pub type Call = Request<Full<Bytes>>;
pub type Answer = Response<Incoming>;
type LoadedEndpoint = PendingRequests<Endpoint, CompleteOnResponse>;

/// The settings of a pool.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The interval of the health checks.
    pub check_every: Duration,
    /// This many consecutive checks take an instance out of rotation or put it back.
    pub checks: u32,
    /// The time limit of a request, including all attempts.
    pub total: Duration,
    /// The time limit of an attempt.
    pub attempt: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            check_every: Duration::from_millis(250),
            checks: 2,
            total: Duration::from_secs(3),
            attempt: Duration::from_secs(1),
        }
    }
}

/// The gateway's view of an instance.
pub struct Member {
    pub name: String,
    pub authority: Authority,
    pub breaker: CircuitBreaker,
    in_rotation: AtomicBool,
}

impl Member {
    pub fn in_rotation(&self) -> bool {
        self.in_rotation.load(Relaxed)
    }

    pub fn state(&self) -> CircuitState {
        self.breaker.state()
    }
}

/// A service's instances, and the client that sends to all of them.
#[derive(Clone)]
pub struct Pool {
    name: &'static str,
    members: Arc<[Arc<Member>]>,
    client: BoxCloneSyncService<Call, Answer, BoxError>,
}

impl Pool {
    /// Creates a pool of these instances, by name and authority. Their health checks run as long as
    /// the runtime does.
    pub fn new(
        name: &'static str,
        instances: impl IntoIterator<Item = (String, Authority)>,
        settings: Settings,
    ) -> Result<Self, BoxError> {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let (changes, mut found) = mpsc::unbounded_channel();
        let mut members = Vec::new();
        for (key, (name, authority)) in instances.into_iter().enumerate() {
            // A dead instance refuses connections immediately: three consecutive failures are
            // enough, and until then retries go to other instances.
            let breaker = CircuitBreaker::consecutive(name.clone(), 3)?;
            let member = Arc::new(Member { name, authority, breaker, in_rotation: AtomicBool::new(true) });
            let endpoint = Endpoint::new(key, &member, &http, settings)?;
            changes.send(Change::Insert(key, endpoint.with_load()))?;
            tokio::spawn(health_check(member.clone(), endpoint, settings, changes.clone()));
            members.push(member);
        }
        let discover = stream::poll_fn(move |cx| found.poll_recv(cx).map(|change| change.map(Ok::<_, BoxError>)));
        let balance: Balance<_, Call> = Balance::new(discover);
        let pick_another = PickAnother { balance: BoxCloneSyncService::new(Buffer::new(balance, 1024)) };
        // When one of three instances is killed, a third of the requests fail until its circuit
        // opens, and so do all requests in flight there. The budget must cover those immediately.
        let budget = RetryBudget::builder().capacity(200).build()?;
        let retry = Retry::builder(name)
            .backoff(Backoff::exponential(Duration::from_millis(5), Duration::from_millis(100)))
            .retry_on_other_instance(true)
            .budget(&budget)
            .build()?;
        let client = ServiceBuilder::new()
            .layer(Timeout::new(name, settings.total).layer())
            .map_request(|mut request: Call| {
                request.extensions_mut().insert(Tried::default());
                request
            })
            .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
            .service(pick_another);
        Ok(Self { name, members: members.into(), client: BoxCloneSyncService::new(client) })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Whether any instance is in rotation.
    pub fn is_up(&self) -> bool {
        self.members.iter().any(|member| member.in_rotation())
    }

    /// Sends a request to one of the instances.
    pub async fn send(&self, request: Call) -> Result<Answer, BoxError> {
        if !self.is_up() {
            return Err(Rejection::circuit_open(self.name, None).into());
        }
        self.client.clone().oneshot(request).await
    }
}

/// The instances that a request has been sent to, over all its attempts.
#[derive(Clone, Default)]
struct Tried(Arc<TriedState>);

#[derive(Default)]
struct TriedState {
    instances: Mutex<Vec<usize>>,
    /// Whether instances may be tried again, because there seem to be no others.
    allow_repeats: AtomicBool,
}

/// The result of a pick.
enum Picked {
    Answered(Answer),
    TriedBefore(Call),
}

/// An instance as the balancer sees it.
struct Endpoint {
    key: usize,
    make: Arc<dyn Fn() -> BoxService<Call, Answer, BoxError> + Send + Sync>,
    service: BoxService<Call, Answer, BoxError>,
}

impl Endpoint {
    fn new(
        key: usize,
        member: &Member,
        http: &Client<HttpConnector, Full<Bytes>>,
        settings: Settings,
    ) -> Result<Self, BoxError> {
        let bulkhead = Bulkhead::new(member.name.clone(), 64)?;
        let attempt = Timeout::new(member.name.clone(), settings.attempt);
        let authority = member.authority.clone();
        let stack = ServiceBuilder::new()
            .map_err(BoxError::from)
            .layer(member.breaker.layer().backpressure().classify(HttpClassifier::new()))
            .layer(bulkhead.layer())
            .layer(attempt.layer())
            .layer(DeadlineHeader::millis(http::HeaderName::from_static("x-request-timeout-ms")).send())
            .map_request(move |request: Call| address_to(request, &authority))
            .layer(AdaptErrorLayer::new())
            .service(http.clone());
        let make = Arc::new(move || BoxService::new(stack.clone()));
        Ok(Self { key, service: make(), make })
    }

    fn with_load(&self) -> LoadedEndpoint {
        let endpoint = Self { key: self.key, service: (self.make)(), make: self.make.clone() };
        PendingRequests::new(endpoint, CompleteOnResponse::default())
    }
}

fn address_to(mut request: Call, authority: &Authority) -> Call {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.clone());
    uri.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(uri).expect("the URI has all three parts");
    request.headers_mut().remove(http::header::HOST);
    request
}

impl Service<Call> for Endpoint {
    type Response = Picked;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Picked, BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: Call) -> Self::Future {
        if let Some(Tried(tried)) = request.extensions().get() {
            let mut instances = tried.instances.lock().unwrap();
            if instances.contains(&self.key) && !tried.allow_repeats.load(Relaxed) {
                drop(instances);
                return Box::pin(std::future::ready(Ok(Picked::TriedBefore(request))));
            }
            instances.push(self.key);
        }
        let response = self.service.call(request);
        Box::pin(async move { response.await.map(Picked::Answered) })
    }
}

/// Repeats the pick while the balancer picks an instance that has been tried before.
#[derive(Clone)]
struct PickAnother {
    balance: BoxCloneSyncService<Call, Picked, BoxError>,
}

impl Service<Call> for PickAnother {
    type Response = Answer;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Answer, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Call) -> Self::Future {
        let mut balance = self.balance.clone();
        Box::pin(async move {
            let mut picks = 0;
            loop {
                match balance.ready().await?.call(request).await? {
                    Picked::Answered(response) => return Ok(response),
                    Picked::TriedBefore(unsent) => request = unsent,
                }
                picks += 1;
                // Random picks find an untried instance of three at every third pick. After 50
                // there is probably none.
                if let (50.., Some(Tried(tried))) = (picks, request.extensions().get()) {
                    tried.allow_repeats.store(true, Relaxed);
                }
            }
        })
    }
}

/// Checks an instance's health, records the result in its breaker, and takes it out of rotation or
/// puts it back.
async fn health_check(
    member: Arc<Member>,
    endpoint: Endpoint,
    settings: Settings,
    changes: mpsc::UnboundedSender<Change<usize, LoadedEndpoint>>,
) {
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri = format!("http://{}/healthz", member.authority).parse::<Uri>().expect("an authority makes a valid URI");
    // A dead instance refuses connections immediately. A slow one gets the time limit of a request.
    let limit = Timeout::new("health", settings.attempt);
    let mut every = tokio::time::interval(settings.check_every);
    let mut consecutive = 0;
    loop {
        every.tick().await;
        let response = limit.run(tower_rampart::adapt(http.get(uri.clone()))).await;
        let healthy = response.is_ok_and(|response| response.status().is_success());
        // While the circuit is half-open, health checks serve as probes, as requests do.
        if let Ok(permit) = member.breaker.try_acquire() {
            if healthy { permit.success() } else { permit.failure() }
        }
        consecutive = if healthy == member.in_rotation() { 0 } else { consecutive + 1 };
        if consecutive < settings.checks {
            continue;
        }
        consecutive = 0;
        let change = if healthy {
            member.breaker.close();
            Change::Insert(endpoint.key, endpoint.with_load())
        } else {
            Change::Remove(endpoint.key)
        };
        member.in_rotation.store(healthy, Relaxed);
        if changes.send(change).is_err() {
            return; // the pool has been dropped
        }
    }
}
