//! The three forms of an error that can hold a rejection, with common clients and servers. The
//! layers need no type annotations here (G19).

mod support;

use std::{convert::Infallible, time::Duration};

use axum::{Router, response::IntoResponse, routing::get};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use support::{BoxError, OwnError};
use tokio::net::TcpListener;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AdaptErrorLayer, AsRejection, DefaultClassifier, Error, Rejection, RespondLayer, ServiceBuilderExt,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    rate_limit::{Rate, RateLimiter},
    retry::Retry,
    stack,
    timeout::Timeout,
};

/// A real server. `/slow` never responds.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

fn router() -> Router {
    let slow = get(|| async { std::future::pending::<()>().await });
    Router::new().route("/", get(|| async { "hello" })).route("/slow", slow)
}

struct Handles {
    timeout: Timeout,
    retry: Retry,
    limiter: RateLimiter,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
}

fn handles() -> Handles {
    Handles {
        timeout: Timeout::new("t", Duration::from_millis(200)),
        retry: Retry::attempts("r", 2).unwrap(),
        limiter: RateLimiter::new("l", Rate::per_minute(100)).unwrap(),
        breaker: CircuitBreaker::new("b"),
        bulkhead: Bulkhead::new("k", 8).unwrap(),
    }
}

// X8
#[tokio::test]
async fn a_reqwest_client_keeps_its_own_error_beside_rejections() {
    let url = serve(router()).await;
    let all = handles();
    let mut client = ServiceBuilder::new()
        .time_limit(&all.timeout)
        .layer(all.retry.layer().clone_with(reqwest::Request::try_clone))
        .rate_limiter(&all.limiter)
        .circuit_breaker(&all.breaker, DefaultClassifier)
        .bulkhead(&all.bulkhead)
        .adapt_error()
        .service(reqwest::Client::new());
    let get = |path: &str| reqwest::Request::new(http::Method::GET, format!("{url}{path}").parse().unwrap());
    let response = client.ready().await.unwrap().call(get("/")).await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    match client.ready().await.unwrap().call(get("/slow")).await {
        Err(Error::Rejected(Rejection::TimedOut { name, .. })) => assert_eq!(name, "t"),
        other => panic!("{other:?}"),
    }
    let unreachable = reqwest::Request::new(http::Method::GET, "http://127.0.0.1:1/".parse().unwrap());
    match client.ready().await.unwrap().call(unreachable).await {
        Err(Error::Service(error)) => assert!(error.is_connect(), "typed and unchanged: {error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(all.bulkhead.snapshot().in_flight, 0);
}

#[tokio::test]
async fn the_client_stack_wraps_a_hyper_util_client() {
    let url = serve(router()).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let stack = stack::client("api").attempt_timeout(Duration::from_millis(200)).build().unwrap();
    let service = stack.layer(AdaptErrorLayer::new().layer(client));
    let get = |path: &str| Request::get(format!("{url}{path}")).body(Empty::new()).unwrap();
    let response = service.clone().oneshot(get("/")).await.unwrap();
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
    match service.clone().oneshot(get("/slow")).await {
        Err(Error::Rejected(rejection)) => assert!(rejection.was_attempted()),
        other => panic!("{other:?}"),
    }
    match service.oneshot(Request::get("http://127.0.0.1:1/").body(Empty::new()).unwrap()).await {
        Err(Error::Service(error)) => assert!(error.is_connect(), "typed and unchanged: {error}"),
        other => panic!("{other:?}"),
    }
}

// L13, G23: axum clones services and applies layers at will.
#[tokio::test]
async fn an_axum_server_responds_to_rejections_on_its_router_and_on_a_route() {
    let respond = |rejection: Rejection| (StatusCode::SERVICE_UNAVAILABLE, rejection.reason()).into_response();
    let all = handles();
    let limiter = RateLimiter::new("two", Rate::per_hour(2)).unwrap();
    let whole = ServiceBuilder::new().layer(all.timeout.layer()).layer(all.bulkhead.layer());
    let router = Router::new()
        .route("/limited", get(|| async { "hello" }))
        .route_layer(RespondLayer::new(limiter.layer(), respond))
        .merge(router())
        .layer(RespondLayer::new(whole, respond));
    let url = serve(router).await;
    let request = async |path: &str| {
        let response = reqwest::get(format!("{url}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    };
    assert_eq!(request("/").await, (200, "hello".to_owned()));
    assert_eq!(request("/slow").await, (503, "timed_out".to_owned()));
    assert_eq!(request("/limited").await.0, 200);
    assert_eq!(request("/limited").await.0, 200);
    assert_eq!(request("/limited").await, (503, "rate_limited".to_owned()));
    assert_eq!(all.bulkhead.snapshot().in_flight, 0);
}

// X8
#[tokio::test]
async fn all_five_layers_wrap_an_axum_router() {
    let all = handles();
    let layers = ServiceBuilder::new()
        .layer(all.timeout.layer())
        .layer(all.retry.layer().clone_with(|_: &axum::extract::Request| None))
        .layer(all.limiter.layer())
        .layer(all.breaker.layer())
        .layer(all.bulkhead.layer())
        .into_inner();
    let respond = |rejection: Rejection| (StatusCode::SERVICE_UNAVAILABLE, rejection.reason()).into_response();
    let url = serve(router().layer(RespondLayer::new(layers, respond))).await;
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    assert_eq!(reqwest::get(format!("{url}/slow")).await.unwrap().status(), 503);
    all.breaker.force_open();
    assert_eq!(reqwest::get(&url).await.unwrap().text().await.unwrap(), "circuit_open");
    assert_eq!(all.bulkhead.snapshot().in_flight, 0);
}

#[tokio::test]
async fn a_server_stack_wraps_an_axum_router() {
    let bulkhead = Bulkhead::new("api", 1).unwrap();
    let stack = stack::server("api").bulkhead(&bulkhead).build().unwrap();
    let layer =
        stack.respond(|rejection: Rejection| (StatusCode::SERVICE_UNAVAILABLE, rejection.reason()).into_response());
    let url = serve(router().layer(layer)).await;
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    let _permit = bulkhead.try_acquire().unwrap();
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 503);
}

// G17
#[tokio::test]
async fn a_box_error_stack_works_through_a_buffer() {
    let all = handles();
    let service = ServiceBuilder::new()
        .buffer::<u32>(4)
        .retries(&all.retry, DefaultClassifier)
        .circuit_breaker(&all.breaker, DefaultClassifier)
        .service(service_fn(|n: u32| async move { Ok::<_, BoxError>(n) }));
    assert_eq!(service.clone().oneshot(7).await.unwrap(), 7);
    all.breaker.force_open();
    assert_eq!(service.oneshot(7).await.unwrap_err().as_rejection().unwrap().name(), "b");
}

#[tokio::test]
async fn an_own_error_enum_can_be_matched() {
    let all = handles();
    let service = ServiceBuilder::new()
        .time_limit(&all.timeout)
        .circuit_breaker(&all.breaker, DefaultClassifier)
        .service(service_fn(|fail: bool| async move { if fail { Err(OwnError::Failed) } else { Ok(1) } }));
    assert!(matches!(service.clone().oneshot(true).await, Err(OwnError::Failed)));
    all.breaker.force_open();
    assert!(matches!(service.oneshot(false).await, Err(OwnError::Rejected(Rejection::CircuitOpen { .. }))));
}

/// All five layers around the service.
fn wrap<S, Req>(service: S) -> impl Service<Req, Response = S::Response, Error = S::Error>
where
    S: Service<Req> + Clone,
    S::Error: From<Rejection> + AsRejection,
    Req: Clone,
{
    let all = handles();
    ServiceBuilder::new()
        .time_limit(&all.timeout)
        .retries(&all.retry, DefaultClassifier)
        .rate_limiter(&all.limiter)
        .circuit_breaker(&all.breaker, DefaultClassifier)
        .bulkhead(&all.bulkhead)
        .service(service)
}

// G19, X8
#[tokio::test]
async fn all_kinds_of_errors_type_check() {
    let io = service_fn(|(): ()| async { Ok::<_, std::io::Error>(1) });
    assert_eq!(wrap(io).oneshot(()).await.unwrap(), 1);
    let infallible = service_fn(|(): ()| async { Ok::<_, Infallible>(1) });
    assert_eq!(wrap(AdaptErrorLayer::new().layer(infallible)).oneshot(()).await.unwrap(), 1);
    #[cfg(feature = "anyhow")]
    {
        let anyhow = service_fn(|(): ()| async { Ok::<_, anyhow::Error>(1) });
        assert_eq!(wrap(anyhow).oneshot(()).await.unwrap(), 1);
    }
    // A channel that connects lazily, to a closed port.
    let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
    let clone = |request: &Request<tonic::body::Body>| {
        let mut copy = Request::new(tonic::body::Body::empty());
        copy.clone_from_parts(request);
        Some(copy)
    };
    let all = handles();
    let service = ServiceBuilder::new()
        .time_limit(&all.timeout)
        .layer(all.retry.layer().clone_with(clone))
        .rate_limiter(&all.limiter)
        .circuit_breaker(&all.breaker, DefaultClassifier)
        .bulkhead(&all.bulkhead)
        .adapt_error()
        .service(channel);
    match service.oneshot(Request::new(tonic::body::Body::empty())).await {
        Err(Error::Service(error)) => {
            let _: tonic::transport::Error = error;
        }
        Err(Error::Rejected(rejection)) => assert_eq!(rejection.name(), "t"),
        Ok(_) => panic!("a response from a closed port"),
    }
}

trait CloneFromParts {
    fn clone_from_parts(&mut self, other: &Self);
}

impl CloneFromParts for Request<tonic::body::Body> {
    fn clone_from_parts(&mut self, other: &Self) {
        *self.method_mut() = other.method().clone();
        *self.uri_mut() = other.uri().clone();
        *self.headers_mut() = other.headers().clone();
    }
}
