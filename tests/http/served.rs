//! Servers behind a stack, and HTTP/2 and gRPC clients, over real sockets.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{Router, body::Body, extract::ConnectInfo, routing::get};
use bytes::{Buf, BufMut, Bytes};
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tonic::{Code, Status};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AdaptErrorLayer, BoxError, RespondLayer,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    http::{
        ClientIp, DeadlineHeader, ForwardedIn, GrpcClassifier, HttpClassifier, HttpRepeat, IpKey, PeerAddr, ReplayBody,
        ReplayLayer, Responses, full_response::FullResponseLayer, grpc_response,
    },
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Backoff, Retry},
    stack,
    timeout::Timeout,
};

use crate::secs;

const SOON: Duration = Duration::from_millis(300);

async fn axum(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
    format!("http://{address}")
}

/// Each layer's rejection becomes its own response, with `layer` around all routes and
/// `route_layer` around one.
#[tokio::test]
async fn an_axum_server_responds_to_rejections() {
    let bulkhead = Bulkhead::new("api", 1).unwrap();
    let limiter = RateLimiter::new("limited", Rate::per_hour(1)).unwrap();
    let slow = get(|| async { std::future::pending::<()>().await });
    let limited = RespondLayer::new(limiter.layer(), Responses::problem_json().respond::<Body>());
    let stack = stack::server("api").bulkhead(&bulkhead).total_timeout(SOON).build().unwrap();
    let router = Router::new()
        .route("/limited", get(|| async { "hello" }))
        .route_layer(limited)
        .route("/", get(|| async { "hello" }))
        .route("/slow", slow)
        .layer(stack.respond(Responses::problem_json().respond::<Body>()));
    let url = axum(router).await;
    let get_path = async |path: &str| {
        let response = reqwest::get(format!("{url}{path}")).await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), header("retry-after"), header("ratelimit"), header("content-type"))
    };
    assert_eq!(get_path("/").await.0, 200);
    assert_eq!(get_path("/limited").await.0, 200);
    let (status, after, limit, content) = get_path("/limited").await;
    assert_eq!((status, content.as_deref()), (429, Some("application/problem+json")));
    let after: u64 = after.unwrap().parse().unwrap();
    assert!(after > 3500 && after <= 3600);
    assert_eq!(limit.unwrap(), format!("\"limited\";r=0;t={after}"));
    assert_eq!(get_path("/slow").await.0, 504);
    let permit = bulkhead.try_acquire().unwrap();
    let (status, after, ..) = get_path("/").await;
    assert_eq!((status, after.as_deref()), (503, None));
    drop(permit);
    assert_eq!((get_path("/").await.0, bulkhead.snapshot().in_flight), (200, 0));
}

#[tokio::test]
async fn clients_are_limited_by_address_and_cannot_choose_another() {
    let served = async |client: ClientIp<fn(&http::Extensions) -> Option<std::net::IpAddr>>| {
        let limiter = KeyedRateLimiter::<IpKey>::builder("ip", Rate::per_hour(100)).build().unwrap();
        let layer = limiter.layer(move |request: &Request<Body>| client.key(request));
        let respond = RespondLayer::new(layer, Responses::plain().respond::<Body>());
        axum(Router::new().route("/", get(|| async { "hello" })).layer(respond)).await
    };
    fn peer(extensions: &http::Extensions) -> Option<std::net::IpAddr> {
        extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip())
    }
    let by_peer = || ClientIp::from_peer(peer as fn(&_) -> _);
    let client = reqwest::Client::new();
    let ask = async |url: &str, spoofed: String| {
        client.get(url).header("x-forwarded-for", spoofed).send().await.unwrap().status().as_u16()
    };
    let direct = served(by_peer()).await;
    let proxied = served(by_peer().behind(1, ForwardedIn::XForwardedFor)).await;
    for call in 0..100 {
        assert_eq!(ask(&direct, format!("192.0.2.{call}")).await, 200);
        assert_eq!(ask(&proxied, format!("198.51.100.{call}, 192.0.2.1")).await, 200);
    }
    assert_eq!(ask(&direct, "192.0.2.200".to_owned()).await, 429, "the 101st");
    assert_eq!(ask(&proxied, "198.51.100.200, 192.0.2.1".to_owned()).await, 429);
    assert_eq!(ask(&proxied, "192.0.2.1, 192.0.2.2".to_owned()).await, 200, "another client of the proxy's");
}

#[tokio::test]
async fn a_deadline_is_propagated_to_the_server() {
    let header = DeadlineHeader::default();
    let (receive, limit) = (header.receive(), Timeout::new("api", secs(60)));
    let layers = RespondLayer::new(
        ServiceBuilder::new().layer(receive).layer(limit.layer()).into_inner(),
        Responses::plain().respond::<Body>(),
    );
    let slow = get(|| async { std::future::pending::<()>().await });
    let url = axum(Router::new().route("/", slow).layer(layers)).await;
    // The client itself does not enforce the deadline, so the timeout is the server's.
    let client =
        ServiceBuilder::new().layer(header.send()).layer(AdaptErrorLayer::new()).service(reqwest::Client::new());
    let request = reqwest::Request::new(http::Method::GET, url.parse().unwrap());
    #[allow(clippy::disallowed_methods)] // the clock of the client's timeouts
    let at = tokio::time::Instant::now() + SOON;
    let response = tower_rampart::deadline::scope(at, async move { client.oneshot(request).await }).await.unwrap();
    assert_eq!(response.status(), 504);
}

/// A plain hyper server for HTTP/1.1 and HTTP/2. Returns its address.
async fn hyper<S>(service: S) -> SocketAddr
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let inner = service.clone();
            let with_peer = service_fn(move |mut request: Request<_>| {
                request.extensions_mut().insert(PeerAddr(peer));
                inner.clone().oneshot(request)
            });
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(with_peer)).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_hyper_server_responds_to_rejections_over_both_http_versions() {
    let limiter = KeyedRateLimiter::<IpKey>::builder("ip", Rate::per_hour(2)).build().unwrap();
    let client_ip = ClientIp::new();
    let keyed = limiter.layer(move |request: &Request<hyper::body::Incoming>| client_ip.key(request));
    let layer = RespondLayer::new(keyed, Responses::plain().respond::<Full<Bytes>>());
    let hello = service_fn(|request: Request<_>| async move {
        let _: hyper::body::Incoming = request.into_body();
        Ok::<_, Infallible>(Response::new(Full::from("hello")))
    });
    let address = hyper(layer.layer(hello)).await;
    for (version, expected) in [(Version::HTTP_11, [200, 200, 429]), (Version::HTTP_2, [429, 429, 429])] {
        let http2 = version == Version::HTTP_2;
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Full<Bytes>>();
        for status in expected {
            let response = client.get(format!("http://{address}/").parse().unwrap()).await.unwrap();
            assert_eq!((response.version(), response.status().as_u16()), (version, status));
        }
    }
}

#[tokio::test]
async fn an_http2_client_loses_no_call_to_goaway() {
    // Each connection sends GOAWAY after its third request.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (reached, connections) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (handled, made) = (reached.clone(), connections.clone());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            made.fetch_add(1, SeqCst);
            let (handled, enough) = (handled.clone(), Arc::new(tokio::sync::Notify::new()));
            let (count, notify) = (AtomicUsize::new(0), enough.clone());
            let service = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
                handled.fetch_add(1, SeqCst);
                if count.fetch_add(1, SeqCst) == 2 {
                    notify.notify_one();
                }
                async { Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello"))) }
            });
            tokio::spawn(async move {
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = enough.notified() => connection.as_mut().graceful_shutdown(),
                }
                let _ = connection.await;
            });
        }
    });
    let bulkhead = Bulkhead::new("k", 32).unwrap();
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).no_budget().build().unwrap();
    let client = ServiceBuilder::new()
        .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
        .layer(bulkhead.layer())
        .layer(Timeout::new("attempt", secs(5)).layer())
        .layer(AdaptErrorLayer::new())
        .service(Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>());
    for _ in 0..30 {
        let request = Request::get(format!("http://{address}/")).body(Full::default()).unwrap();
        let response = client.clone().oneshot(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    }
    assert!(connections.load(SeqCst) >= 2, "a connection was shut down");
    assert!(reached.load(SeqCst) >= 30);
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}

#[tokio::test]
async fn a_post_on_a_refused_http2_stream_is_retried() {
    // The first stream is refused; the third is reset for another reason.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let reached = Arc::new(AtomicUsize::new(0));
    let handled = reached.clone();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut connection = h2::server::handshake(stream).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            match handled.fetch_add(1, SeqCst) {
                0 => respond.send_reset(h2::Reason::REFUSED_STREAM),
                2 => respond.send_reset(h2::Reason::INTERNAL_ERROR),
                _ => drop(respond.send_response(Response::new(()), true)),
            }
        }
    });
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).no_budget().build().unwrap();
    let client = ServiceBuilder::new()
        .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
        .layer(AdaptErrorLayer::new())
        .service(Client::builder(TokioExecutor::new()).http2_only(true).build_http::<Full<Bytes>>());
    let post = || Request::post(format!("http://{address}/")).body(Full::default()).unwrap();
    assert_eq!(client.clone().oneshot(post()).await.unwrap().status(), 200);
    assert_eq!(reached.swap(2, SeqCst), 2);
    let error = client.oneshot(post()).await.unwrap_err();
    assert!(tower_rampart::http::TransportError::was_attempted(&error), "{error:?}");
    assert_eq!(reached.load(SeqCst), 3);
}

/// A codec for messages of plain bytes.
#[derive(Clone, Copy, Default)]
struct Plain;

impl tonic::codec::Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl tonic::codec::Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut tonic::codec::EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl tonic::codec::Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut tonic::codec::DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Greets a name. The next `unavailable` calls fail with UNAVAILABLE, and the name `slow` never
/// completes.
#[derive(Clone)]
struct Greeter {
    unavailable: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

impl tonic::server::NamedService for Greeter {
    const NAME: &'static str = "test.Greeter";
}

impl Service<Request<tonic::body::Body>> for Greeter {
    type Response = Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = futures_util::future::BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Infallible>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let greet = service_fn(move |request: tonic::Request<Bytes>| {
                let this = this.clone();
                async move {
                    this.calls.fetch_add(1, SeqCst);
                    let name = request.into_inner();
                    if name == "slow" {
                        std::future::pending::<()>().await;
                    }
                    let decrement = |left: usize| left.checked_sub(1);
                    match this.unavailable.fetch_update(SeqCst, SeqCst, decrement) {
                        Ok(_) => Err(Status::unavailable("not now")),
                        Err(_) => Ok(tonic::Response::new(Bytes::from([b"hello ", &name[..]].concat()))),
                    }
                }
            });
            Ok(tonic::server::Grpc::new(Plain).unary(greet, request).await)
        })
    }
}

#[tokio::test]
async fn tonic_clients_and_servers_work_behind_stacks() {
    let greeter = Greeter { unavailable: Arc::default(), calls: Arc::default() };
    let bulkhead = Bulkhead::new("greeter", 4).unwrap();
    let stack = stack::server("greeter").bulkhead(&bulkhead).total_timeout(SOON).build().unwrap();
    let server = tonic::transport::Server::builder()
        .layer(stack.respond(grpc_response::<tonic::body::Body>))
        .add_service(greeter.clone());
    let incoming = tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = incoming.local_addr().unwrap();
    tokio::spawn(server.serve_with_incoming(incoming));

    let channel = tonic::transport::Endpoint::new(format!("http://{address}")).unwrap().connect_lazy();
    let breaker = CircuitBreaker::consecutive("b", 4).unwrap();
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).no_budget().build().unwrap();
    let client_bulkhead = Bulkhead::new("client", 4).unwrap();
    let covering = ServiceBuilder::new()
        .layer(breaker.layer().classify(GrpcClassifier))
        .layer(client_bulkhead.layer())
        .into_inner();
    let idempotent =
        |request: &Request<ReplayBody<tonic::body::Body>>| Some(request.uri().path() == "/test.Greeter/Greet");
    let service = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(retry.layer().classify(GrpcClassifier).repeat(HttpRepeat::new().idempotent_if(idempotent)))
        .layer(FullResponseLayer::new(covering))
        .layer(AdaptErrorLayer::new())
        .map_request(|request: Request<ReplayBody<_>>| request.map(tonic::body::Body::new))
        .service(channel);
    let call = async |method: &'static str, name: &'static str| {
        let mut client = tonic::client::Grpc::new(service.clone());
        client.ready().await.map_err(|error| Status::from_error(BoxError::from(error)))?;
        let path = http::uri::PathAndQuery::from_static(method);
        let reply = client.unary(tonic::Request::new(Bytes::from(name)), path, Plain).await?;
        Ok::<Bytes, Status>(reply.into_inner())
    };
    let calls = || greeter.calls.swap(0, SeqCst);
    assert_eq!(call("/test.Greeter/Greet", "Ada").await.unwrap(), "hello Ada");
    assert_eq!((calls(), client_bulkhead.snapshot().in_flight), (1, 0));
    greeter.unavailable.store(2, SeqCst);
    assert_eq!(call("/test.Greeter/Greet", "Bob").await.unwrap(), "hello Bob", "the body is replayed");
    assert_eq!((calls(), breaker.snapshot().consecutive_failures), (3, 0));
    greeter.unavailable.store(1, SeqCst);
    assert_eq!(call("/test.Greeter/Charge", "Bob").await.unwrap_err().code(), Code::Unavailable);
    assert_eq!((calls(), breaker.snapshot().consecutive_failures), (1, 1), "not retried, but counted");
    // The server's rejections arrive with their codes.
    let slow = call("/test.Greeter/Charge", "slow").await.unwrap_err();
    assert_eq!((slow.code(), slow.message()), (Code::DeadlineExceeded, "timed_out"));
    let held_permits: Vec<_> = (0..4).map(|_| bulkhead.try_acquire().unwrap()).collect();
    let full = call("/test.Greeter/Charge", "Ada").await.unwrap_err();
    assert_eq!((full.code(), full.message()), (Code::ResourceExhausted, "bulkhead_full"));
    drop(held_permits);
    assert_eq!(call("/test.Greeter/Greet", "Ada").await.unwrap(), "hello Ada");
    assert_eq!((client_bulkhead.snapshot().in_flight, bulkhead.snapshot().in_flight), (0, 0));
    // The client's own rejections are found in the status.
    breaker.force_open();
    let rejected = call("/test.Greeter/Greet", "Ada").await.unwrap_err();
    assert_eq!(tower_rampart::AsRejection::as_rejection(&rejected).unwrap().name(), "b");
}

#[tokio::test]
async fn a_channel_that_cannot_connect_has_not_sent() {
    let channel = tonic::transport::Endpoint::new(format!("http://{}", crate::faults::unused_address().await)).unwrap();
    let mut client = tonic::client::Grpc::new(channel.connect_lazy());
    client.ready().await.unwrap();
    let path = http::uri::PathAndQuery::from_static("/test.Greeter/Charge");
    let status = client.unary(tonic::Request::new(Bytes::new()), path, Plain).await.unwrap_err();
    assert!(!tower_rampart::http::TransportError::was_attempted(&status), "{status:?}");
}

/// Over both versions, the responses to requests of these methods: status, length of the body, and
/// `Content-Length`.
async fn send_methods<S>(service: S, methods: &[Method]) -> Vec<(u16, usize, Option<String>)>
where
    S: Service<Request<hyper::body::Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
{
    let address = hyper(service).await;
    let mut responses = Vec::new();
    for http2 in [false, true] {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<Full<Bytes>>();
        for method in methods {
            let builder = Request::builder().method(method.clone()).uri(format!("http://{address}/"));
            let response = client.request(builder.body(Full::default()).unwrap()).await.unwrap();
            let length = response.headers().get("content-length").map(|length| length.to_str().unwrap().to_owned());
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.expect("the protocol is kept").to_bytes();
            responses.push((status, body.len(), length));
        }
    }
    responses
}

#[tokio::test]
async fn a_rejected_head_has_no_body_in_either_http_version() {
    let breaker = CircuitBreaker::new("b");
    breaker.force_open();
    let inner = || {
        service_fn(|request: Request<hyper::body::Incoming>| async move {
            drop(request);
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        })
    };
    let methods = [Method::HEAD, Method::GET, Method::POST, Method::HEAD];
    let plain = RespondLayer::new(breaker.layer(), Responses::plain().respond()).layer(inner());
    let text = "Service Unavailable: The service is temporarily unavailable.\n".len();
    for (index, (status, length, announced)) in send_methods(plain, &methods).await.into_iter().enumerate() {
        let is_head = methods[index % 4] == Method::HEAD;
        assert_eq!(status, 503);
        assert_eq!(length == 0, is_head, "{index}: {length} of {text}");
        assert!(!is_head || announced.is_none(), "it would be that of GET");
    }
    // A customized response keeps to it, and so do statuses without a body.
    for status in [204, 304, 503] {
        let customized = Responses::problem_json().respond_with(move |_: &_, mut response: Response<Full<Bytes>>| {
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap();
            response.headers_mut().insert("x-reason", "full".parse().unwrap());
            response
        });
        let service = RespondLayer::new(breaker.layer(), customized).layer(inner());
        for (index, got) in send_methods(service, &methods).await.into_iter().enumerate() {
            let has_body = status == 503 && methods[index % 4] != Method::HEAD;
            assert_eq!((got.0, got.1 > 0), (status, has_body), "{index}");
        }
    }
}

/// Returns what the server reads of each attempt: the body, and the trailers.
#[tokio::test]
async fn every_attempt_sends_the_request_trailers_in_either_http_version() {
    for http2 in [false, true] {
        let arrived = Arc::new(Mutex::new(Vec::new()));
        let log = arrived.clone();
        let server = service_fn(move |request: Request<hyper::body::Incoming>| {
            let log = log.clone();
            async move {
                let collected = request.into_body().collect().await.unwrap();
                let sum = collected.trailers().and_then(|trailers| trailers.get("sum")).cloned();
                log.lock().unwrap().push((collected.to_bytes(), sum));
                let unavailable = Response::builder().status(503).body(Full::<Bytes>::default());
                Ok::<_, Infallible>(unavailable.unwrap())
            }
        });
        let address = hyper(server).await;
        let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).no_budget().build().unwrap();
        let client = ServiceBuilder::new()
            .layer(ReplayLayer::new())
            .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
            .layer(AdaptErrorLayer::new())
            .service(Client::builder(TokioExecutor::new()).http2_only(http2).build_http());
        let trailers = http::HeaderMap::from_iter([("sum".parse().unwrap(), "7".parse().unwrap())]);
        let frames = ["ab", "cd"].map(|data| http_body::Frame::data(Bytes::from(data)));
        let frames = frames.into_iter().chain([http_body::Frame::trailers(trailers)]).map(Ok::<_, Infallible>);
        let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
        let request = Request::put(format!("http://{address}/")).header("trailer", "sum").body(body).unwrap();
        assert_eq!(client.oneshot(request).await.unwrap().status(), 503);
        let expected = (Bytes::from("abcd"), Some(http::HeaderValue::from_static("7")));
        assert_eq!(*arrived.lock().unwrap(), [expected.clone(), expected.clone(), expected], "HTTP/2: {http2}");
    }
}
