//! Which requests are retried: by method, by `Idempotency-Key`, or because they were certainly not
//! processed; and which hints are honored.

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, Version};
use http_body_util::Full;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, BoxError, Error, Rejection,
    circuit_breaker::{CircuitBreaker, CircuitState},
    http::{HonorRetryAfterLayer, HttpClassifier, HttpRepeat, IdempotencyKeyLayer},
    request::Repeat,
    retry::{Backoff, Jitter, Retry, RetryLayer},
};

use crate::{response, secs, support::recorder::Recorder};

type Outcome = Result<Response<()>, BoxError>;

fn layer() -> RetryLayer<HttpClassifier, HttpRepeat> {
    let backoff = Backoff::fixed(Duration::from_millis(10)).jitter(Jitter::None);
    let retry =
        Retry::builder("test").max_attempts(3).backoff(backoff).max_retry_after(secs(5)).no_budget().build().unwrap();
    retry.layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new())
}

/// Sends a request whose every attempt has this outcome. Returns the number of attempts and the
/// time they took.
async fn attempts(request: Request<()>, outcome: fn() -> Outcome) -> (usize, Duration) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let service = layer().layer(service_fn(move |_: Request<()>| {
        counted.fetch_add(1, SeqCst);
        std::future::ready(outcome())
    }));
    #[allow(clippy::disallowed_methods)] // the test reads the paused clock itself
    let now = tokio::time::Instant::now;
    let start = now();
    let _ = service.oneshot(request).await;
    (calls.load(SeqCst), now() - start)
}

fn request(method: Method) -> Request<()> {
    Request::builder().method(method).uri("http://inventory/items").body(()).unwrap()
}

// R31
#[tokio::test(start_paused = true)]
async fn idempotent_methods_are_retried_and_others_are_not() {
    use Method as M;
    let timed_out = || Err(Rejection::timed_out("t", secs(1), true).into());
    let outcomes: [fn() -> Outcome; 3] =
        [|| Ok(response(503, &[])), || Err(io::Error::from(io::ErrorKind::ConnectionReset).into()), timed_out];
    for outcome in outcomes {
        for method in [M::GET, M::HEAD, M::OPTIONS, M::TRACE, M::PUT, M::DELETE] {
            assert_eq!(attempts(request(method.clone()), outcome).await.0, 3, "{method}");
        }
        for method in [M::POST, M::PATCH, M::CONNECT] {
            assert_eq!(attempts(request(method.clone()), outcome).await.0, 1, "{method}");
            let mut keyed = request(method.clone());
            keyed.headers_mut().insert("idempotency-key", "k".parse().unwrap());
            assert_eq!(attempts(keyed, outcome).await.0, 3, "{method} with a key");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_one_key_that_is_not_empty_makes_a_post_repeatable() {
    let outcome = || Ok(response(503, &[]));
    let keyed = |keys: &[&'static str]| {
        let mut request = request(Method::POST);
        for key in keys {
            request.headers_mut().append("idempotency-key", key.parse().unwrap());
        }
        request
    };
    for keys in [&["k"][..], &["\"k\""], &[" k "], &["\"\\\"\""], &["\"a b\";x=1"]] {
        assert_eq!(attempts(keyed(keys), outcome).await.0, 3, "{keys:?}");
    }
    for keys in [&[""][..], &["  "], &["\""], &["\"\""], &["\"  \""], &["\"open"], &["a", "b"], &["", "b"]] {
        assert_eq!(attempts(keyed(keys), outcome).await.0, 1, "{keys:?}");
    }
    // The layer replaces an empty key, and leaves several as they are.
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = seen.clone();
    let service = IdempotencyKeyLayer::new().layer(service_fn(move |request: Request<()>| {
        saw.lock().unwrap().push(request.headers().get_all("idempotency-key").iter().cloned().collect::<Vec<_>>());
        std::future::ready(Ok::<_, BoxError>(response(200, &[])))
    }));
    for keys in [&[""][..], &["\"\""], &["a", "b"]] {
        service.clone().oneshot(keyed(keys)).await.unwrap();
    }
    let seen = seen.lock().unwrap();
    assert!(seen[0].len() == 1 && seen[0][0].len() == 36 && seen[1].len() == 1 && seen[1][0].len() == 36);
    assert_eq!(seen[2], ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_post_that_was_certainly_not_processed_is_retried() {
    let outcomes: [fn() -> Outcome; 4] = [
        || Err(Error::Service(io::Error::from(io::ErrorKind::ConnectionRefused)).into()),
        || Err(Rejection::rate_limited("l", Some(Duration::ZERO), 1).into()),
        || Ok(response(429, &[])),
        || Ok(response(425, &[])),
    ];
    for outcome in outcomes {
        assert_eq!(attempts(request(Method::POST), outcome).await.0, 3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_can_override_the_default_for_its_method() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let idempotent = |request: &Request<()>| match request.uri().path() {
        "/search" => Some(true),
        "/counter" => Some(false),
        _ => None,
    };
    let service =
        layer().repeat(HttpRepeat::new().idempotent_if(idempotent)).layer(service_fn(move |_: Request<()>| {
            counted.fetch_add(1, SeqCst);
            std::future::ready(Ok::<_, BoxError>(response(503, &[])))
        }));
    for (method, path, expected) in
        [(Method::POST, "/search", 3), (Method::GET, "/counter", 1), (Method::GET, "/", 3), (Method::POST, "/", 1)]
    {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        service.clone().oneshot(request).await.unwrap();
        assert_eq!(calls.swap(0, SeqCst), expected, "{path}");
    }
}

// R27, R30
#[tokio::test(start_paused = true)]
async fn a_hint_is_honored_up_to_the_cap_and_beyond_it_the_caller_gets_the_response() {
    let get = || request(Method::GET);
    assert_eq!(attempts(get(), || Ok(response(503, &[("retry-after", "4")]))).await, (3, secs(8)));
    assert_eq!(attempts(get(), || Ok(response(503, &[("retry-after", "6")]))).await, (1, secs(0)));
    assert_eq!(attempts(get(), || Ok(response(429, &[("ratelimit", "\"d\";r=0;t=2")]))).await, (3, secs(4)));
    assert_eq!(attempts(get(), || Ok(response(429, &[("x-ratelimit-reset", "3600")]))).await, (1, secs(0)));
    let date = || {
        let dates = [("date", "Wed, 21 Oct 2015 07:28:00 GMT"), ("retry-after", "Wed, 21 Oct 2015 07:28:03 GMT")];
        Ok(response(503, &dates))
    };
    assert_eq!(attempts(get(), date).await, (3, secs(6)));
}

#[tokio::test(start_paused = true)]
async fn all_attempts_share_one_fresh_key_and_an_existing_key_is_kept() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let saw = seen.clone();
    let service = |layer: IdempotencyKeyLayer| {
        let saw = saw.clone();
        ServiceBuilder::new().layer(layer).layer(self::layer()).service(service_fn(move |request: Request<()>| {
            let key = request.headers().get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
            saw.lock().unwrap().push(key);
            std::future::ready(Ok::<_, BoxError>(response(503, &[])))
        }))
    };
    let take = || std::mem::take(&mut *seen.lock().unwrap());
    let mut fresh = service(IdempotencyKeyLayer::new());
    let mut keys = std::collections::HashSet::new();
    for _ in 0..50 {
        fresh.ready().await.unwrap().call(request(Method::POST)).await.unwrap();
        let sent = take();
        assert_eq!(sent.len(), 3, "a request with a key is retried");
        assert!(sent.windows(2).all(|pair| pair[0] == pair[1]));
        let key = sent[0].clone().unwrap();
        let parts: Vec<_> = key.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{key}");
        assert!(key.as_bytes()[14] == b'4' && b"89ab".contains(&key.as_bytes()[19]), "a UUID of version 4: {key}");
        assert!(keys.insert(key));
    }
    fresh.ready().await.unwrap().call(request(Method::GET)).await.unwrap();
    assert_eq!(take(), [None, None, None], "no key is needed");
    let mut own = request(Method::PATCH);
    own.headers_mut().insert("idempotency-key", "mine".parse().unwrap());
    fresh.call(own).await.unwrap();
    assert_eq!(take()[0].as_deref(), Some("mine"));
    service(IdempotencyKeyLayer::new().quoted()).call(request(Method::POST)).await.unwrap();
    let quoted = take()[0].clone().unwrap();
    assert!(quoted.len() == 38 && quoted.starts_with('"') && quoted.ends_with('"'));
}

/// Open times have a resolution of a quarter of a millisecond, rounded down.
fn is_about(time: Option<Duration>, expected: Duration) -> bool {
    time.is_some_and(|time| time <= expected && expected - time < Duration::from_millis(1))
}

fn with_retry_after_honored(
    breaker: &CircuitBreaker,
    layer: HonorRetryAfterLayer,
) -> impl Service<Response<()>, Response = Response<()>, Error = BoxError> + Clone {
    let echo = service_fn(|response: Response<()>| std::future::ready(Ok::<_, BoxError>(response)));
    ServiceBuilder::new().layer(breaker.layer().classify(HttpClassifier::new())).layer(layer).service(echo)
}

// B31
#[tokio::test(start_paused = true)]
async fn retry_after_opens_the_circuit_for_that_long() {
    let recorder = Recorder::new();
    let breaker = CircuitBreaker::builder("b").probes(1).probe_successes(1).observer(recorder.clone()).build().unwrap();
    let service = with_retry_after_honored(&breaker, HonorRetryAfterLayer::new(&breaker));
    for status in [429, 503] {
        for _ in 0..2 {
            assert_eq!(breaker.state(), CircuitState::Closed, "one response speaks for itself");
            let received = service.clone().oneshot(response(status, &[("retry-after", "7")])).await.unwrap();
            assert_eq!(received.status(), status, "the caller gets the response");
        }
        let error = service.clone().oneshot(response(200, &[])).await.unwrap_err();
        assert!(is_about(error.as_rejection().and_then(Rejection::retry_after), secs(7)));
        tokio::time::advance(secs(7)).await;
        assert!(service.clone().oneshot(response(200, &[])).await.is_ok());
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
    assert_eq!(recorder.count("state closed -> open: retry_after"), 2);
    // On a probe's response: without a success since the last time, one is enough.
    for _ in 0..2 {
        service.clone().oneshot(response(503, &[("retry-after", "7")])).await.unwrap();
    }
    breaker.half_open();
    service.clone().oneshot(response(503, &[("retry-after", "3")])).await.unwrap();
    assert!(is_about(breaker.snapshot().open_for, secs(3)));
}

/// A server with this many permits, each held for 20 ms, whose rejections ask for a second's wait.
#[derive(Clone)]
struct Limited {
    permits: Arc<tokio::sync::Semaphore>,
}

impl Service<()> for Limited {
    type Response = Response<()>;
    type Error = Rejection;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<()>, Rejection>> + Send>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), Rejection>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        let permits = self.permits.clone();
        Box::pin(async move {
            // The time on the network.
            tokio::time::sleep(Duration::from_millis(1)).await;
            let Ok(_permit) = permits.try_acquire() else { return Ok(response(503, &[("retry-after", "1")])) };
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok(response(200, &[]))
        })
    }
}

/// Counts the successes of this many clients in three seconds, and whether the circuit opened.
async fn served_in_three_seconds(clients: usize, permits: usize, honored: bool) -> (usize, bool) {
    let breaker = CircuitBreaker::builder("b").no_failure_rate().consecutive_failures(65_535).build().unwrap();
    let opened = Arc::new(AtomicUsize::new(0));
    let server = Limited { permits: Arc::new(tokio::sync::Semaphore::new(permits)) };
    let layer = HonorRetryAfterLayer::new(&breaker);
    let served = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..clients)
        .map(|_| {
            let inner = if honored {
                tower::util::BoxCloneService::new(layer.layer(server.clone()))
            } else {
                tower::util::BoxCloneService::new(server.clone())
            };
            let service = breaker.layer().classify(HttpClassifier::new()).layer(inner);
            let (served, opened) = (served.clone(), opened.clone());
            let run = async move {
                loop {
                    match service.clone().oneshot(()).await {
                        Ok(response) if response.status() == 200 => drop(served.fetch_add(1, SeqCst)),
                        Ok(_) => {}
                        Err(_) => {
                            opened.fetch_add(1, SeqCst);
                            tokio::time::sleep(Duration::from_millis(10)).await;
                        }
                    }
                }
            };
            tokio::spawn(tokio::time::timeout(secs(3), run))
        })
        .collect();
    for client in clients {
        let _ = client.await;
    }
    (served.load(SeqCst), opened.load(SeqCst) > 0)
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_speaks_for_one_rejected_call_does_not_stop_the_others() {
    for (clients, permits) in [(9, 8), (2, 1), (40, 8)] {
        let (without, _) = served_in_three_seconds(clients, permits, false).await;
        let (with, opened) = served_in_three_seconds(clients, permits, true).await;
        assert!(!opened && with * 100 >= without * 95, "{clients} clients, {permits} permits: {with} of {without}");
    }
    // A server that rejects every call is left alone, after each client's first call at most.
    let (served, opened) = served_in_three_seconds(9, 0, true).await;
    assert!(opened && served == 0);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_capped_and_ignored_where_it_does_not_apply() {
    let breaker = CircuitBreaker::new("b");
    let service =
        with_retry_after_honored(&breaker, HonorRetryAfterLayer::new(&breaker).at_most(secs(9)).only_unavailable());
    for ignored in [
        response(429, &[("retry-after", "7")]),
        response(500, &[("retry-after", "7")]),
        response(200, &[("retry-after", "7")]),
        response(503, &[("retry-after", "0")]),
        response(503, &[]),
    ] {
        service.clone().oneshot(ignored).await.unwrap();
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
    let day = || response(503, &[("retry-after", "86400")]);
    service.clone().oneshot(day()).await.unwrap();
    service.clone().oneshot(day()).await.unwrap();
    assert!(is_about(breaker.snapshot().open_for, secs(9)));
    // An open time that is already set and a manual state are kept.
    breaker.honor_retry_after(secs(100));
    assert!(is_about(breaker.snapshot().open_for, secs(9)));
    breaker.force_open();
    breaker.honor_retry_after(secs(100));
    assert_eq!(breaker.state(), CircuitState::ForcedOpen);
    breaker.disable();
    service.oneshot(day()).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::Disabled);
}

/// The method, URI, version, headers, extension and body of a request.
type Sent = (Method, Uri, Version, HeaderMap, Option<u32>, Bytes);

#[tokio::test(start_paused = true)]
async fn every_attempt_sends_the_same_request() {
    let sent: Arc<Mutex<Vec<Sent>>> = Arc::default();
    let log = sent.clone();
    let service = layer().layer(service_fn(move |request: Request<Bytes>| {
        let (head, body) = request.into_parts();
        let extension = head.extensions.get().copied();
        log.lock().unwrap().push((head.method, head.uri, head.version, head.headers, extension, body));
        std::future::ready(Ok::<_, BoxError>(response(503, &[])))
    }));
    let request = Request::put("http://user@localhost:80/path?query")
        .version(Version::HTTP_2)
        .header("b", "2")
        .header("a", "1")
        .header("b", "3")
        .header("long", "l".repeat(1000))
        .extension(7_u32)
        .body(Bytes::from_static(b"body"))
        .unwrap();
    let (head, body) = request.clone().into_parts();
    let expected = (head.method, head.uri, head.version, head.headers, Some(7), body);
    assert_eq!(service.oneshot(request).await.unwrap().status(), 503);
    let sent = sent.lock().unwrap();
    assert_eq!(*sent, [expected.clone(), expected.clone(), expected]);
    let order = |sent: &Sent| sent.3.iter().map(|(name, value)| (name.clone(), value.clone())).collect::<Vec<_>>();
    assert!(sent.iter().all(|one| order(one) == order(&sent[0])));
}

/// A clone of the last of these takes 26 allocations.
#[test]
fn saving_a_request_takes_one_allocation_for_its_headers_and_none_without_headers() {
    let repeat = HttpRepeat::new();
    let with_headers = |count: usize| {
        let mut request = Request::get("http://localhost/path").body(Full::new(Bytes::from_static(b"body"))).unwrap();
        for number in 0..count {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            request.headers_mut().insert(name, HeaderValue::try_from(format!("value {number}")).unwrap());
        }
        request
    };
    for (headers, allocations) in [(0, 0), (1, 1), (12, 1)] {
        let request = with_headers(headers);
        let counted = allocation_counter::measure(|| drop(repeat.save(&request)));
        assert_eq!(counted.count_total, allocations, "{headers} headers");
        let saved = repeat.save(&request).unwrap();
        assert_eq!(Repeat::<Request<Full<Bytes>>>::restore(&repeat, saved).headers(), request.headers());
    }
}
