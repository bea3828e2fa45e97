//! Clients against a server with faults, over real sockets. For each fault: what the caller got, how many attempts
//! reached the server, that the permits came home, and that the client is still usable.

use std::{fmt::Debug, pin::Pin, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AsRejection, BoxError, Error, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    http::{
        DrainLayer, HonorRetryAfterLayer, HttpClassifier, HttpRepeat, IdempotencyKeyLayer, ReplayLayer, TransportError,
        full_response::{BodyTimeoutLayer, FullResponseLayer},
    },
    retry::{Backoff, Retry},
    timeout::Timeout,
};

use crate::{
    faults::{Fault, FaultServer, unused_address},
    secs,
};

const ATTEMPT: Duration = Duration::from_millis(600);
const IDLE: Duration = Duration::from_millis(300);

/// What the caller got.
#[derive(Debug, PartialEq)]
enum Got {
    /// A response, and its body if it came to its end.
    Response(u16, Option<String>),
    Rejected(&'static str),
    NotSent,
    Failed,
}

fn hello() -> Got {
    Got::Response(200, Some("hello".to_owned()))
}

/// Sends a request with this body to this address.
type Ask = dyn Fn(Method, String, &'static str) -> Asking;
type Asking = Pin<Box<dyn Future<Output = Got>>>;

/// A client in a stack, of whatever kind, and the handles of the stack.
struct Subject {
    name: &'static str,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    ask: Box<Ask>,
}

async fn got<B, E>(result: Result<Response<B>, E>) -> Got
where
    B: Body<Data = Bytes>,
    B::Error: Debug,
    E: AsRejection + TransportError,
{
    match result {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok();
            Got::Response(status, body.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap()))
        }
        Err(error) => match error.as_rejection() {
            Some(rejection) => Got::Rejected(rejection.reason()),
            None if !error.was_attempted() => Got::NotSent,
            None => Got::Failed,
        },
    }
}

/// The layers of a client; what is inside of them differs.
macro_rules! protected {
    ($breaker:ident, $bulkhead:ident, $inner:expr) => {{
        let backoff = Backoff::fixed(Duration::from_millis(5));
        let retry = Retry::builder("r").max_attempts(3).backoff(backoff).max_retry_after(secs(2)).no_budget();
        ServiceBuilder::new()
            .layer(retry.build().unwrap().layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
            .layer($breaker.layer().classify(HttpClassifier::new()))
            .layer($bulkhead.layer())
            .layer(Timeout::new("attempt", ATTEMPT).layer())
            .layer(tower_rampart::AdaptErrorLayer::new())
            .service($inner)
    }};
}

fn handles() -> (CircuitBreaker, Bulkhead) {
    (CircuitBreaker::consecutive("b", 50).unwrap(), Bulkhead::new("k", 4).unwrap())
}

fn by_hyper_util() -> Subject {
    let (breaker, bulkhead) = handles();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let inner = BodyTimeoutLayer::new(&Timeout::new("idle", IDLE)).layer(client);
    let service = protected!(breaker, bulkhead, inner);
    let ask = move |method, url: String, body: &'static str| {
        let request = Request::builder().method(method).uri(url).body(Full::from(body)).unwrap();
        let call = service.clone().oneshot(request);
        Box::pin(async move { got(call.await).await }) as Asking
    };
    Subject { name: "hyper-util", breaker, bulkhead, ask: Box::new(ask) }
}

/// The permit is held until the body ends, and a body that breaks off is a failure.
fn by_hyper_util_whole() -> Subject {
    let (breaker, bulkhead) = handles();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).max_retry_after(secs(2));
    let whole = ServiceBuilder::new()
        .layer(breaker.layer().classify(HttpClassifier::new()))
        .layer(bulkhead.layer())
        .layer(Timeout::new("total", ATTEMPT).layer())
        .into_inner();
    let service = ServiceBuilder::new()
        .layer(retry.no_budget().build().unwrap().layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
        .layer(DrainLayer::new())
        .layer(FullResponseLayer::new(whole))
        .layer(BodyTimeoutLayer::new(&Timeout::new("idle", IDLE)))
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(client);
    let ask = move |method, url: String, body: &'static str| {
        let request = Request::builder().method(method).uri(url).body(Full::from(body)).unwrap();
        let call = service.clone().oneshot(request);
        Box::pin(async move { got(call.await).await }) as Asking
    };
    Subject { name: "hyper-util, whole", breaker, bulkhead, ask: Box::new(ask) }
}

fn by_reqwest() -> Subject {
    let (breaker, bulkhead) = handles();
    let service = protected!(breaker, bulkhead, reqwest::Client::builder().read_timeout(IDLE * 3).build().unwrap());
    let ask = move |method, url: String, body: &'static str| {
        let mut request = reqwest::Request::new(method, url.parse().unwrap());
        *request.body_mut() = Some(body.into());
        let call = service.clone().oneshot(request);
        Box::pin(async move { got(call.await.map(Response::from)).await }) as Asking
    };
    Subject { name: "reqwest", breaker, bulkhead, ask: Box::new(ask) }
}

fn subjects() -> [Subject; 3] {
    [by_hyper_util(), by_hyper_util_whole(), by_reqwest()]
}

/// Meets the faults with a request, and asks once more.
async fn meets(subject: &Subject, method: Method, faults: &[Fault]) -> (Got, usize) {
    let server = FaultServer::start(faults.iter().cloned()).await;
    let got = (subject.ask)(method, server.url(), "ping").await;
    let attempts = server.requests().len();
    assert_eq!(subject.bulkhead.snapshot().in_flight, 0, "{}: the permits came home", subject.name);
    // Faults that were not met are none of the next request's business.
    let after = FaultServer::start([]).await;
    for _ in 0..3 {
        assert_eq!((subject.ask)(Method::GET, after.url(), "").await, hello(), "{}: still usable", subject.name);
    }
    assert_eq!(after.connections(), 1, "{}: connections are reused", subject.name);
    if attempts == faults.len() {
        assert_eq!((subject.ask)(Method::GET, server.url(), "").await, hello(), "{}: the same server", subject.name);
    }
    (got, attempts)
}

#[tokio::test]
async fn what_failed_before_its_response_is_repeated_if_it_is_idempotent() {
    for subject in subjects() {
        for fault in [Fault::Hang, Fault::Close, Fault::Status(503, ""), Fault::Status(500, "")] {
            let (got, attempts) = meets(&subject, Method::GET, &[fault.clone(), fault.clone()]).await;
            assert_eq!((got, attempts), (hello(), 3), "{} {fault:?}", subject.name);
            let (got, attempts) = meets(&subject, Method::POST, std::slice::from_ref(&fault)).await;
            assert_eq!(attempts, 1, "{} {fault:?}", subject.name);
            let expected = match fault {
                Fault::Hang => Got::Rejected("timed_out"),
                Fault::Status(status, _) => Got::Response(status, Some("told".to_owned())),
                _ => Got::Failed,
            };
            assert_eq!(got, expected, "{} {fault:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_post_that_found_no_connection_is_repeated_and_told_from_others() {
    for subject in subjects() {
        let url = format!("http://{}/", unused_address().await);
        assert_eq!((subject.ask)(Method::POST, url, "ping").await, Got::NotSent, "{}", subject.name);
        assert_eq!(subject.bulkhead.snapshot().in_flight, 0);
        let run = subject.breaker.snapshot().consecutive_failures;
        assert_eq!(run, 3, "{}: three attempts, each a failure for the breaker", subject.name);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_reaches_the_caller_and_counts_where_it_is_watched() {
    let drip = Fault::Drip { bytes: 1000, every: IDLE / 5 };
    for subject in subjects() {
        let whole = subject.name.ends_with("whole");
        for fault in [Fault::HeadersThenHang, Fault::ResetInBody] {
            let (got, attempts) = meets(&subject, Method::GET, std::slice::from_ref(&fault)).await;
            assert_eq!((got, attempts), (Got::Response(200, None), 1), "{} {fault:?}", subject.name);
        }
        // One that never stalls: only a total time ends it.
        if whole {
            let failed = subject.breaker.snapshot().consecutive_failures;
            let server = FaultServer::start([drip.clone()]).await;
            assert_eq!((subject.ask)(Method::GET, server.url(), "").await, Got::Response(200, None));
            assert_eq!(subject.breaker.snapshot().consecutive_failures, failed + 1);
            assert_eq!(subject.bulkhead.snapshot().in_flight, 0);
        }
        let slow = Fault::Drip { bytes: 5, every: IDLE / 20 };
        let (got, attempts) = meets(&subject, Method::GET, &[slow]).await;
        assert_eq!((got, attempts), (Got::Response(200, Some("xxxxx".to_owned())), 1), "{}", subject.name);
    }
}

// R27, R30
#[tokio::test]
async fn each_form_of_retry_after_is_followed_up_to_the_cap() {
    const SOON: [&str; 4] = [
        "retry-after: 1\r\n",
        "date: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2015 07:28:01 GMT\r\n",
        "retry-after-ms: 1000\r\n",
        "retry-after: 1.0\r\n",
    ];
    const LATER: [&str; 2] = [
        "retry-after: 3600\r\n",
        "date: Wed, 21 Oct 2015 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2015 08:28:01 GMT\r\n",
    ];
    #[allow(clippy::disallowed_methods)] // the time that passed for the caller
    let now = tokio::time::Instant::now;
    let subject = by_hyper_util();
    for (status, headers) in
        SOON.map(|headers| (503, headers)).into_iter().chain([(429, "ratelimit: \"d\";r=0;t=1\r\n")])
    {
        let start = now();
        let (got, attempts) = meets(&subject, Method::GET, &[Fault::Status(status, headers)]).await;
        assert_eq!((got, attempts), (hello(), 2), "{headers}");
        assert!(now() - start >= secs(1), "{headers}");
    }
    for headers in LATER {
        let (got, attempts) = meets(&subject, Method::GET, &[Fault::Status(503, headers)]).await;
        assert_eq!((got, attempts), (Got::Response(503, Some("told".to_owned())), 1), "{headers}");
    }
    let (got, attempts) = meets(&by_reqwest(), Method::POST, &[Fault::Status(429, "retry-after: 1\r\n")]).await;
    assert_eq!((got, attempts), (hello(), 2), "a 429 was surely not done");
}

#[tokio::test]
async fn a_server_that_asks_to_be_left_alone_is() {
    let server = FaultServer::start([Fault::Status(503, "retry-after: 30\r\n")]).await;
    let breaker = CircuitBreaker::new("b");
    let service = ServiceBuilder::new()
        .layer(breaker.layer().classify(HttpClassifier::new()))
        .layer(HonorRetryAfterLayer::new(&breaker))
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(reqwest::Client::new());
    let get = || reqwest::Request::new(Method::GET, server.url().parse().unwrap());
    assert_eq!(service.clone().oneshot(get()).await.unwrap().status(), 503);
    assert_eq!(breaker.state(), CircuitState::Open);
    match service.oneshot(get()).await.unwrap_err() {
        Error::Rejected(Rejection::CircuitOpen { retry_after: Some(left), .. }) => {
            assert!(left > secs(20) && left <= secs(30), "{left:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_no_request() {
    for subject in subjects() {
        let server = FaultServer::start(vec![Fault::OkThenClose; 5]).await;
        for _ in 0..6 {
            assert_eq!((subject.ask)(Method::GET, server.url(), "").await, hello(), "{}", subject.name);
            // The server closes a moment after its answer.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.requests().len(), 6, "{}", subject.name);
        assert_eq!(subject.bulkhead.snapshot().in_flight, 0);
    }
}

#[tokio::test]
async fn bodies_and_keys_are_the_same_over_all_attempts() {
    let server = FaultServer::start([Fault::Status(503, ""), Fault::Close]).await;
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).no_budget().build().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = ServiceBuilder::new()
        .layer(IdempotencyKeyLayer::new())
        .layer(ReplayLayer::new())
        .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(client);
    let pieces = ["charge ", "7 ", "euros"].map(|piece| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(piece))));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(pieces));
    let response = service.oneshot(Request::post(server.url()).body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    let key = |request: &str| request.lines().find(|line| line.starts_with("idempotency-key: ")).map(str::to_owned);
    for request in &requests {
        assert!(key(request).is_some() && key(request) == key(&requests[0]));
        let body = request.split_once("\r\n\r\n").unwrap().1;
        // In pieces the first time, when its length is not known yet.
        let pieces = || body.lines().skip(1).step_by(2).collect();
        let body = if request.contains("chunked") { pieces() } else { body.to_owned() };
        assert_eq!(body, "charge 7 euros", "{request}");
    }
}
