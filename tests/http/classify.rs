//! Classification of HTTP and gRPC responses and errors.

use std::{io, time::Duration};

use http::{Response, StatusCode};
use tower_rampart::{
    BoxError, Classify, Error, Rejection, Verdict,
    circuit_breaker::CircuitBreaker,
    http::{GrpcClassifier, HttpClassifier},
};

use crate::{response, secs};

type Failed = Error<io::Error>;

fn verdict<C: Classify<Response<()>, Failed>>(classify: &C, response: &Response<()>) -> Verdict {
    classify.classify(Ok(response))
}

#[test]
fn statuses_are_classified_by_the_table() {
    let classify = HttpClassifier::new();
    for status in 100..600 {
        let expected = match status {
            429 => Verdict::Throttled,
            408 | 425 | 500.. => Verdict::Failure,
            _ => Verdict::Success,
        };
        assert_eq!(verdict(&classify, &response(status, &[])), expected, "{status}");
    }
}

#[test]
fn a_status_verdict_can_be_overridden() {
    let classify = HttpClassifier::new().adjust(|status| (status == StatusCode::NOT_FOUND).then_some(Verdict::Ignored));
    assert_eq!(verdict(&classify, &response(404, &[])), Verdict::Ignored);
    assert_eq!(verdict(&classify, &response(500, &[])), Verdict::Failure);
}

// B28, B29
#[tokio::test]
async fn errors_are_failures_and_rejections_keep_their_verdicts() {
    async fn failures(error: fn() -> Failed) -> u32 {
        let result = || std::future::ready(Err::<Response<()>, _>(error()));
        let breaker = CircuitBreaker::builder("b").consecutive_failures(9).build().unwrap();
        let _ = breaker.run_with(HttpClassifier::new(), result()).await;
        let http = breaker.snapshot().consecutive_failures;
        let _ = breaker.run_with(GrpcClassifier, result()).await;
        assert_eq!(breaker.snapshot().consecutive_failures, 2 * http);
        http
    }
    assert_eq!(failures(|| Error::Service(io::ErrorKind::ConnectionReset.into())).await, 1);
    assert_eq!(failures(|| Rejection::circuit_open("b", None).into()).await, 0);
    assert_eq!(failures(|| Rejection::timed_out("t", secs(1), true).into()).await, 1);
}

#[test]
fn a_request_without_a_connection_was_not_attempted() {
    fn attempted<E>(error: E) -> bool
    where
        HttpClassifier: Classify<Response<()>, E>,
    {
        HttpClassifier::new().was_attempted(Err(&error))
    }
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    assert!(!attempted::<Failed>(Error::Service(refused())));
    assert!(!attempted::<BoxError>(Box::new(Error::Service(refused()))));
    assert!(!attempted::<Failed>(Rejection::circuit_open("b", None).into()));
    assert!(attempted::<Failed>(Error::Service(io::ErrorKind::ConnectionReset.into())));
    assert!(attempted::<BoxError>("down".into()));
    assert!(attempted::<Failed>(Rejection::timed_out("t", secs(1), true).into()));
}

#[test]
fn a_status_may_say_that_the_request_was_not_processed() {
    let attempted = |status| Classify::<_, Failed>::was_attempted(&HttpClassifier::new(), Ok(&response(status, &[])));
    assert!(!attempted(429) && !attempted(425) && !attempted(421));
    assert!(attempted(200) && attempted(500) && attempted(503) && attempted(408));
}

#[test]
fn the_hint_is_retry_after_or_for_a_429_the_rate_limit_reset() {
    let hint = |status, headers: &[_]| {
        Classify::<_, Failed>::retry_after(&HttpClassifier::new(), Ok(&response(status, headers)))
    };
    assert_eq!(hint(503, &[("retry-after", "7")]), Some(secs(7)));
    assert_eq!(hint(503, &[("ratelimit-reset", "7")]), None);
    assert_eq!(hint(429, &[("ratelimit-reset", "7")]), Some(secs(7)));
    assert_eq!(hint(429, &[("retry-after", "3"), ("ratelimit-reset", "7")]), Some(secs(3)));
    assert_eq!(hint(429, &[]), None);
}

#[test]
fn grpc_is_classified_by_its_status() {
    for code in 0_u32..40 {
        let expected = match code {
            8 => Verdict::Throttled,
            1 => Verdict::Ignored,
            0 | 3 | 5 | 6 | 7 | 9 | 10 | 11 | 12 | 16 => Verdict::Success,
            _ => Verdict::Failure,
        };
        let response = response(200, &[("grpc-status", &code.to_string())]);
        assert_eq!(verdict(&GrpcClassifier, &response), expected, "{code}");
        if code < 17 {
            let status = tonic::Status::new(tonic::Code::from(code as i32), "");
            let result: Result<&tonic::Response<()>, _> = Err(&status);
            let expected = if code == 0 { Verdict::Success } else { expected };
            assert_eq!(GrpcClassifier.classify(result), expected, "{code} as a tonic status");
        }
    }
    assert_eq!(verdict(&GrpcClassifier, &response(200, &[])), Verdict::Success, "the status is yet to come");
    assert_eq!(verdict(&GrpcClassifier, &response(503, &[])), Verdict::Failure);
    assert_eq!(verdict(&GrpcClassifier, &response(200, &[("grpc-status", "?")])), Verdict::Failure);
}

#[test]
fn grpc_pushback_is_a_hint_and_a_negative_one_stops_retries() {
    let hint = |value: &str| {
        let response = response(200, &[("grpc-status", "14"), ("grpc-retry-pushback-ms", value)]);
        Classify::<_, Failed>::retry_after(&GrpcClassifier, Ok(&response))
    };
    assert_eq!(hint("250"), Some(Duration::from_millis(250)));
    assert_eq!(hint("-1"), Some(Duration::MAX));
    assert_eq!(hint("soon"), Some(Duration::MAX));
}

#[tokio::test]
async fn a_tonic_status_carries_a_rejection_and_its_code() {
    use tower_rampart::AsRejection;

    let cases = [
        (Rejection::circuit_open("b", None), tonic::Code::Unavailable, 0),
        (Rejection::bulkhead_full("k", 1), tonic::Code::ResourceExhausted, 0),
        (Rejection::rate_limited("l", None, 1), tonic::Code::ResourceExhausted, 0),
        (Rejection::timed_out("t", secs(1), true), tonic::Code::DeadlineExceeded, 1),
    ];
    for (rejection, code, failures) in cases {
        let status = tonic::Status::from(rejection.clone());
        assert_eq!((status.code(), status.as_rejection()), (code, Some(&rejection)));
        let breaker = CircuitBreaker::builder("b").consecutive_failures(9).build().unwrap();
        let _ = breaker.run_with(GrpcClassifier, std::future::ready(Err::<tonic::Response<()>, _>(status))).await;
        assert_eq!(breaker.snapshot().consecutive_failures, failures, "{rejection}");
    }
}
