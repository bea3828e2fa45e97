//! `Retry-After` and rate limit headers, in the forms that occur in practice.

use std::time::Duration;

use tower_rampart::{
    BoxError,
    http::{HttpClassifier, rate_limit_reset, retry_after},
    retry::{Backoff, Jitter, Retry},
};

use crate::{response, secs};

const DATE: (&str, &str) = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
/// `DATE` in seconds since 1970.
const EPOCH: u64 = 1_445_412_480;

#[test]
fn retry_after_is_seconds_or_a_date_by_the_servers_clock() {
    let hint = |value| retry_after(response(503, &[DATE, ("retry-after", value)]).headers());
    assert_eq!(hint("120"), Some(secs(120)));
    assert_eq!(hint(" 0 "), Some(secs(0)));
    assert_eq!(hint("1.5"), Some(Duration::from_millis(1500)));
    assert_eq!(hint("Wed, 21 Oct 2015 07:28:30 GMT"), Some(secs(30)));
    assert_eq!(hint("Wednesday, 21-Oct-15 07:29:00 GMT"), Some(secs(60)), "RFC 850");
    assert_eq!(hint("Wed Oct 21 07:30:00 2015"), Some(secs(120)), "asctime");
    assert_eq!(hint("Wed, 21 Oct 2015 07:27:00 GMT"), Some(secs(0)), "in the past");
    assert_eq!(hint("99999999999999999999999"), Some(Duration::MAX));
    for malformed in ["", "-5", "soon", "1e9", "NaN", "inf", "1.2.3", "Wed, 99 Oct 2015 07:28:30 GMT"] {
        assert_eq!(hint(malformed), None, "{malformed}");
    }
    assert_eq!(retry_after(response(503, &[]).headers()), None);
    assert_eq!(retry_after(response(503, &[("retry-after-ms", "250")]).headers()), Some(Duration::from_millis(250)));
}

#[test]
fn without_a_date_header_the_local_clock_is_used() {
    let at = httpdate::fmt_http_date(std::time::SystemTime::now() + secs(100));
    let hint = retry_after(response(503, &[("retry-after", &at)]).headers()).unwrap();
    assert!(hint > secs(90) && hint <= secs(100), "{hint:?}");
}

#[test]
fn rate_limit_resets_are_read_from_the_headers_in_common_use() {
    fn reset(headers: &[(&str, &str)]) -> Option<Duration> {
        rate_limit_reset(response(429, &[&[DATE], headers].concat()).headers())
    }
    let at = |seconds: u64| (EPOCH + seconds).to_string();
    // draft-ietf-httpapi-ratelimit-headers-08 and later: the longest of the quotas that are used
    // up.
    assert_eq!(reset(&[("ratelimit", "\"default\";r=0;t=30")]), Some(secs(30)));
    assert_eq!(reset(&[("ratelimit", "\"burst\";r=0;t=3, \"daily\";r=7;t=3600")]), Some(secs(3)));
    assert_eq!(reset(&[("ratelimit", "\"burst\";r=0;t=3"), ("ratelimit", "\"daily\";r=0;t=60")]), Some(secs(60)));
    assert_eq!(reset(&[("ratelimit", "\"daily\";r=7;t=3600")]), None);
    // Before -08.
    assert_eq!(reset(&[("ratelimit", "limit=100, remaining=0, reset=50")]), Some(secs(50)));
    assert_eq!(reset(&[("ratelimit-limit", "100"), ("ratelimit-reset", "50")]), Some(secs(50)));
    // GitHub, Twitter, Reddit, Discord.
    assert_eq!(reset(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", &at(40))]), Some(secs(40)));
    assert_eq!(reset(&[("x-rate-limit-reset", &at(41))]), Some(secs(41)));
    assert_eq!(reset(&[("x-ratelimit-reset", &format!("{}000", EPOCH + 42))]), Some(secs(42)));
    assert_eq!(reset(&[("x-ratelimit-reset", "43")]), Some(secs(43)));
    assert_eq!(
        reset(&[("x-ratelimit-reset-after", "1.25"), ("x-ratelimit-reset", &at(2))]),
        Some(Duration::from_millis(1250))
    );
    // OpenAI and similar APIs.
    let both = [("x-ratelimit-reset-requests", "1s"), ("x-ratelimit-reset-tokens", "6m0s")];
    assert_eq!(reset(&both), Some(secs(360)));
    let tokens_left =
        [both[0], both[1], ("x-ratelimit-remaining-tokens", "900"), ("x-ratelimit-remaining-requests", "0")];
    assert_eq!(reset(&tokens_left), Some(secs(1)));
    assert_eq!(reset(&[("x-ratelimit-reset-tokens", "20ms")]), Some(Duration::from_millis(20)));
    // In the past; a response for another reason; malformed.
    assert_eq!(reset(&[("x-ratelimit-reset", &(EPOCH - 9).to_string())]), Some(secs(0)));
    assert_eq!(reset(&[("x-ratelimit-remaining", "12"), ("x-ratelimit-reset", "43")]), None);
    assert_eq!(reset(&[("x-ratelimit-reset", "tomorrow")]), None);
    assert_eq!(reset(&[]), None);
}

proptest::proptest! {
    #[test]
    fn no_header_makes_a_parser_panic(name in 0..6_usize, value in "[ -~]{0,40}|[0-9]{1,40}(ms|s|m|h|d|\\.)*|[0-9hmsd=;, rt\".]{0,30}") {
        let names = [
            "retry-after", "ratelimit", "x-ratelimit-reset", "x-ratelimit-reset-tokens", "ratelimit-reset", "date",
        ];
        let response = response(429, &[(names[name], &value), ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")]);
        let _ = (retry_after(response.headers()), rate_limit_reset(response.headers()));
    }
}

// R39
#[tokio::test(start_paused = true)]
async fn clients_that_were_sent_away_together_come_back_spread_out() {
    #[allow(clippy::disallowed_methods)] // the test reads the paused clock itself
    let now = tokio::time::Instant::now;
    let (base, cap) = (Duration::from_millis(50), secs(5));
    for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
        for hint in [1, 3, 5] {
            let backoff = Backoff::exponential(base, secs(1)).jitter(jitter);
            let retry = Retry::builder("r").max_attempts(2).backoff(backoff).max_retry_after(cap).no_budget();
            let retry = retry.build().unwrap();
            let mut delays = Vec::new();
            for _ in 0..200 {
                let start = now();
                let attempt = |number| async move {
                    let status = if number == 1 { 503 } else { 200 };
                    Ok::<_, BoxError>(response(status, &[("retry-after", hint.to_string().as_str())]))
                };
                assert_eq!(retry.run_with(HttpClassifier::new(), attempt).await.unwrap().status(), 200);
                delays.push(now() - start);
            }
            let (floor, timer) = (secs(hint), Duration::from_millis(1));
            assert!(delays.iter().all(|delay| *delay >= floor && *delay <= cap + timer), "{jitter:?}: {delays:?}");
            delays.sort();
            delays.dedup();
            // There is no room above a hint that is as long as the cap.
            assert!(hint == 5 || delays.len() > 50, "{jitter:?}, {hint} s: {} different delays", delays.len());
        }
    }
    // Without jitter, the delay is the longer of hint and backoff.
    for (hint, expected) in [("1", secs(2)), ("3", secs(3))] {
        let retry = Retry::builder("r").backoff(Backoff::fixed(secs(2)).jitter(Jitter::None)).build().unwrap();
        let start = now();
        let attempt = |number| async move {
            let status = if number == 1 { 503 } else { 200 };
            Ok::<_, BoxError>(response(status, &[("retry-after", hint)]))
        };
        retry.run_with(HttpClassifier::new(), attempt).await.unwrap();
        assert_eq!(now() - start, expected);
    }
    // The deadline still holds.
    let retry = Retry::builder("r").deadline(secs(1)).build().unwrap();
    let start = now();
    let attempt = |_| async { Ok::<_, BoxError>(response(503, &[("retry-after", "1")])) };
    assert_eq!(retry.run_with(HttpClassifier::new(), attempt).await.unwrap().status(), 503);
    assert_eq!(now(), start, "the retry would have come too late");
}
