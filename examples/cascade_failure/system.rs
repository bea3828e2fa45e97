//! The four services.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
    task::JoinSet,
};
use tower::{Layer, Service, ServiceExt, service_fn, util::BoxCloneSyncService};
use tower_rampart::{
    Classify, DefaultClassifier, Rejection, Verdict, bulkhead::Bulkhead, circuit_breaker::CircuitBreaker,
    event::CircuitState, fallback::Fallback, stack,
};

use crate::{
    BoxError,
    options::{Options, Phases},
};

/// Requests that a service handles concurrently. Further requests wait for a worker.
const EDGE_WORKERS: u32 = 256;
const ORDERS_WORKERS: u32 = 48;
const DEPENDENCY_WORKERS: u32 = 64;
/// The most connections that a service accepts.
const CONNECTIONS: usize = 1024;
/// The timeout of the clients between the services in the bare run.
const BARE_TIMEOUT: Duration = Duration::from_secs(2);
/// The service time of the dependencies.
const WORK: Duration = Duration::from_millis(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    None,
    Rampart,
}

impl Protection {
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "bare",
            Self::Rampart => "protected",
        }
    }
}

/// The gauges of a running system.
#[derive(Clone)]
pub struct Gauges(Arc<GaugesInner>);

struct GaugesInner {
    edge_in_flight: AtomicUsize,
    payments_calls_while_down: AtomicUsize,
    hanging: AtomicBool,
    breaker: Option<CircuitBreaker>,
}

impl Gauges {
    pub fn in_flight(&self) -> usize {
        self.0.edge_in_flight.load(SeqCst)
    }

    pub fn payments_calls_while_down(&self) -> usize {
        self.0.payments_calls_while_down.load(SeqCst)
    }

    pub fn circuit(&self) -> Option<CircuitState> {
        self.0.breaker.as_ref().map(CircuitBreaker::state)
    }
}

/// An upstream service's response, read to its end.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub degraded: bool,
}

impl Reply {
    fn ok(degraded: bool) -> Self {
        Self { status: StatusCode::OK, degraded }
    }
}

/// A request to an upstream service.
#[derive(Clone, Copy, Debug)]
pub struct Path(pub &'static str);
type Upstream = BoxCloneSyncService<Path, Reply, BoxError>;
type Server = BoxCloneSyncService<Request<Incoming>, Response<Full<Bytes>>, Infallible>;

pub struct System {
    pub edge: SocketAddr,
    gauges: Gauges,
    hang: watch::Sender<bool>,
    description: Option<String>,
    servers: JoinSet<()>,
}

impl System {
    pub async fn start(protection: Protection, _options: &Options) -> Result<Self, BoxError> {
        let mut servers = JoinSet::new();
        let (hang, hanging) = watch::channel(false);
        let protected = protection == Protection::Rampart;
        // Trips within a fraction of a second, and probes at least once a second.
        let breaker = CircuitBreaker::builder("payments")
            .consecutive_failures(10)
            .time_window(Duration::from_secs(2))
            .open_duration(Duration::from_millis(400))
            .open_growth(1.5, Duration::from_millis(800))
            .build()?;
        let gauges = Gauges(Arc::new(GaugesInner {
            edge_in_flight: AtomicUsize::new(0),
            payments_calls_while_down: AtomicUsize::new(0),
            hanging: AtomicBool::new(false),
            breaker: protected.then(|| breaker.clone()),
        }));

        let inventory = service_fn(|_: Request<Incoming>| async {
            tokio::time::sleep(WORK).await;
            Ok(respond(&Reply::ok(false)))
        });
        let inventory = server("inventory", DEPENDENCY_WORKERS, protection, inventory)?;
        let inventory = listen(&mut servers, inventory).await?;

        let seen = gauges.clone();
        let payments = service_fn(move |_: Request<Incoming>| {
            let (seen, mut hanging) = (seen.clone(), hanging.clone());
            async move {
                if *hanging.borrow() {
                    seen.0.payments_calls_while_down.fetch_add(1, SeqCst);
                    // The call is accepted, and gets no response until payments recovers.
                    let _ = hanging.wait_for(|hanging| !hanging).await;
                }
                tokio::time::sleep(WORK).await;
                Ok(respond(&Reply::ok(false)))
            }
        });
        // The failing service has no protection of its own.
        let payments = server("payments", DEPENDENCY_WORKERS, Protection::None, payments)?;
        let payments = listen(&mut servers, payments).await?;

        let mut description = None;
        let (to_inventory, to_payments) = if protected {
            // Without a bulkhead, calls to a hanging payments would soon occupy all of orders'
            // workers.
            let stack = stack::client("payments")
                .total_timeout(Duration::from_millis(400))
                .attempt_timeout(Duration::from_millis(200))
                .circuit_breaker(&breaker)
                .bulkhead(&Bulkhead::new("payments", ORDERS_WORKERS / 2)?)
                .classify_with(classify)
                .fallback(Fallback::value("payments", Reply::ok(true)).when(failed))
                .build()?;
            description = Some(format!("protection, for example: {stack}"));
            (protect("inventory", upstream(inventory))?, boxed(stack.layer(upstream(payments))))
        } else {
            (with_timeout(upstream(inventory)), with_timeout(upstream(payments)))
        };
        let orders = service_fn(move |request: Request<Incoming>| {
            let (to_inventory, to_payments) = (to_inventory.clone(), to_payments.clone());
            async move {
                let stock = call(to_inventory, Path("/stock")).await;
                if request.uri().path() == "/catalog" || !stock.status.is_success() {
                    return Ok(respond(&stock));
                }
                Ok(respond(&call(to_payments, Path("/charge")).await))
            }
        });
        let orders = server("orders", ORDERS_WORKERS, protection, orders)?;
        let orders = listen(&mut servers, orders).await?;

        // The edge has a stack per route, so that one route's failures do not count against the
        // other.
        let (catalog, checkout) = if protected {
            (protect("orders.catalog", upstream(orders))?, protect("orders.checkout", upstream(orders))?)
        } else {
            (with_timeout(upstream(orders)), with_timeout(upstream(orders)))
        };
        let seen = gauges.clone();
        let edge = service_fn(move |request: Request<Incoming>| {
            let to_catalog = request.uri().path() == "/catalog";
            let (to, path) =
                if to_catalog { (catalog.clone(), Path("/catalog")) } else { (checkout.clone(), Path("/checkout")) };
            let in_flight = InFlight::enter(&seen);
            async move {
                let reply = call(to, path).await;
                drop(in_flight);
                Ok(respond(&reply))
            }
        });
        let edge = server("edge", EDGE_WORKERS, protection, edge)?;
        let edge = listen(&mut servers, edge).await?;
        Ok(Self { edge, gauges, hang, description, servers })
    }

    pub fn gauges(&self) -> Gauges {
        self.gauges.clone()
    }

    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// Makes payments hang, and recover.
    pub async fn fault_schedule(&self, phases: Phases) {
        tokio::time::sleep(phases.fault).await;
        self.gauges.0.hanging.store(true, SeqCst);
        self.hang.send_replace(true);
        tokio::time::sleep(phases.recovered - phases.fault).await;
        self.gauges.0.hanging.store(false, SeqCst);
        self.hang.send_replace(false);
    }

    pub async fn stop(mut self) {
        self.servers.shutdown().await;
    }
}

/// The client side of a hop that may fail fast but has no fallback.
fn protect(name: &'static str, upstream: impl UpstreamService) -> Result<Upstream, BoxError> {
    let stack = stack::client(name)
        .total_timeout(Duration::from_millis(900))
        .attempt_timeout(Duration::from_millis(700))
        .bulkhead(&Bulkhead::new(name, 192)?)
        .classify_with(classify)
        .build()?;
    Ok(boxed(stack.layer(upstream)))
}

fn classify(result: Result<&Reply, &BoxError>) -> Verdict {
    match result {
        Ok(reply) if reply.status.is_server_error() => Verdict::Failure,
        result => DefaultClassifier.classify(result),
    }
}

fn failed(result: Result<&Reply, &BoxError>) -> bool {
    result.is_ok_and(|reply| reply.status.is_server_error()) || result.is_err()
}

/// One service's workers: with an unbounded queue in the bare run, and a bulkhead with a short
/// queue in the protected run.
fn server<S, F>(name: &'static str, workers: u32, protection: Protection, service: S) -> Result<Server, BoxError>
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible, Future = F>,
    S: Clone + Send + Sync + 'static,
    F: Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send + 'static,
{
    if protection == Protection::Rampart {
        let bulkhead = Bulkhead::builder(name)
            .max_concurrent(workers)
            .max_wait(Duration::from_millis(400))
            .max_queue(512)
            .build()?;
        let stack = stack::server(name).total_timeout(Duration::from_secs(1)).bulkhead(&bulkhead).build()?;
        let unavailable = |_: Rejection| respond(&Reply { status: StatusCode::SERVICE_UNAVAILABLE, degraded: false });
        return Ok(BoxCloneSyncService::new(stack.respond(unavailable).layer(service)));
    }
    let workers = Arc::new(Semaphore::new(workers as usize));
    Ok(BoxCloneSyncService::new(service_fn(move |request: Request<Incoming>| {
        let (workers, service) = (workers.clone(), service.clone());
        async move {
            let _worker = workers.acquire_owned().await;
            service.oneshot(request).await
        }
    })))
}

async fn listen(servers: &mut JoinSet<()>, service: Server) -> Result<SocketAddr, BoxError> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    servers.spawn(async move {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        let mut tasks = JoinSet::new();
        loop {
            let Ok(slot) = connections.clone().acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let service = service.clone();
            // Work continues after the caller has left, as in most services.
            let service = service_fn(move |request| {
                let work = tokio::spawn(service.clone().oneshot(request));
                async move {
                    let panicked = Reply { status: StatusCode::INTERNAL_SERVER_ERROR, degraded: false };
                    let Ok(Ok(response)) = work.await else { return Ok::<_, Infallible>(respond(&panicked)) };
                    Ok(response)
                }
            });
            let service = TowerToHyperService::new(service);
            tasks.spawn(async move {
                let _slot = slot;
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
            while tasks.try_join_next().is_some() {}
        }
    });
    Ok(address)
}

trait UpstreamService:
    Service<Path, Response = Reply, Error = BoxError, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

impl<S> UpstreamService for S where
    S: Service<Path, Response = Reply, Error = BoxError, Future: Send + 'static> + Clone + Send + Sync + 'static
{
}

pub fn http_client() -> Client<HttpConnector, Empty<Bytes>> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).build(connector)
}

fn upstream(address: SocketAddr) -> impl UpstreamService {
    let client = http_client();
    service_fn(move |path: Path| get(client.clone(), address, path))
}

pub async fn get(
    client: Client<HttpConnector, Empty<Bytes>>,
    address: SocketAddr,
    path: Path,
) -> Result<Reply, BoxError> {
    let response = client.get(format!("http://{address}{}", path.0).parse()?).await?;
    let (status, degraded) = (response.status(), response.headers().contains_key("x-degraded"));
    response.into_body().collect().await?;
    Ok(Reply { status, degraded })
}

/// The bare run's only protection: a hand-written timeout.
fn with_timeout(upstream: impl UpstreamService) -> Upstream {
    boxed(service_fn(move |path: Path| {
        let call = tokio::time::timeout(BARE_TIMEOUT, upstream.clone().oneshot(path));
        async move { call.await? }
    }))
}

fn boxed(service: impl UpstreamService) -> Upstream {
    BoxCloneSyncService::new(service)
}

async fn call(upstream: Upstream, path: Path) -> Reply {
    let bad_gateway = Reply { status: StatusCode::BAD_GATEWAY, degraded: false };
    upstream.oneshot(path).await.unwrap_or(bad_gateway)
}

fn respond(reply: &Reply) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
    *response.status_mut() = reply.status;
    if reply.degraded {
        response.headers_mut().insert("x-degraded", http::HeaderValue::from_static("payment deferred"));
    }
    response
}

/// Counts a request in flight until it is dropped.
struct InFlight(Gauges);

impl InFlight {
    fn enter(gauges: &Gauges) -> Self {
        gauges.0.edge_in_flight.fetch_add(1, SeqCst);
        Self(gauges.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.0.edge_in_flight.fetch_sub(1, SeqCst);
    }
}
