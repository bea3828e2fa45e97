//! Deadlines propagated in headers.

use std::{convert::Infallible, time::Duration};

use http::{HeaderMap, HeaderName, Request, Response};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, BoxError, Rejection,
    circuit_breaker::{CircuitBreaker, CircuitState},
    deadline,
    http::{DeadlineHeader, GrpcClassifier, HttpClassifier},
    retry::Retry,
    timeout::Timeout,
};

use crate::secs;

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn written(header: &DeadlineHeader, limit: Duration) -> String {
    let mut headers = HeaderMap::new();
    header.write(limit, &mut headers);
    headers.values().next().unwrap().to_str().unwrap().to_owned()
}

#[test]
fn written_timeouts_fit_the_format_and_never_exceed_the_limit() {
    let grpc = DeadlineHeader::grpc();
    assert_eq!(written(&grpc, ms(1500)), "1500000u");
    assert_eq!(written(&grpc, Duration::from_nanos(1999)), "1u");
    assert_eq!(written(&grpc, Duration::ZERO), "1u");
    assert_eq!(written(&grpc, secs(100)), "100000m");
    assert_eq!(written(&grpc, secs(99_999)), "99999000m");
    assert_eq!(written(&grpc, secs(100_000)), "100000S");
    assert_eq!(written(&grpc, Duration::MAX), "99999999S");
    let millis = DeadlineHeader::millis(HeaderName::from_static("x-t"));
    assert_eq!(written(&millis, Duration::from_micros(1999)), "1");
    assert_eq!(written(&millis, Duration::ZERO), "1");
}

#[test]
fn well_formed_timeouts_are_read_and_others_ignored() {
    let read = |header: &DeadlineHeader, value: &str| {
        let name = if written(header, secs(1)).ends_with('u') { "grpc-timeout" } else { "x-request-timeout-ms" };
        header.read(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]))
    };
    let grpc = DeadlineHeader::grpc();
    for (value, expected) in [
        ("2H", secs(7200)),
        ("3M", secs(180)),
        ("4S", secs(4)),
        ("5m", ms(5)),
        ("6u", Duration::from_micros(6)),
        ("7n", Duration::from_nanos(7)),
        ("99999999S", secs(99_999_999)),
    ] {
        assert_eq!(read(&grpc, value), Some(expected), "{value}");
    }
    for value in ["", "S", "5", "-5S", "+5S", "999999999S", "5s", "5.0S", "S5"] {
        assert_eq!(read(&grpc, value), None, "{value}");
    }
    assert_eq!(read(&DeadlineHeader::default(), " 1500 "), Some(ms(1500)));
    for value in ["", "-1", "+1", "soon", "99999999999999999999999"] {
        assert_eq!(read(&DeadlineHeader::default(), value), None, "{value}");
    }
}

/// Returns the limit that it receives.
fn received_limit(
    header: &DeadlineHeader,
) -> impl Service<Request<()>, Response = Option<Duration>, Error = BoxError> + Clone {
    let read = header.clone();
    header.send().layer(service_fn(move |request: Request<()>| {
        let limit = read.read(request.headers());
        async move { Ok(limit) }
    }))
}

// T14
#[tokio::test(start_paused = true)]
async fn the_time_left_is_sent_with_the_request() {
    for header in [DeadlineHeader::grpc(), DeadlineHeader::default()] {
        let service = received_limit(&header);
        assert_eq!(service.clone().oneshot(Request::new(())).await.unwrap(), None, "there is no deadline");
        let timeouts = |total, attempt| {
            ServiceBuilder::new()
                .layer(Timeout::new("total", total).layer())
                .layer(Timeout::new("attempt", attempt).layer())
                .service(service.clone())
        };
        assert_eq!(timeouts(ms(500), secs(2)).oneshot(Request::new(())).await.unwrap(), Some(ms(500)));
        assert_eq!(timeouts(secs(2), ms(300)).oneshot(Request::new(())).await.unwrap(), Some(ms(300)));
        // Each attempt sends the time left at its start.
        let retry =
            Retry::builder("r").backoff(tower_rampart::retry::Backoff::fixed(ms(100))).no_budget().build().unwrap();
        let limits = std::sync::Mutex::new(Vec::new());
        let failing = ServiceBuilder::new()
            .layer(Timeout::new("total", ms(500)).layer())
            .layer(retry.layer())
            .layer(header.send())
            .service(service_fn(|request: Request<()>| {
                limits.lock().unwrap().push(header.read(request.headers()).unwrap());
                std::future::ready(Err::<(), BoxError>("down".into()))
            }));
        failing.oneshot(Request::new(())).await.unwrap_err();
        let limits = limits.into_inner().unwrap();
        assert!(limits.len() == 3 && limits.is_sorted_by(|a, b| a > b) && limits[0] == ms(500), "{limits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_shorter_limit_in_the_request_is_kept() {
    let header = DeadlineHeader::default();
    let service = Timeout::new("total", ms(500)).layer().layer(received_limit(&header));
    for (own, expected) in [(ms(200), ms(200)), (secs(2), ms(500))] {
        let mut request = Request::new(());
        header.write(own, request.headers_mut());
        assert_eq!(service.clone().oneshot(request).await.unwrap(), Some(expected));
    }
}

// T14, T15
#[tokio::test(start_paused = true)]
async fn a_received_limit_becomes_the_calls_deadline() {
    let header = DeadlineHeader::default();
    let seen = header.receive().layer(service_fn(|_: Request<()>| {
        let in_call = deadline::remaining();
        async move { Ok::<_, Infallible>((in_call, deadline::remaining())) }
    }));
    let request = |limit: Option<Duration>| {
        let mut request = Request::new(());
        if let Some(limit) = limit {
            header.write(limit, request.headers_mut());
        }
        request
    };
    assert_eq!(seen.clone().oneshot(request(None)).await.unwrap(), (None, None));
    assert_eq!(seen.oneshot(request(Some(ms(700)))).await.unwrap(), (Some(ms(700)), Some(ms(700))));
    // The inner timeout enforces the shorter of the two.
    let hanging = ServiceBuilder::new()
        .layer(header.receive())
        .layer(Timeout::new("api", secs(1)).layer())
        .service(service_fn(|_: Request<()>| std::future::pending::<Result<(), BoxError>>()));
    for (limit, expected) in [(Some(ms(300)), ms(300)), (Some(secs(9)), secs(1)), (None, secs(1))] {
        let error = hanging.clone().oneshot(request(limit)).await.unwrap_err();
        match error.as_rejection() {
            Some(Rejection::TimedOut { after, .. }) => assert_eq!(*after, expected),
            other => panic!("{other:?}"),
        }
    }
    // Less time is left one hop further.
    let next = received_limit(&header);
    let relayed = header.receive().layer(service_fn(move |_: Request<()>| {
        let mut next = next.clone();
        async move {
            tokio::time::sleep(ms(200)).await;
            next.ready().await?.call(Request::new(())).await
        }
    }));
    assert_eq!(relayed.oneshot(request(Some(ms(700)))).await.unwrap(), Some(ms(500)));
}

#[tokio::test(start_paused = true)]
async fn a_received_limit_of_any_size_is_harmless() {
    let service = ServiceBuilder::new()
        .layer(DeadlineHeader::default().receive())
        .layer(Timeout::new("api", secs(1)).layer())
        .service(service_fn(|_: Request<()>| async {
            let left = deadline::remaining();
            tokio::time::sleep(ms(500)).await;
            Ok::<_, BoxError>(left)
        }));
    // 2^64 nanoseconds are 18,446,744,073,709 ms and a part of the next one.
    let around = |center: u64| (center - 5..=center + 1000).step_by(5);
    let limits = around(18_446_744_073_709).chain(around(u64::MAX - 2000)).chain([3_600_000, u64::MAX]);
    for limit in limits {
        let request = Request::builder().header("x-request-timeout-ms", limit).body(()).unwrap();
        let left = service.clone().oneshot(request).await.unwrap();
        assert_eq!(left, Some(secs(1)), "{limit} ms: the service's own timeout is the shorter one");
    }
}

// G33
#[tokio::test(start_paused = true)]
async fn a_call_that_was_never_made_is_not_a_failure() {
    let breaker = CircuitBreaker::consecutive("b", 3).unwrap();
    let service = ServiceBuilder::new()
        .layer(breaker.layer())
        .layer(Timeout::new("attempt", secs(1)).layer())
        .service(service_fn(|_: ()| async { Err::<(), BoxError>("the service was called".into()) }));
    #[allow(clippy::disallowed_methods)] // the clock of the deadline
    let passed = tokio::time::Instant::now();
    for _ in 0..20 {
        let error = deadline::scope(passed, service.clone().oneshot(())).await.unwrap_err();
        assert!(matches!(error.as_rejection(), Some(Rejection::TimedOut { attempted: false, .. })), "{error}");
    }
    assert_eq!((breaker.state(), breaker.snapshot().consecutive_failures), (CircuitState::Closed, 0));
}

/// A call with the caller's limit of this many milliseconds.
fn limited(limit: u64) -> Request<()> {
    Request::get("/").header("x-request-timeout-ms", limit).body(()).unwrap()
}

/// A service that takes this long.
fn taking(
    time: Duration,
) -> impl Service<Request<()>, Response = Response<()>, Error = BoxError, Future: Send> + Clone + Send {
    service_fn(move |_| async move {
        tokio::time::sleep(time).await;
        Ok::<_, BoxError>(Response::new(()))
    })
}

#[tokio::test(start_paused = true)]
async fn a_callers_short_deadline_says_nothing_about_the_service() {
    let receive = || DeadlineHeader::default().receive();
    // The attempt timeout enforces the deadline, wherever it is set.
    let breaker = CircuitBreaker::consecutive("b", 5).unwrap();
    let attempt = Timeout::new("attempt", ms(100));
    let of = |time| ServiceBuilder::new().layer(breaker.layer()).layer(attempt.layer()).service(taking(time));
    for limit in [0, 1, 5, 19] {
        for _ in 0..60 {
            let error = receive().layer(of(ms(20))).oneshot(limited(limit)).await.unwrap_err();
            let rejection = error.as_rejection().unwrap();
            assert!(matches!(rejection, Rejection::TimedOut { attempted: true, cut_short: true, .. }), "{rejection:?}");
        }
        assert_eq!((breaker.state(), breaker.snapshot().consecutive_failures), (CircuitState::Closed, 0), "{limit} ms");
    }
    // Healthy calls in between still count.
    assert!(receive().layer(of(ms(20))).oneshot(limited(50)).await.is_ok());
    // A service that hangs fails by its own limit, whatever the caller's.
    for call in 0..5 {
        assert_eq!(breaker.state(), CircuitState::Closed, "{call}");
        let error = receive().layer(of(secs(60))).oneshot(limited(150)).await.unwrap_err();
        assert!(matches!(error.as_rejection(), Some(Rejection::TimedOut { cut_short: false, .. })), "{error}");
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_remote_service_that_enforces_the_callers_deadline_has_not_failed() {
    let breaker = CircuitBreaker::consecutive("b", 5).unwrap();
    let remote = |time, status: u16, grpc_status: &'static str| {
        service_fn(move |_: Request<()>| async move {
            tokio::time::sleep(time).await;
            let response = Response::builder().status(status).header("grpc-status", grpc_status);
            Ok::<_, BoxError>(response.body(()).unwrap())
        })
    };
    let http = |time| breaker.layer().classify(HttpClassifier::new()).layer(remote(time, 504, "0"));
    let grpc = |time| breaker.layer().classify(GrpcClassifier).layer(remote(time, 200, "4"));
    let receive = || DeadlineHeader::default().receive();
    for _ in 0..20 {
        receive().layer(http(ms(5))).oneshot(limited(5)).await.unwrap();
        receive().layer(grpc(ms(5))).oneshot(limited(5)).await.unwrap();
        assert_eq!((breaker.state(), breaker.snapshot().consecutive_failures), (CircuitState::Closed, 0));
    }
    // Before the deadline, it is the service's own.
    for call in 1..5 {
        receive().layer(http(ms(5))).oneshot(limited(500)).await.unwrap();
        assert_eq!(breaker.snapshot().consecutive_failures, call);
    }
    receive().layer(grpc(ms(5))).oneshot(limited(500)).await.unwrap();
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_call_cut_short_counts_as_slow_if_it_was() {
    // The attempt timeout is beyond the caller's deadline, which is beyond the slow threshold.
    let breaker = CircuitBreaker::builder("b")
        .no_time_window()
        .count_window(10)
        .min_calls(10)
        .slow_calls(secs(1), 0.8)
        .build()
        .unwrap();
    let service = ServiceBuilder::new()
        .layer(DeadlineHeader::default().receive())
        .layer(breaker.layer())
        .layer(Timeout::new("attempt", secs(10)).layer())
        .service(taking(secs(60)));
    for _ in 0..20 {
        service.clone().oneshot(limited(500)).await.unwrap_err();
    }
    assert_eq!(breaker.state(), CircuitState::Closed, "half a second is not slow");
    for call in 0..10 {
        assert_eq!(breaker.state(), CircuitState::Closed, "{call}");
        service.clone().oneshot(limited(2000)).await.unwrap_err();
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_received_limit_is_bounded() {
    let left = |layer: tower_rampart::http::DeadlineReceiveLayer, limit| {
        let service = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(deadline::remaining().unwrap()) });
        async move { layer.layer(service).oneshot(limited(limit)).await.unwrap() }
    };
    let receive = || DeadlineHeader::default().receive();
    assert_eq!(left(receive(), 0).await, ms(1));
    assert_eq!(left(receive(), 5).await, ms(5));
    for limit in [3_600_000, 3_600_001, u64::MAX] {
        assert_eq!(left(receive(), limit).await, secs(3600));
    }
    let bounded = || receive().at_least(ms(20)).at_most(secs(10));
    assert_eq!(left(bounded(), 5).await, ms(20));
    assert_eq!(left(bounded(), 500).await, ms(500));
    assert_eq!(left(bounded(), 20_000).await, secs(10));
    assert_eq!(left(receive().at_least(secs(2)).at_most(secs(1)), 5).await, secs(1), "the upper bound wins");
}
