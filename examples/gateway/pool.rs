//! The instances of a service as one client: discovered, checked, balanced, and asked again elsewhere.
//!
//! ```text
//! total timeout -> retry -> pick another -> buffer -> p2c balance
//!     -> [requests in flight -> tried before? -> breaker -> bulkhead -> attempt timeout -> deadline header -> client]
//! ```
//!
//! What is in brackets there is once per instance. Its breaker is in backpressure mode: while it is open the instance is
//! not ready, and the balancer does not choose it. What the balancer chooses does not depend on the request, so an
//! instance that has failed this request hands it back, and the next choice is made.

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
type Found = PendingRequests<Endpoint, CompleteOnResponse>;

/// How a pool is set up.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How often an instance is asked how it is.
    pub check_every: Duration,
    /// So many checks in a row take it out, or back in.
    pub checks: u32,
    /// Time for a request, all attempts included.
    pub total: Duration,
    /// Time for an attempt.
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

/// An instance, as the gateway knows it.
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

/// A service's instances, and the client that uses them all.
#[derive(Clone)]
pub struct Pool {
    name: &'static str,
    members: Arc<[Arc<Member>]>,
    client: BoxCloneSyncService<Call, Answer, BoxError>,
}

impl Pool {
    /// With these instances, by name and authority. Their health checks run for as long as the runtime does.
    pub fn new(
        name: &'static str,
        instances: impl IntoIterator<Item = (String, Authority)>,
        settings: Settings,
    ) -> Result<Self, BoxError> {
        let http = Client::builder(TokioExecutor::new()).build_http();
        let (changes, mut found) = mpsc::unbounded_channel();
        let mut members = Vec::new();
        for (key, (name, authority)) in instances.into_iter().enumerate() {
            // A dead instance refuses at once: three in a row are enough, and until then requests go elsewhere.
            let breaker = CircuitBreaker::consecutive(name.clone(), 3)?;
            let member = Arc::new(Member { name, authority, breaker, in_rotation: AtomicBool::new(true) });
            let endpoint = Endpoint::new(key, &member, &http, settings)?;
            changes.send(Change::Insert(key, endpoint.clone_loaded()))?;
            tokio::spawn(check(member.clone(), endpoint, settings, changes.clone()));
            members.push(member);
        }
        let discover = stream::poll_fn(move |cx| found.poll_recv(cx).map(|change| change.map(Ok::<_, BoxError>)));
        let balance: Balance<_, Call> = Balance::new(discover);
        let elsewhere = PickAnother { balance: BoxCloneSyncService::new(Buffer::new(balance, 1024)) };
        // One instance of three that is killed fails a third of the requests until its circuit opens, and all that are in
        // flight there: the budget has to pay for those at once.
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
            .service(elsewhere);
        Ok(Self { name, members: members.into(), client: BoxCloneSyncService::new(client) })
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn members(&self) -> &[Arc<Member>] {
        &self.members
    }

    /// Whether there is anybody to ask.
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
struct Tried(Arc<TriedInside>);

#[derive(Default)]
struct TriedInside {
    instances: Mutex<Vec<usize>>,
    /// There seem to be no others.
    again: AtomicBool,
}

/// What an instance makes of a request.
enum Picked {
    Answered(Answer),
    TriedBefore(Call),
}

/// An instance under the balancer.
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
            .map_request(move |request: Call| directed(request, &authority))
            .layer(AdaptErrorLayer::new())
            .service(http.clone());
        let make = Arc::new(move || BoxService::new(stack.clone()));
        Ok(Self { key, service: make(), make })
    }

    fn clone_loaded(&self) -> Found {
        let endpoint = Self { key: self.key, service: (self.make)(), make: self.make.clone() };
        PendingRequests::new(endpoint, CompleteOnResponse::default())
    }
}

fn directed(mut request: Call, authority: &Authority) -> Call {
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(Scheme::HTTP);
    uri.authority = Some(authority.clone());
    uri.path_and_query.get_or_insert_with(|| http::uri::PathAndQuery::from_static("/"));
    *request.uri_mut() = Uri::from_parts(uri).expect("it has all three parts");
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
            if instances.contains(&self.key) && !tried.again.load(Relaxed) {
                drop(instances);
                return Box::pin(std::future::ready(Ok(Picked::TriedBefore(request))));
            }
            instances.push(self.key);
        }
        let answer = self.service.call(request);
        Box::pin(async move { answer.await.map(Picked::Answered) })
    }
}

/// Asks the balancer again while it picks an instance that has been tried.
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
                    Picked::Answered(answer) => return Ok(answer),
                    Picked::TriedBefore(back) => request = back,
                }
                picks += 1;
                // Chance finds the last of three at every third pick: by now it would have, if it were there.
                if let (50.., Some(Tried(tried))) = (picks, request.extensions().get()) {
                    tried.again.store(true, Relaxed);
                }
            }
        })
    }
}

/// Asks an instance how it is, tells its breaker, and takes it out of rotation or back in.
async fn check(
    member: Arc<Member>,
    endpoint: Endpoint,
    settings: Settings,
    changes: mpsc::UnboundedSender<Change<usize, Found>>,
) {
    let http = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let uri = format!("http://{}/healthz", member.authority).parse::<Uri>().expect("an authority makes a URI");
    // A dead instance refuses at once. A slow one is given as long as a request.
    let limit = Timeout::new("health", settings.attempt);
    let mut every = tokio::time::interval(settings.check_every);
    let mut run = 0;
    loop {
        every.tick().await;
        let answer = limit.run(tower_rampart::adapt(http.get(uri.clone()))).await;
        let well = answer.is_ok_and(|response| response.status().is_success());
        // While the circuit is open its probes are the next requests', or these.
        if let Ok(permit) = member.breaker.try_acquire() {
            if well { permit.success() } else { permit.failure() }
        }
        run = if well == member.in_rotation() { 0 } else { run + 1 };
        if run < settings.checks {
            continue;
        }
        run = 0;
        let change = if well {
            member.breaker.close();
            Change::Insert(endpoint.key, endpoint.clone_loaded())
        } else {
            Change::Remove(endpoint.key)
        };
        member.in_rotation.store(well, Relaxed);
        if changes.send(change).is_err() {
            return; // the pool is gone
        }
    }
}
