//! Whose fault an error is: one table of real errors, each made over sockets.

use std::{
    convert::Infallible,
    error::Error as StdError,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes};
use futures_util::stream;
use http::{Method, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::BoxBody};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Channel, Endpoint},
};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AdaptErrorLayer, BoxError, Classify, Error, Rejection, Verdict,
    circuit_breaker::{CircuitBreaker, CircuitState},
    http::{
        AdaptClientErrorLayer, CallerBody, CallerError, DeadlineHeader, ErrorOrigin, GrpcClassifier, HttpClassifier,
        HttpRepeat, ReplayBody, ReplayLayer, TransportError, error_origin,
    },
    stack,
    timeout::Timeout,
};

use crate::faults::{Fault, FaultServer, unused_address};

use ErrorOrigin::{Caller, Connection, Service, Throttled, TimedOut, Unprocessed, Unsent};

/// The table: a row per kind of error.
#[derive(Default)]
struct Table {
    wrong: Vec<String>,
    rows: usize,
}

impl Table {
    /// Checks the origin of an error, and the verdict and `was_attempted` that follow from it.
    #[track_caller]
    fn row<T, E>(&mut self, name: impl fmt::Display, result: Result<T, E>, expected: ErrorOrigin)
    where
        E: StdError + TransportError + Send + Sync + 'static,
    {
        self.rows += 1;
        let Err(error) = result else { return self.wrong.push(format!("{name}: succeeded")) };
        let description = describe(&error);
        let verdict = match expected {
            ErrorOrigin::Request | Caller => Verdict::Ignored,
            Throttled => Verdict::Throttled,
            _ => Verdict::Failure,
        };
        let attempted = !matches!(expected, ErrorOrigin::Request | Unsent | Unprocessed);
        let adapted = Error::Service(error);
        let result: Result<&Response<()>, _> = Err(&adapted);
        let http = HttpClassifier::new();
        let got = (adapted.origin(), http.classify(result), http.was_attempted(result));
        if got != (expected, verdict, attempted) {
            self.wrong.push(format!("{name}: {got:?}, expected {expected:?}\n    {description}"));
        }
        assert_eq!(GrpcClassifier.classify(result), verdict, "{name}, with gRPC");
        assert_eq!(GrpcClassifier.was_attempted(result), attempted, "{name}, with gRPC");
        let Error::Service(error) = adapted else { unreachable!() };
        self.boxed_row(name, error, verdict, attempted, &description);
    }

    /// A box, whose outermost error cannot be downcast, says the same of the fault, and never more
    /// of the request. In an `Error` of this crate, it says all of it.
    fn boxed_row<E>(&mut self, name: impl fmt::Display, error: E, verdict: Verdict, attempted: bool, description: &str)
    where
        E: StdError + Send + Sync + 'static,
    {
        let http = HttpClassifier::new();
        let boxed: BoxError = Box::new(Error::Service(error));
        let result: Result<&Response<()>, _> = Err(&boxed);
        let held = (http.classify(result), http.was_attempted(result));
        // h2's own errors do not name their crate.
        let is_nameless = std::any::type_name::<E>().starts_with("h2::");
        let Error::Service(error) = *boxed.downcast::<Error<E>>().unwrap() else { unreachable!() };
        let boxed: BoxError = Box::new(error);
        let result: Result<&Response<()>, _> = Err(&boxed);
        let alone = (http.classify(result), http.was_attempted(result));
        if held != (verdict, attempted) || (alone.0 != verdict && !is_nameless) || (attempted && !alone.1) {
            self.wrong.push(format!("{name}, boxed: {held:?}, {alone:?}\n    {description}"));
        }
    }

    #[track_caller]
    fn check(self) {
        assert!(self.wrong.is_empty(), "{} of {}:\n{}", self.wrong.len(), self.rows, self.wrong.join("\n"));
    }
}

/// The error and its sources.
fn describe(error: &(dyn StdError + 'static)) -> String {
    let mut lines = vec![format!("{error:?}")];
    let mut next = error.source();
    while let Some(error) = next {
        lines.push(format!("{error:?}"));
        next = error.source();
    }
    lines.join("\n    <- ")
}

type AnyBody = BoxBody<Bytes, BoxError>;
type Http = Client<HttpConnector, AnyBody>;

fn http1() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

fn http2() -> Http {
    Client::builder(TokioExecutor::new()).http2_only(true).build_http()
}

fn empty() -> AnyBody {
    Empty::new().map_err(|never: Infallible| match never {}).boxed()
}

fn full(text: &'static str) -> AnyBody {
    Full::from(text).map_err(|never: Infallible| match never {}).boxed()
}

/// A body that sends a chunk and then fails with an error of the given kind.
fn failing(kind: io::ErrorKind) -> AnyBody {
    let frames = [Ok(Frame::data(Bytes::from("part"))), Err(BoxError::from(io::Error::from(kind)))];
    // Over HTTP/2 the connection task polls the body while the test waits.
    BodyExt::boxed(StreamBody::new(stream::iter(frames)))
}

fn post(uri: impl fmt::Display, body: AnyBody) -> Request<AnyBody> {
    Request::post(uri.to_string()).body(body).unwrap()
}

fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// Accepts connections, and lets `serve` respond to whatever they send.
async fn raw_server<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> SocketAddr
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// A server that reads some of the request, then sends `response` and closes the connection.
async fn responding(response: &'static str) -> SocketAddr {
    raw_server(move |mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(response.as_bytes()).await;
    })
    .await
}

/// A healthy HTTP server for both versions, which reads each request to its end.
async fn healthy() -> SocketAddr {
    raw_server(|stream| async move {
        let respond = service_fn(|request: Request<hyper::body::Incoming>| async move {
            request.into_body().collect().await?;
            Ok::<_, hyper::Error>(Response::new(Full::<Bytes>::default()))
        });
        let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(respond)).await;
    })
    .await
}

/// What a proxy's client returns when a remote client sends `upload` to the proxy and hangs up.
async fn proxied(client: Http, upstream: SocketAddr, upload: &str) -> Result<(), hyper_util::client::legacy::Error> {
    let (sender, mut results) = mpsc::channel(1);
    let proxy = raw_server(move |stream| {
        let (client, sender) = (client.clone(), sender.clone());
        async move {
            let forward = service_fn(move |request: Request<hyper::body::Incoming>| {
                let (client, sender) = (client.clone(), sender.clone());
                async move {
                    let body = request.into_body().map_err(BoxError::from).boxed();
                    // In a task of its own: the handler is dropped together with the connection.
                    tokio::spawn(async move {
                        let result = client.request(post(url(upstream), body)).await;
                        let _ = sender.send(result.map(drop)).await;
                    })
                    .await
                    .unwrap();
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                }
            });
            let server = hyper::server::conn::http1::Builder::new();
            let (stream, service) = (TokioIo::new(stream), TowerToHyperService::new(forward));
            let _ = server.serve_connection(stream, service).await;
        }
    })
    .await;
    let mut remote = TcpStream::connect(proxy).await.unwrap();
    remote.write_all(upload.as_bytes()).await.unwrap();
    remote.shutdown().await.unwrap();
    let result = tokio::time::timeout(Duration::from_secs(5), results.recv()).await;
    result.expect("the upload ends").expect("the client returns")
}

#[tokio::test]
async fn errors_of_hyper_and_hyper_util_are_attributed_to_their_origin() {
    let mut table = Table::default();
    let upstream = healthy().await;

    // Uploads passed on by a proxy.
    for (version, client) in [("1", http1()), ("2", http2())] {
        for (name, upload) in [
            (
                "a malformed chunk size",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\nZZZ\r\n",
            ),
            (
                "a chunked upload cut off",
                "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n",
            ),
            ("an upload cut off", "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\npart"),
        ] {
            let name = format!("{name}, passed on over HTTP/{version}");
            table.row(name, proxied(client.clone(), upstream, upload).await, Caller);
        }
    }

    // Requests that the client does not send.
    for uri in ["/relative", "https://localhost/", "ftp://localhost/"] {
        for (version, client) in [("1", http1()), ("2", http2())] {
            let name = format!("the URI `{uri}` over HTTP/{version}");
            table.row(name, client.request(post(uri, empty())).await, ErrorOrigin::Request);
        }
    }
    let with_version = |version| {
        let mut request = post(url(upstream), empty());
        *request.version_mut() = version;
        request
    };
    for version in [Version::HTTP_09, Version::HTTP_3, Version::HTTP_2] {
        let result = http1().request(with_version(version)).await;
        table.row(format!("{version:?} over HTTP/1"), result, ErrorOrigin::Request);
    }
    let mut connect = with_version(Version::HTTP_10);
    *connect.method_mut() = Method::CONNECT;
    table.row("CONNECT over HTTP/1.0", http1().request(connect).await, ErrorOrigin::Request);

    // Request bodies.
    for (version, client) in [("1", http1()), ("2", http2())] {
        // A body may fail with the error of another exchange: only its own client's counts.
        for kind in [io::ErrorKind::InvalidData, io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut] {
            let name = format!("a body that fails with {kind:?} over HTTP/{version}");
            table.row(name, client.request(post(url(upstream), failing(kind))).await, Caller);
        }
    }
    let refused = http1().request(post(url(unused_address().await), empty())).await.unwrap_err();
    let body = StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(BoxError::from(refused))]));
    let result = http1().request(post(url(upstream), BodyExt::boxed(body))).await;
    table.row("a body that another request failed to fetch", result, Caller);
    for (version, client) in [("1", http1()), ("2", http2())] {
        let part = stream::iter([Ok::<_, BoxError>(Frame::data(Bytes::from("part")))]);
        let mut short = post(url(upstream), BodyExt::boxed(StreamBody::new(part)));
        short.headers_mut().insert("content-length", 100.into());
        let name = format!("a body shorter than announced over HTTP/{version}");
        table.row(name, client.request(short).await, Caller);
    }

    // The network.
    let address = unused_address().await;
    for (version, client) in [("1", http1()), ("2", http2())] {
        let result = client.request(post(url(address), empty())).await;
        table.row(format!("a refused connection over HTTP/{version}"), result, Unsent);
    }
    let result = http1().request(post("http://name.invalid/", empty())).await;
    table.row("a name that does not resolve", result, Unsent);
    for fault in [Fault::Close, Fault::CloseByReset] {
        let server = FaultServer::start([fault.clone()]).await;
        let result = http1().request(post(server.url(), empty())).await;
        table.row(format!("a connection that ends without a response ({fault:?})"), result, Connection);
    }
    let result = http1().request(post(url(responding("HTTP/1.1 200 O").await), empty())).await;
    table.row("a connection that ends within the response's head", result, Connection);
    let result = http2().request(post(url(responding("").await), empty())).await;
    table.row("a connection that ends during the HTTP/2 handshake", result, Connection);

    // The service.
    for response in ["what?\r\n\r\n", "HTTP/1.1 20 OK\r\n\r\n", "HTTP/1.1 200 OK\r\na b: c\r\n\r\n"] {
        let result = http1().request(post(url(responding(response).await), empty())).await;
        table.row(format!("the response {response:?}"), result, Service);
    }
    let result = http2().request(post(url(responding("HTTP/1.1 400 Bad Request\r\n\r\n").await), empty())).await;
    table.row("a response over HTTP/1 to HTTP/2", result, Service);

    // hyper's own client.
    let connect = async |server: SocketAddr| {
        let stream = TokioIo::new(TcpStream::connect(server).await.unwrap());
        hyper::client::conn::http1::handshake::<_, AnyBody>(stream).await.unwrap()
    };
    let (mut sender, connection) = connect(upstream).await;
    drop(connection);
    table.row("a connection that is closed already", sender.send_request(post("/", empty())).await, Unsent);
    let (mut sender, connection) = connect(FaultServer::start([Fault::Hang]).await.address).await;
    let connection = tokio::spawn(connection);
    let call = tokio::spawn(sender.send_request(post("/", empty())));
    tokio::time::sleep(Duration::from_millis(50)).await;
    connection.abort();
    table.row("a connection whose task was aborted", call.await.unwrap(), Caller);
    let (mut sender, connection) = connect(upstream).await;
    tokio::spawn(connection);
    let result = sender.send_request(post("/", failing(io::ErrorKind::InvalidData))).await;
    table.row("a body that fails, on a connection", result, Caller);
    table.check();
}

/// An HTTP/2 server that passes each stream to `respond`.
async fn h2_server(respond: impl Fn(h2::server::SendResponse<Bytes>) + Clone + Send + 'static) -> SocketAddr {
    raw_server(move |stream| {
        let respond = respond.clone();
        async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            while let Some(Ok((_request, stream))) = connection.accept().await {
                respond(stream);
            }
        }
    })
    .await
}

const PREFACE: usize = 24;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// An HTTP/2 server that answers the first request with GOAWAY and closes the connection.
async fn going_away(last_stream: u32, reason: h2::Reason) -> SocketAddr {
    raw_server(move |mut stream| async move {
        let mut received = Vec::new();
        let settings = frame(4, 0, 0, &[]);
        stream.write_all(&settings).await.unwrap();
        // Read frames up to the HEADERS.
        let mut at = PREFACE;
        loop {
            while received.len() < at + 9 {
                if stream.read_buf(&mut received).await.unwrap_or(0) == 0 {
                    return;
                }
            }
            let length =
                usize::from(received[at]) << 16 | usize::from(received[at + 1]) << 8 | usize::from(received[at + 2]);
            if received[at + 3] == 1 {
                break;
            }
            at += 9 + length;
        }
        let payload = [last_stream.to_be_bytes(), u32::from(reason).to_be_bytes()].concat();
        stream.write_all(&frame(7, 0, 0, &payload)).await.unwrap();
        stream.shutdown().await.unwrap();
        let _ = stream.read_to_end(&mut received).await;
    })
    .await
}

#[tokio::test]
async fn errors_over_http2_are_attributed_to_their_origin() {
    use h2::Reason;

    let mut table = Table::default();
    let resets = [
        (Reason::NO_ERROR, Service),
        // The server says that the request is malformed.
        (Reason::PROTOCOL_ERROR, Caller),
        (Reason::INTERNAL_ERROR, Service),
        (Reason::FLOW_CONTROL_ERROR, Service),
        (Reason::SETTINGS_TIMEOUT, Service),
        (Reason::STREAM_CLOSED, Service),
        (Reason::FRAME_SIZE_ERROR, Service),
        (Reason::REFUSED_STREAM, Unprocessed),
        (Reason::CANCEL, Service),
        (Reason::COMPRESSION_ERROR, Service),
        (Reason::CONNECT_ERROR, Service),
        (Reason::ENHANCE_YOUR_CALM, Throttled),
        (Reason::INADEQUATE_SECURITY, Service),
        (Reason::HTTP_1_1_REQUIRED, Service),
        (Reason::from(99), Service),
    ];
    for (reason, expected) in resets {
        let server = h2_server(move |mut stream| stream.send_reset(reason)).await;
        let result = http2().request(post(url(server), full("ping"))).await;
        table.row(format!("a stream reset with {reason:?}"), result, expected);
        // The same for tonic, in both places.
        let result = channel(server).oneshot(grpc_request()).await;
        table.row(format!("a stream reset with {reason:?}, in a channel"), result, expected);
        let status = unary(channel(server), Plain::default()).await.unwrap_err();
        assert_eq!(grpc_verdict(&status), expected.verdict(), "a stream reset with {reason:?}: {status:?}");
    }
    for (last_stream, reason, expected) in [
        (0, Reason::NO_ERROR, Unprocessed),
        // The server may have processed the stream.
        (1, Reason::NO_ERROR, Connection),
        (0, Reason::INTERNAL_ERROR, Connection),
        (1, Reason::INTERNAL_ERROR, Connection),
        (0, Reason::ENHANCE_YOUR_CALM, Throttled),
    ] {
        let server = going_away(last_stream, reason).await;
        let result = http2().request(post(url(server), empty())).await;
        table.row(format!("GOAWAY after stream {last_stream} with {reason:?}"), result, expected);
    }
    // The response breaks the protocol.
    let server = raw_server(|mut stream| async move {
        let _ = stream.write_all(&[frame(4, 0, 0, &[]), frame(0, 0, 1, b"data before headers")].concat()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    table.row("a response without a head", http2().request(post(url(server), empty())).await, Service);

    // h2's own client.
    let stream = TcpStream::connect(healthy().await).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let illegal = Request::get("http://a/").header("connection", "close").body(()).unwrap();
    let illegal = client.send_request(illegal, true);
    table.row("a header that HTTP/2 forbids", illegal.map(drop), ErrorOrigin::Request);
    let (response, mut body) = client.send_request(post("http://a/", empty()).map(drop), false).unwrap();
    body.send_reset(Reason::CANCEL);
    table.row("a stream that this side has reset", response.await, Caller);
    table.check();
}

/// A body for reqwest that sends a chunk and then fails.
fn reqwest_body(kind: io::ErrorKind) -> reqwest::Body {
    reqwest::Body::wrap(Failing(Some(kind), true))
}

struct Failing(Option<io::ErrorKind>, bool);

impl Body for Failing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if std::mem::take(&mut self.1) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from("part")))));
        }
        Poll::Ready(self.0.take().map(|kind| Err(kind.into())))
    }
}

#[tokio::test]
async fn errors_of_reqwest_are_attributed_to_their_origin() {
    let mut table = Table::default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let upstream = url(healthy().await);
    let send = async |url: &str| client.post(url).send().await;

    // reqwest does not say whether it followed a redirect before it failed, so none of its errors
    // proves that nothing was sent.
    table.row("an unsupported scheme", send("ftp://localhost/").await, Caller);
    table.row("a scheme without its feature", send("https://localhost/").await, Caller);
    let refused = url(unused_address().await);
    table.row("a refused connection", send(&refused).await, Connection);
    table.row("a name that does not resolve", send("http://name.invalid/").await, Connection);
    for kind in [io::ErrorKind::InvalidData, io::ErrorKind::ConnectionRefused, io::ErrorKind::TimedOut] {
        let result = client.post(&upstream).body(reqwest_body(kind)).send().await;
        table.row(format!("a body that fails with {kind:?}"), result, Caller);
    }
    let fetched = send(&refused).await.unwrap_err();
    let body = StreamBody::new(stream::iter([Err::<Frame<Bytes>, _>(fetched)]));
    let result = client.post(&upstream).body(reqwest::Body::wrap(body)).send().await;
    table.row("a body that another request failed to fetch", result, Caller);
    let hanging = FaultServer::start([Fault::Hang, Fault::Hang]).await;
    let result = client.get(hanging.url()).timeout(Duration::from_millis(50)).send().await;
    table.row("its own timeout", result, TimedOut);
    let impatient = reqwest::Client::builder().no_proxy().read_timeout(Duration::from_millis(50)).build().unwrap();
    table.row("its own read timeout", impatient.get(hanging.url()).send().await, TimedOut);
    let closing = FaultServer::start([Fault::Close]).await;
    table.row("a connection that ends without a response", send(&closing.url()).await, Connection);
    let result = send(&url(responding("what?\r\n\r\n").await)).await;
    table.row("a malformed response", result, Service);
    let result = send(&url(responding("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n").await)).await;
    table.row("too many redirects", result, Service);
    let status = FaultServer::start([Fault::Status(500, "")]).await;
    let result = send(&status.url()).await.unwrap().error_for_status();
    table.row("a status that became an error", result, Service);
    table.check();
}

/// A codec for messages of plain bytes.
#[derive(Clone, Copy, Default)]
struct Plain {
    fails_to_encode: bool,
}

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, _: Bytes, _: &mut EncodeBuf<'_>) -> Result<(), Status> {
        if self.fails_to_encode { Err(Status::internal("cannot be encoded")) } else { Ok(()) }
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(url(address)).unwrap()
}

fn channel(address: SocketAddr) -> Channel {
    endpoint(address).connect_lazy()
}

fn grpc_request() -> Request<tonic::body::Body> {
    Request::post("/greeter.Greeter/Greet").body(tonic::body::Body::empty()).unwrap()
}

async fn unary(channel: Channel, codec: Plain) -> Result<tonic::Response<Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    client.unary(tonic::Request::new(Bytes::from("Ada")), "/greeter.Greeter/Greet".parse().unwrap(), codec).await
}

fn grpc_verdict(status: &Status) -> Verdict {
    GrpcClassifier.classify(Err::<&tonic::Response<()>, _>(status))
}

#[tokio::test]
async fn errors_of_tonic_are_attributed_to_their_origin() {
    let mut table = Table::default();
    let upstream = healthy().await;

    let refused = unused_address().await;
    table.row("a refused connection", channel(refused).oneshot(grpc_request()).await, Unsent);
    table.row("a refused connection, as a status", unary(channel(refused), Plain::default()).await, Unsent);
    let hanging = h2_server(std::mem::forget).await;
    let impatient = || endpoint(hanging).timeout(Duration::from_millis(50)).connect_lazy();
    table.row("the endpoint's timeout", impatient().oneshot(grpc_request()).await, TimedOut);
    table.row("the endpoint's timeout, as a status", unary(impatient(), Plain::default()).await, TimedOut);
    let mut limited = grpc_request();
    limited.headers_mut().insert("grpc-timeout", "50m".parse().unwrap());
    table.row("the request's timeout", channel(hanging).oneshot(limited).await, TimedOut);
    let failing = Plain { fails_to_encode: true };
    table.row("a message that cannot be encoded", unary(channel(upstream), failing).await, Caller);
    let body = tonic::body::Body::new(Failing(Some(io::ErrorKind::ConnectionRefused), true));
    let result = channel(upstream).oneshot(grpc_request().map(|_| body)).await;
    table.row("a stream of messages that fails", result, Caller);
    let closing = raw_server(|stream| async move { drop(stream) }).await;
    let result = channel(closing).oneshot(grpc_request()).await;
    table.row("a connection that ends during the handshake", result, Unsent);
    table.check();

    // Verdicts on a status of the service's own follow its code, whatever the client's would be.
    for (status, verdict) in [
        (Status::cancelled(""), Verdict::Ignored),
        (Status::unavailable(""), Verdict::Failure),
        (Status::not_found(""), Verdict::Success),
    ] {
        assert_eq!(grpc_verdict(&status), verdict, "{status:?}");
    }
    let status = unary(channel(refused), Plain::default()).await.unwrap_err();
    assert!(!GrpcClassifier.was_attempted(Err::<&tonic::Response<()>, _>(&status)));
}

/// A gRPC server that responds after this time.
async fn grpc_server(delay: Duration) -> SocketAddr {
    h2_server(move |mut stream| {
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            let response = Response::builder().header("content-type", "application/grpc").header("grpc-status", "0");
            let _ = stream.send_response(response.body(()).unwrap(), true);
        });
    })
    .await
}

fn with_grpc_timeout(limit: &'static str) -> Request<tonic::body::Body> {
    let mut request = grpc_request();
    request.headers_mut().insert("grpc-timeout", limit.parse().unwrap());
    request
}

/// Whoever ends a call that hangs, it is a failure and `TimedOut`.
#[tokio::test]
async fn a_hang_is_a_timeout_and_a_failure_whoever_ends_it() {
    const LIMIT: Duration = Duration::from_millis(40);

    let hung = grpc_server(Duration::from_secs(60)).await;
    let limit = || Timeout::new("limit", LIMIT).layer();
    let send = || DeadlineHeader::grpc().send();
    // The limits that the channel enforces: its own, the request's, and the one sent. An attempt
    // timeout of the same length may or may not come first.
    for name in
        ["endpoint", "endpoint and attempt", "request", "request, sent on", "sent", "sent on by a total timeout"]
    {
        let breaker = CircuitBreaker::consecutive("b", 8).unwrap();
        for call in 0..8 {
            assert_eq!(breaker.state(), CircuitState::Closed, "{name}, {call}");
            let plain = breaker.layer().classify(GrpcClassifier);
            let (by_endpoint, by_request) = (endpoint(hung).timeout(LIMIT).connect_lazy(), channel(hung));
            let adapt = AdaptClientErrorLayer::new();
            let stack = ServiceBuilder::new();
            let result = match name {
                "endpoint" => stack.layer(plain).layer(adapt).service(by_endpoint).oneshot(grpc_request()).await,
                "endpoint and attempt" => {
                    stack.layer(plain).layer(limit()).layer(adapt).service(by_endpoint).oneshot(grpc_request()).await
                }
                "request" => {
                    stack.layer(plain).layer(adapt).service(by_request).oneshot(with_grpc_timeout("40m")).await
                }
                "request, sent on" => {
                    let adapt = AdaptErrorLayer::new();
                    let stack = stack.layer(plain).layer(send()).layer(adapt).service(by_request);
                    stack.oneshot(with_grpc_timeout("40m")).await
                }
                "sent" => {
                    let adapt = AdaptErrorLayer::new();
                    let stack = stack.layer(plain).layer(limit()).layer(send()).layer(adapt).service(by_request);
                    stack.oneshot(grpc_request()).await
                }
                _ => {
                    let stack = stack.layer(Timeout::new("total", LIMIT * 2).layer()).layer(plain).layer(limit());
                    stack.layer(send()).layer(adapt).service(by_request).oneshot(grpc_request()).await
                }
            };
            match result {
                Err(Error::Rejected(Rejection::TimedOut { attempted: true, cut_short: false, .. })) => {}
                other => panic!("{name}, {call}: {other:?}"),
            }
        }
        assert_eq!(breaker.state(), CircuitState::Open, "{name}");
    }
}

/// Whoever ends a call at its caller's short deadline, it says nothing about the service.
#[tokio::test]
async fn a_healthy_channel_stays_available_whatever_its_callers_deadlines() {
    let healthy = grpc_server(Duration::from_millis(60)).await;
    let channel = channel(healthy);
    let breaker = CircuitBreaker::consecutive("b", 5).unwrap();
    for name in ["received", "received, with an attempt timeout", "in the request"] {
        for call in 0..12 {
            let plain = breaker.layer().classify(GrpcClassifier);
            let (attempt, send) = (Timeout::new("attempt", Duration::from_secs(1)), DeadlineHeader::grpc().send());
            let (adapt, receive) = (AdaptErrorLayer::new(), DeadlineHeader::grpc().receive());
            let client = channel.clone();
            let result = match name {
                "received" => {
                    let stack = ServiceBuilder::new().layer(receive).layer(plain).layer(send).layer(adapt);
                    stack.service(client).oneshot(with_grpc_timeout("5m")).await
                }
                "in the request" => {
                    let stack = ServiceBuilder::new().layer(plain).layer(attempt.layer()).layer(send).layer(adapt);
                    stack.service(client).oneshot(with_grpc_timeout("5m")).await
                }
                _ => {
                    let stack = ServiceBuilder::new().layer(receive).layer(plain).layer(attempt.layer());
                    stack.layer(send).layer(adapt).service(client).oneshot(with_grpc_timeout("5m")).await
                }
            };
            match result {
                Err(Error::Rejected(Rejection::TimedOut { attempted: true, cut_short: true, .. })) => {}
                other => panic!("{name}, {call}: {other:?}"),
            }
        }
        let found = (breaker.state(), breaker.snapshot().consecutive_failures);
        assert_eq!(found, (CircuitState::Closed, 0), "{name}");
    }
    let response = channel.oneshot(grpc_request()).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "0");
}

/// The same for reqwest's own timeouts.
#[tokio::test]
async fn reqwests_own_timeouts_are_timeouts() {
    let server = FaultServer::start(vec![Fault::Hang; 8]).await;
    let client = || reqwest::Client::builder().no_proxy();
    let short = Duration::from_millis(30);
    for client in [client().timeout(short), client().read_timeout(short)] {
        let breaker = CircuitBreaker::consecutive("b", 4).unwrap();
        let service = ServiceBuilder::new()
            .layer(breaker.layer().classify(HttpClassifier::new()))
            .layer(AdaptClientErrorLayer::new())
            .service(client.build().unwrap());
        for _ in 0..4 {
            let request = reqwest::Request::new(Method::GET, server.url().parse().unwrap());
            match service.clone().oneshot(request).await {
                Err(Error::Rejected(Rejection::TimedOut { after, cut_short: false, .. })) => {
                    assert!(after >= short / 2)
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(breaker.state(), CircuitState::Open);
    }
}

#[tokio::test]
async fn errors_of_marked_bodies_are_the_callers_in_any_chain() {
    #[derive(Debug, thiserror::Error)]
    #[error("the store failed")]
    struct StoreFailed(#[source] BoxError);

    impl TransportError for StoreFailed {
        fn origin(&self) -> ErrorOrigin {
            error_origin(self)
        }
    }

    let mut table = Table::default();
    // A service that reads the body itself, and returns its error as its own.
    let read = |error: CallerError| StoreFailed(Box::new(io::Error::other(error)));
    let result = CallerBody::new(failing(io::ErrorKind::ConnectionReset)).collect().await.map_err(read);
    table.row("a body that the service reads", result, Caller);
    let replay = ReplayLayer::new().layer(service_fn(|request: Request<ReplayBody<AnyBody>>| async move {
        request.into_body().collect().await.map_err(|error| StoreFailed(Box::new(error)))
    }));
    let result = replay.oneshot(post("/", failing(io::ErrorKind::ConnectionRefused))).await;
    table.row("a recorded body that the service reads", result, Caller);
    // Without the mark, the origin is unknown.
    let result = failing(io::ErrorKind::InvalidData).collect().await.map_err(StoreFailed);
    table.row("an unmarked body", result, Service);

    // A recorded body that fails while it is sent.
    let upstream = healthy().await;
    for (version, http2) in [("1", false), ("2", true)] {
        let client = Client::builder(TokioExecutor::new()).http2_only(http2).build_http::<ReplayBody<AnyBody>>();
        let request = post(url(upstream), failing(io::ErrorKind::ConnectionRefused));
        let result = ReplayLayer::new().layer(client).oneshot(request).await;
        table.row(format!("a recorded body over HTTP/{version}"), result, Caller);
    }
    // An attempt that is over, because the next one reads the body.
    let bodies = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = service_fn(|request: Request<ReplayBody<AnyBody>>| {
        bodies.lock().unwrap().push(request.into_body());
        std::future::ready(Ok::<_, Infallible>(()))
    });
    ReplayLayer::new().layer(keep).oneshot(post("/", full("ping"))).await.unwrap();
    let mut first = bodies.lock().unwrap().pop().unwrap();
    let second = first.clone();
    first.frame().await.unwrap().unwrap();
    second.collect().await.unwrap();
    let superseded = first.frame().await.unwrap().map_err(|error| StoreFailed(Box::new(error)));
    table.row("a body that the next attempt reads", superseded, Caller);
    table.check();
}

// The compiler no longer knows that the boxed error is `'static` when it checks whether this block
// is `Send`.
#[tokio::test]
async fn an_http_stack_with_boxed_errors_can_be_called_in_a_spawned_task() {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let stack = stack::client("s").classify(HttpClassifier::new()).repeat(HttpRepeat::new()).build().unwrap();
    let breaker = stack.circuit_breaker().unwrap().clone();
    let service = stack.layer(client.map_err(|error| -> BoxError { error.into() }));
    let upstream = url(healthy().await);
    let status = tokio::spawn(async move {
        // A relative URI is the caller's fault, boxed too.
        service.clone().oneshot(Request::get("/relative").body(Full::default()).unwrap()).await.unwrap_err();
        service.oneshot(Request::get(upstream).body(Full::default()).unwrap()).await.unwrap().status()
    });
    assert_eq!(status.await.unwrap(), 200);
    let window = breaker.snapshot().time_window.unwrap();
    assert_eq!((window.calls, window.failed), (1, 0));
}
