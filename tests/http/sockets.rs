//! Clients against a server with faults, over real sockets. For each fault: the caller's result,
//! the number of attempts that reached the server, that all permits are released, and that the
//! client stays usable.

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

/// The caller's result.
#[derive(Debug, PartialEq)]
enum Outcome {
    /// A response, and its body if it was complete.
    Response(u16, Option<String>),
    Rejected(&'static str),
    NotSent,
    Failed,
}

fn hello() -> Outcome {
    Outcome::Response(200, Some("hello".to_owned()))
}

/// Sends a request with this body to this address.
type SendRequest = dyn Fn(Method, String, &'static str) -> OutcomeFuture;
type OutcomeFuture = Pin<Box<dyn Future<Output = Outcome>>>;

/// A client in a stack, and the stack's handles.
struct Subject {
    name: &'static str,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
    send: Box<SendRequest>,
}

async fn outcome<B, E>(result: Result<Response<B>, E>) -> Outcome
where
    B: Body<Data = Bytes>,
    B::Error: Debug,
    E: AsRejection + TransportError,
{
    match result {
        Ok(response) => {
            let status = response.status().as_u16();
            let body = response.into_body().collect().await.ok();
            Outcome::Response(status, body.map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap()))
        }
        Err(error) => match error.as_rejection() {
            Some(rejection) => Outcome::Rejected(rejection.reason()),
            None if !error.was_attempted() => Outcome::NotSent,
            None => Outcome::Failed,
        },
    }
}

/// A client's layers around a given inner service.
macro_rules! protected {
    ($breaker:ident, $bulkhead:ident, $classify:expr, $inner:expr) => {{
        let backoff = Backoff::fixed(Duration::from_millis(5));
        let retry = Retry::builder("r").max_attempts(3).backoff(backoff).max_retry_after(secs(2)).no_budget();
        ServiceBuilder::new()
            .layer(retry.build().unwrap().layer().classify($classify).repeat(HttpRepeat::new()))
            .layer($breaker.layer().classify($classify))
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
    let service = protected!(breaker, bulkhead, HttpClassifier::new(), inner);
    let send = move |method, url: String, body: &'static str| {
        let request = Request::builder().method(method).uri(url).body(Full::from(body)).unwrap();
        let call = service.clone().oneshot(request);
        Box::pin(async move { outcome(call.await).await }) as OutcomeFuture
    };
    Subject { name: "hyper-util", breaker, bulkhead, send: Box::new(send) }
}

/// The permit is held until the body ends, and a body that breaks off is a failure.
fn by_hyper_util_full_response() -> Subject {
    let (breaker, bulkhead) = handles();
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).max_retry_after(secs(2));
    let covering = ServiceBuilder::new()
        .layer(breaker.layer().classify(HttpClassifier::new()))
        .layer(bulkhead.layer())
        .layer(Timeout::new("total", ATTEMPT).layer())
        .into_inner();
    let service = ServiceBuilder::new()
        .layer(retry.no_budget().build().unwrap().layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
        .layer(DrainLayer::new())
        .layer(FullResponseLayer::new(covering))
        .layer(BodyTimeoutLayer::new(&Timeout::new("idle", IDLE)))
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(client);
    let send = move |method, url: String, body: &'static str| {
        let request = Request::builder().method(method).uri(url).body(Full::from(body)).unwrap();
        let call = service.clone().oneshot(request);
        Box::pin(async move { outcome(call.await).await }) as OutcomeFuture
    };
    Subject { name: "hyper-util, full response", breaker, bulkhead, send: Box::new(send) }
}

fn by_reqwest() -> Subject {
    let (breaker, bulkhead) = handles();
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).read_timeout(IDLE * 3);
    let classify = HttpClassifier::new().single_exchange();
    let service = protected!(breaker, bulkhead, classify, client.build().unwrap());
    let send = move |method, url: String, body: &'static str| {
        let mut request = reqwest::Request::new(method, url.parse().unwrap());
        *request.body_mut() = Some(body.into());
        let call = service.clone().oneshot(request);
        Box::pin(async move { outcome(call.await.map(Response::from)).await }) as OutcomeFuture
    };
    Subject { name: "reqwest", breaker, bulkhead, send: Box::new(send) }
}

fn subjects() -> [Subject; 3] {
    [by_hyper_util(), by_hyper_util_full_response(), by_reqwest()]
}

/// Sends a request through the faults, then checks that the client is still usable. Returns the
/// outcome and the number of attempts.
async fn send_through(subject: &Subject, method: Method, faults: &[Fault]) -> (Outcome, usize) {
    let server = FaultServer::start(faults.iter().cloned()).await;
    let got = (subject.send)(method, server.url(), "ping").await;
    let attempts = server.requests().len();
    assert_eq!(subject.bulkhead.snapshot().in_flight, 0, "{}: all permits are released", subject.name);
    // A new server, so that unused faults do not affect the next requests.
    let after = FaultServer::start([]).await;
    for _ in 0..3 {
        assert_eq!((subject.send)(Method::GET, after.url(), "").await, hello(), "{}: still usable", subject.name);
    }
    assert_eq!(after.connections(), 1, "{}: connections are reused", subject.name);
    if attempts == faults.len() {
        assert_eq!((subject.send)(Method::GET, server.url(), "").await, hello(), "{}: the same server", subject.name);
    }
    (got, attempts)
}

#[tokio::test]
async fn an_idempotent_request_that_fails_before_its_response_is_retried() {
    for subject in subjects() {
        for fault in [Fault::Hang, Fault::Close, Fault::Status(503, ""), Fault::Status(500, "")] {
            let (got, attempts) = send_through(&subject, Method::GET, &[fault.clone(), fault.clone()]).await;
            assert_eq!((got, attempts), (hello(), 3), "{} {fault:?}", subject.name);
            let (got, attempts) = send_through(&subject, Method::POST, std::slice::from_ref(&fault)).await;
            assert_eq!(attempts, 1, "{} {fault:?}", subject.name);
            let expected = match fault {
                Fault::Hang => Outcome::Rejected("timed_out"),
                Fault::Status(status, _) => Outcome::Response(status, Some("told".to_owned())),
                _ => Outcome::Failed,
            };
            assert_eq!(got, expected, "{} {fault:?}", subject.name);
        }
    }
}

#[tokio::test]
async fn a_post_without_a_connection_is_retried_and_reported_as_not_sent() {
    for subject in subjects() {
        let url = format!("http://{}/", unused_address().await);
        // reqwest's error alone does not prove it: the client might have followed a redirect.
        let expected = if subject.name == "reqwest" { Outcome::Failed } else { Outcome::NotSent };
        assert_eq!((subject.send)(Method::POST, url, "ping").await, expected, "{}", subject.name);
        assert_eq!(subject.bulkhead.snapshot().in_flight, 0);
        let failures = subject.breaker.snapshot().consecutive_failures;
        assert_eq!(failures, 3, "{}: three attempts, each a failure for the breaker", subject.name);
    }
}

#[tokio::test]
async fn a_broken_off_response_reaches_the_caller_and_counts_if_covered() {
    let drip = Fault::Drip { bytes: 1000, every: IDLE / 5 };
    for subject in subjects() {
        let is_covered = subject.name.ends_with("full response");
        for fault in [Fault::HeadersThenHang, Fault::ResetInBody] {
            let (got, attempts) = send_through(&subject, Method::GET, std::slice::from_ref(&fault)).await;
            assert_eq!((got, attempts), (Outcome::Response(200, None), 1), "{} {fault:?}", subject.name);
        }
        // A body that never stalls: only a total timeout ends it.
        if is_covered {
            let failed = subject.breaker.snapshot().consecutive_failures;
            let server = FaultServer::start([drip.clone()]).await;
            assert_eq!((subject.send)(Method::GET, server.url(), "").await, Outcome::Response(200, None));
            assert_eq!(subject.breaker.snapshot().consecutive_failures, failed + 1);
            assert_eq!(subject.bulkhead.snapshot().in_flight, 0);
        }
        let slow = Fault::Drip { bytes: 5, every: IDLE / 20 };
        let (got, attempts) = send_through(&subject, Method::GET, &[slow]).await;
        assert_eq!((got, attempts), (Outcome::Response(200, Some("xxxxx".to_owned())), 1), "{}", subject.name);
    }
}

// R27, R30
#[tokio::test]
async fn each_form_of_retry_after_is_honored_up_to_the_cap() {
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
    #[allow(clippy::disallowed_methods)] // measures the caller's wait
    let now = tokio::time::Instant::now;
    let subject = by_hyper_util();
    for (status, headers) in
        SOON.map(|headers| (503, headers)).into_iter().chain([(429, "ratelimit: \"d\";r=0;t=1\r\n")])
    {
        let start = now();
        let (got, attempts) = send_through(&subject, Method::GET, &[Fault::Status(status, headers)]).await;
        assert_eq!((got, attempts), (hello(), 2), "{headers}");
        assert!(now() - start >= secs(1), "{headers}");
    }
    for headers in LATER {
        let (got, attempts) = send_through(&subject, Method::GET, &[Fault::Status(503, headers)]).await;
        assert_eq!((got, attempts), (Outcome::Response(503, Some("told".to_owned())), 1), "{headers}");
    }
    let (got, attempts) = send_through(&by_reqwest(), Method::POST, &[Fault::Status(429, "retry-after: 1\r\n")]).await;
    assert_eq!((got, attempts), (hello(), 2), "a 429 was certainly not processed");
}

// R41
#[tokio::test]
async fn a_post_is_made_once_if_a_redirect_may_have_been_followed() {
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(1))).no_budget().build().unwrap();
    let retry = || retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new());
    let by_reqwest = ServiceBuilder::new()
        .layer(retry())
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(reqwest::Client::new());
    let converted = ServiceBuilder::new()
        .layer(retry())
        .map_response(Response::<reqwest::Body>::from)
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(reqwest::Client::new());
    let by_hyper_util = ServiceBuilder::new()
        .layer(retry())
        .layer(tower_rampart::AdaptErrorLayer::new())
        .layer(tower_http::follow_redirect::FollowRedirectLayer::new())
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    let refusing = unused_address().await;
    for status in [301, 302, 303, 307, 308] {
        // The redirect's target, as seen from the server of the POST: another server, or the same
        // URL.
        for (target, answer) in [("refuses", 0), ("answers", 421), ("answers", 425), ("answers", 429), ("same", 429)] {
            for client in ["reqwest", "reqwest, converted", "hyper-util"] {
                // The errors of a redirecting layer around hyper-util cannot be recognized.
                if (target, client) == ("refuses", "hyper-util") {
                    continue;
                }
                let target_server = FaultServer::start(vec![Fault::Status(answer, ""); 3]).await;
                let location = match target {
                    "refuses" => format!("http://{refusing}/"),
                    "answers" => target_server.url(),
                    _ => "/".to_owned(),
                };
                let redirect = Fault::Status(status, format!("location: {location}\r\n").leak());
                let server = match target {
                    "same" => FaultServer::start([redirect, Fault::Status(answer, "")]).await,
                    _ => FaultServer::start(vec![redirect; 3]).await,
                };
                let url = server.url();
                match client {
                    "reqwest" | "reqwest, converted" => {
                        let mut request = reqwest::Request::new(Method::POST, url.parse().unwrap());
                        *request.body_mut() = Some("charge".into());
                        if client == "reqwest" {
                            drop(by_reqwest.clone().oneshot(request).await);
                        } else {
                            drop(converted.clone().oneshot(request).await);
                        }
                    }
                    _ => drop(by_hyper_util.clone().oneshot(Request::post(url).body(Full::default()).unwrap()).await),
                }
                let requests = server.requests();
                let made = requests.iter().filter(|request| request.starts_with("POST")).count();
                let redirected = usize::from(target == "same" && status > 303);
                assert_eq!(made, 1 + redirected, "{client}: {status} to a target that {target} {answer}: {requests:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_servers_retry_after_keeps_later_requests_away() {
    let server = FaultServer::start(vec![Fault::Status(503, "retry-after: 30\r\n"); 2]).await;
    let breaker = CircuitBreaker::new("b");
    let service = ServiceBuilder::new()
        .layer(breaker.layer().classify(HttpClassifier::new()))
        .layer(HonorRetryAfterLayer::new(&breaker))
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(reqwest::Client::new());
    let get = || reqwest::Request::new(Method::GET, server.url().parse().unwrap());
    for _ in 0..2 {
        assert_eq!(breaker.state(), CircuitState::Closed, "one response speaks for itself");
        assert_eq!(service.clone().oneshot(get()).await.unwrap().status(), 503);
    }
    assert_eq!(breaker.state(), CircuitState::Open);
    match service.oneshot(get()).await.unwrap_err() {
        Error::Rejected(Rejection::CircuitOpen { retry_after: Some(left), .. }) => {
            assert!(left > secs(20) && left <= secs(30), "{left:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn a_closed_idle_connection_costs_no_request() {
    for subject in subjects() {
        let server = FaultServer::start(vec![Fault::OkThenClose; 5]).await;
        for _ in 0..6 {
            assert_eq!((subject.send)(Method::GET, server.url(), "").await, hello(), "{}", subject.name);
            // The server closes the connection shortly after its response.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(server.requests().len(), 6, "{}", subject.name);
        assert_eq!(subject.bulkhead.snapshot().in_flight, 0);
    }
}

#[tokio::test]
async fn all_attempts_send_the_same_body_and_key() {
    let server = FaultServer::start([Fault::Status(503, ""), Fault::Close]).await;
    let retry = Retry::builder("r").backoff(Backoff::fixed(Duration::from_millis(5))).no_budget().build().unwrap();
    let client = Client::builder(TokioExecutor::new()).build_http();
    let service = ServiceBuilder::new()
        .layer(IdempotencyKeyLayer::new())
        .layer(ReplayLayer::new())
        .layer(retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
        .layer(tower_rampart::AdaptErrorLayer::new())
        .service(client);
    let chunks = ["charge ", "7 ", "euros"].map(|chunk| Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(chunk))));
    let body = http_body_util::StreamBody::new(futures_util::stream::iter(chunks));
    let response = service.oneshot(Request::post(server.url()).body(body).unwrap()).await.unwrap();
    assert_eq!(response.status(), 200);
    let requests = server.requests();
    assert_eq!(requests.len(), 3);
    let key = |request: &str| request.lines().find(|line| line.starts_with("idempotency-key: ")).map(str::to_owned);
    for request in &requests {
        assert!(key(request).is_some() && key(request) == key(&requests[0]));
        let body = request.split_once("\r\n\r\n").unwrap().1;
        // Chunked the first time, when the length is not yet known.
        let chunks = || body.lines().skip(1).step_by(2).collect();
        let body = if request.contains("chunked") { chunks() } else { body.to_owned() };
        assert_eq!(body, "charge 7 euros", "{request}");
    }
}
