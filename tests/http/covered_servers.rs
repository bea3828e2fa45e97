//! Covered responses behind real servers. A server drops a body as soon as the protocol allows, and
//! polls it only as fast as its peer reads.

use std::{convert::Infallible, io, net::SocketAddr, time::Duration};

use axum::{Router, routing::get};
use bytes::Bytes;
use futures_util::stream;
use http::{Method, Request, Response, Version};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    RespondLayer,
    bulkhead::{Bulkhead, BulkheadLayer},
    circuit_breaker::{CircuitBreaker, CircuitBreakerLayer, CircuitState},
    http::{HttpClassifier, Responses, full_response::FullResponseLayer},
    timeout::{Timeout, TimeoutLayer},
};

use crate::full_response::{BodyFrame, channel_body, data, grpc_status};

const LIMIT: Duration = Duration::from_millis(200);

type StreamedBody = BoxBody<Bytes, io::Error>;

/// A body that does not know its length, and whose end is found only by polling.
fn streamed(frames: Vec<BodyFrame>) -> StreamedBody {
    BoxBody::new(StreamBody::new(stream::iter(frames)))
}

/// The response to a request, by its path. `/endless` is larger than all buffers between the server
/// and its peer.
fn respond(path: &str) -> Response<StreamedBody> {
    let (length, frames) = match path {
        "/sized" => (Some(5), vec![data("he"), data("llo")]),
        "/chunked" => (None, vec![data("he"), data("llo")]),
        "/empty" => (Some(0), vec![]),
        "/trailers" => (Some(5), vec![data("hello"), grpc_status("0")]),
        // A pause before the end: hyper sends nothing of a response whose body fails immediately.
        "/short" => return paced(vec![data("hello"), data("")]),
        "/long" => (Some(5), vec![data("hello"), data("hello")]),
        "/broken" => return paced(vec![data("hello"), Err(io::ErrorKind::ConnectionReset.into())]),
        "/endless" => {
            static KIBIBYTE: [u8; 65536] = [b'x'; 65536];
            let frame = || Ok(http_body::Frame::data(Bytes::from_static(&KIBIBYTE)));
            let body = StreamBody::new(stream::iter(std::iter::repeat_with(frame)));
            return Response::new(BoxBody::new(body));
        }
        "/hanging" => {
            let first = stream::iter([data("hello")]);
            let body = StreamBody::new(futures_util::StreamExt::chain(first, stream::pending()));
            return Response::new(BoxBody::new(body));
        }
        _ => unreachable!("{path}"),
    };
    let mut response = Response::new(streamed(frames));
    if let Some(length) = length {
        response.headers_mut().insert("content-length", length.into());
    }
    response
}

/// A response of a hundred bytes whose frames come one by one.
fn paced(frames: Vec<BodyFrame>) -> Response<StreamedBody> {
    let (sender, body) = channel_body();
    tokio::spawn(async move {
        for frame in frames {
            sender.send(frame).ok();
            tokio::time::sleep(LIMIT / 10).await;
        }
    });
    let mut response = Response::new(body);
    response.headers_mut().insert("content-length", 100.into());
    response
}

struct Covered {
    address: SocketAddr,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
}

type Covering =
    tower_layer::Stack<TimeoutLayer, tower_layer::Stack<BulkheadLayer, CircuitBreakerLayer<HttpClassifier>>>;

fn covering(breaker: &CircuitBreaker, bulkhead: &Bulkhead) -> FullResponseLayer<Covering> {
    FullResponseLayer::new(tower_layer::Stack::new(
        Timeout::new("total", LIMIT).layer(),
        tower_layer::Stack::new(bulkhead.layer(), breaker.layer().classify(HttpClassifier::new())),
    ))
}

impl Covered {
    fn handles() -> (CircuitBreaker, Bulkhead) {
        let breaker =
            CircuitBreaker::builder("b").consecutive_failures(3).probes(3).probe_successes(3).build().unwrap();
        (breaker, Bulkhead::new("k", 4).unwrap())
    }

    /// A plain hyper server for HTTP/1.1 and HTTP/2.
    async fn by_hyper() -> Self {
        let (breaker, bulkhead) = Self::handles();
        let service = RespondLayer::new(covering(&breaker, &bulkhead), Responses::plain().respond()).layer(service_fn(
            |request: Request<hyper::body::Incoming>| async move {
                Ok::<_, Infallible>(respond(request.uri().path()).map(FromString))
            },
        ));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                tokio::spawn(async move {
                    let builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, breaker, bulkhead }
    }

    async fn by_axum() -> Self {
        let (breaker, bulkhead) = Self::handles();
        let layer = RespondLayer::new(covering(&breaker, &bulkhead), Responses::plain().respond());
        let handler = |uri: http::Uri| async move { respond(uri.path()).map(axum::body::Body::new) };
        let router: Router = Router::new().route("/{*path}", get(handler)).layer(layer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, breaker, bulkhead }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Waits until no call is in flight.
    async fn released(&self) {
        let released = async {
            while self.bulkhead.snapshot().in_flight > 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(LIMIT * 20, released).await.expect("the permits are released");
    }
}

/// A body with `From<String>`, which a response to a rejection needs.
struct FromString(StreamedBody);

impl From<String> for FromString {
    fn from(text: String) -> Self {
        Self(BoxBody::new(Full::from(text).map_err(|never| match never {})))
    }
}

impl http_body::Body for FromString {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<BodyFrame>> {
        std::pin::Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

type HyperClient = Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>;

fn client(version: Version) -> HyperClient {
    Client::builder(TokioExecutor::new()).http2_only(version == Version::HTTP_2).build_http()
}

async fn send(client: &HyperClient, method: Method, url: String) -> (u16, Option<Bytes>) {
    let request = Request::builder().method(method).uri(url).body(Full::default()).unwrap();
    let response = client.request(request).await.unwrap();
    (response.status().as_u16(), response.collect().await.ok().map(|body| body.to_bytes()))
}

/// The servers, each with the versions that it speaks here.
async fn servers() -> [(&'static str, Covered, &'static [Version]); 2] {
    [
        ("hyper", Covered::by_hyper().await, &[Version::HTTP_11, Version::HTTP_2]),
        ("axum", Covered::by_axum().await, &[Version::HTTP_11]),
    ]
}

#[tokio::test]
async fn a_half_open_circuit_closes_on_complete_responses() {
    for (name, server, versions) in servers().await {
        for (version, path) in versions
            .iter()
            .flat_map(|version| ["/sized", "/chunked", "/empty", "/long", "/trailers"].map(|path| (*version, path)))
        {
            server.breaker.half_open();
            let client = client(version);
            for call in 0..10 {
                let (status, body) = send(&client, Method::GET, server.url(path)).await;
                assert_eq!(status, 200, "{name} {version:?} {path}: call {call}");
                let expected = if path == "/empty" { "" } else { "hello" };
                // HTTP/2 peers check the length of a body themselves.
                if (version, path) != (Version::HTTP_2, "/long") {
                    assert_eq!(body.unwrap(), expected, "{name} {version:?} {path}");
                }
                server.released().await;
            }
            assert_eq!(server.breaker.state(), CircuitState::Closed, "{name} {version:?} {path}");
        }
    }
}

#[tokio::test]
async fn a_response_to_head_is_complete() {
    for (name, server, versions) in servers().await {
        for version in versions {
            server.breaker.half_open();
            let client = client(*version);
            for path in ["/sized", "/empty", "/hanging", "/sized"] {
                // A body on a response to HEAD breaks the protocol in HTTP/2, but that is the
                // handler's.
                let request = Request::head(server.url(path)).body(Full::default()).unwrap();
                let _ = client.request(request).await;
                server.released().await;
            }
            assert_eq!(server.breaker.state(), CircuitState::Closed, "{name} {version:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_fails_or_hangs_is_a_failure() {
    for (name, server, versions) in servers().await {
        for version in versions {
            for path in ["/broken", "/hanging"] {
                server.breaker.close();
                let (status, body) = send(&client(*version), Method::GET, server.url(path)).await;
                assert_eq!((status, body), (200, None), "{name} {version:?} {path}");
                server.released().await;
                assert_eq!(server.breaker.snapshot().consecutive_failures, 1, "{name} {version:?} {path}");
            }
        }
    }
}

/// A peer that sends a request for an endless body over HTTP/1.1 and reads only the head.
async fn stalled_peer(server: &Covered) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /endless HTTP/1.1\r\nhost: a.example\r\n\r\n").await.unwrap();
    stream.read_exact(&mut [0; 64]).await.unwrap();
    stream
}

// T33
#[tokio::test]
async fn peers_that_do_not_read_hold_no_permit_and_open_no_circuit() {
    for (name, server, _) in servers().await {
        for _ in 0..5 {
            let mut stalled = Vec::new();
            for _ in 0..4 {
                stalled.push(stalled_peer(&server).await);
            }
            assert_eq!(server.bulkhead.snapshot().in_flight, 4, "{name}");
            server.released().await;
            let served = send(&client(Version::HTTP_11), Method::GET, server.url("/sized")).await;
            assert_eq!(served, (200, Some("hello".into())), "{name}");
            drop(stalled);
        }
        let breaker = server.breaker.snapshot();
        assert_eq!((breaker.consecutive_failures, server.breaker.state()), (0, CircuitState::Closed), "{name}");
    }
}

// T33
#[tokio::test]
async fn a_stalled_http2_stream_holds_no_permit_and_opens_no_circuit() {
    let server = Covered::by_hyper().await;
    let stream = TcpStream::connect(server.address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::get("http://a.example/endless").body(()).unwrap();
    let (response, _) = client.send_request(request, true).unwrap();
    // The peer never opens the flow-control window.
    let response = response.await.unwrap();
    assert_eq!(server.bulkhead.snapshot().in_flight, 1);
    server.released().await;
    assert_eq!(server.breaker.snapshot().consecutive_failures, 0);
    drop(response);
}

#[tokio::test]
async fn a_peer_that_hangs_up_cancels_the_call() {
    for (name, server, _) in servers().await {
        let stalled = stalled_peer(&server).await;
        drop(stalled);
        server.released().await;
        assert_eq!(server.breaker.snapshot().consecutive_failures, 0, "{name}");
    }
}

/// A client whose breaker covers whole responses, against a server that closes early.
#[tokio::test]
async fn a_client_sees_a_short_body_as_a_failure() {
    let server = Covered::by_hyper().await;
    let (breaker, bulkhead) = Covered::handles();
    let layers = ServiceBuilder::new()
        .layer(covering(&breaker, &bulkhead))
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(client(Version::HTTP_11));
    for (path, failures) in [("/short", 1), ("/sized", 0), ("/broken", 1), ("/empty", 0), ("/trailers", 0)] {
        let request = Request::get(server.url(path)).body(Full::default()).unwrap();
        let response = layers.clone().ready().await.unwrap().call(request).await.unwrap();
        assert_eq!(response.collect().await.is_err(), failures == 1, "{path}");
        assert_eq!(breaker.snapshot().consecutive_failures, failures, "{path}");
        assert_eq!(bulkhead.snapshot().in_flight, 0, "{path}");
    }
}
