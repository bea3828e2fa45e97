//! tonic's client and server: unary calls with messages of plain bytes.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use futures_util::future::BoxFuture;
use http::{Request, Response, uri::PathAndQuery};
use metrics_exporter_prometheus::PrometheusHandle;
use tonic::{
    Status,
    body::Body,
    client::{Grpc, GrpcService},
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    server::NamedService,
    service::Routes,
    transport::{
        Channel, Endpoint, Server,
        server::{Router, TcpIncoming},
    },
};
use tower::{Layer, Service, ServiceBuilder, service_fn};
use tower_rampart::{
    BoxError,
    circuit_breaker::CircuitBreaker,
    event::MetricsObserver,
    http::{
        AdaptClientErrorLayer, DeadlineHeader, GrpcClassifier, HttpRepeat, ReplayBody, ReplayLayer,
        full_response::FullResponseLayer, grpc_response,
    },
    retry::Retry,
    stack,
    timeout::Timeout,
};

use crate::load::{Caller, Candidate};

#[derive(Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
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

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Responds to each message with itself, as a generated server would.
#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "bench.Echo";
}

impl Service<Request<Body>> for Echo {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(async move {
            let echo = service_fn(async |request: tonic::Request<Bytes>| {
                Ok::<_, Status>(tonic::Response::new(request.into_inner()))
            });
            Ok(tonic::server::Grpc::new(Plain).unary(echo, request).await)
        })
    }
}

struct GrpcCaller<S>(Grpc<S>);

impl<S: Clone> Clone for GrpcCaller<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> Caller for GrpcCaller<S>
where
    S: GrpcService<Body, Future: Send> + Clone + Send + Sync + 'static,
    S::ResponseBody: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    async fn call(&mut self) {
        assert!(self.0.ready().await.is_ok());
        let path = PathAndQuery::from_static("/bench.Echo/Get");
        let reply = self.0.unary(tonic::Request::new(Bytes::from_static(b"hello")), path, Plain).await.unwrap();
        assert_eq!(reply.into_inner(), "hello");
    }
}

pub(crate) async fn unary(metrics: &PrometheusHandle) -> Vec<Candidate> {
    let bare = channel(Server::builder().add_service(Echo));
    let protected = stack::server("server").build().unwrap().respond(grpc_response::<Body>);
    let protected = channel(Server::builder().layer(protected).add_service(Echo));
    let inner = ServiceBuilder::new()
        .layer(AdaptClientErrorLayer::new())
        .map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))
        .service(bare.clone());
    let repeat = HttpRepeat::new().idempotent_if(|_: &Request<ReplayBody<Body>>| Some(true));
    let stack = |name: &'static str| stack::client(name).classify(GrpcClassifier).repeat(repeat);
    let wrap = |stack| ServiceBuilder::new().layer(ReplayLayer::new()).layer(stack).service(inner.clone());
    let stacked = wrap(stack("stacked").build().unwrap());
    let observed = wrap(stack("observed").observer(MetricsObserver::new()).build().unwrap());
    // As in the guide for tonic's client.
    let (retry, breaker) = (Retry::attempts("guide", 3).unwrap(), CircuitBreaker::new("guide"));
    let total = Timeout::new("guide", Duration::from_secs(2));
    let attempt = Timeout::new("guide-attempt", Duration::from_millis(800));
    let guided = ServiceBuilder::new()
        .layer(ReplayLayer::new())
        .layer(total.layer())
        .layer(retry.layer().classify(GrpcClassifier).repeat(repeat))
        .layer(FullResponseLayer::new(breaker.layer().classify(GrpcClassifier)))
        .layer(attempt.layer())
        .layer(DeadlineHeader::grpc().send())
        .service(inner.clone());
    vec![
        Candidate::new("bare client and server", GrpcCaller(Grpc::new(bare))),
        Candidate::new("client stack", GrpcCaller(Grpc::new(stacked))),
        Candidate::observed("client stack, metrics observer", GrpcCaller(Grpc::new(observed)), metrics),
        Candidate::new("the guide's layers, breaker over the full response", GrpcCaller(Grpc::new(guided))),
        Candidate::new("server stack", GrpcCaller(Grpc::new(protected))),
    ]
}

/// Starts the server, and returns a channel to it.
fn channel<L>(server: Router<L>) -> Channel
where
    L: Layer<Routes> + Clone + Send + 'static,
    L::Service: Service<Request<Body>, Response = Response<Body>, Error: Into<BoxError> + Send, Future: Send>,
    L::Service: Clone + Send + 'static,
{
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap().with_nodelay(Some(true));
    let address = incoming.local_addr().unwrap();
    tokio::spawn(server.serve_with_incoming(incoming));
    Endpoint::new(format!("http://{address}")).unwrap().connect_lazy()
}
