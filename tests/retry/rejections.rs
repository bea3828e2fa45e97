//! Rejections by inner layers, and retry-after hints.

use std::time::Duration;

use tower::{Layer, ServiceExt};
use tower_rampart::{
    AsRejection, Classify, DefaultClassifier, Error, Rejection, Verdict,
    request::{Repeat, ReplaySafety},
    retry::{Backoff, Jitter, RetryBuilder},
};

use crate::{
    builder, by_text, failing, ms, now, recorded,
    support::{
        BoxError,
        probe::{Reply, Script},
    },
};

/// Rejects the first attempt, and returns the number of attempts and the time until the last one
/// ended.
async fn attempts_after(builder: RetryBuilder, rejection: Rejection) -> (usize, Duration) {
    let (script, probe) = Script::new();
    script.reply(Reply::Err(rejection.clone().into()));
    let start = now();
    let result = builder.build().unwrap().layer().layer(probe).oneshot("a").await;
    if script.calls() == 1 {
        assert_eq!(result.unwrap_err().as_rejection(), Some(&rejection), "the rejection passes unchanged");
    } else {
        assert_eq!(result.unwrap(), "ok");
    }
    (script.calls(), now() - start)
}

fn open(retry_after: Option<Duration>) -> Rejection {
    Rejection::circuit_open("inner", retry_after)
}

// R28, R29
#[tokio::test(start_paused = true)]
async fn circuit_open_and_bulkhead_rejections_are_not_retried() {
    let rejections =
        [open(None), open(Some(ms(1))), Rejection::bulkhead_full("inner", 5), Rejection::queue_timeout("inner", ms(5))];
    for rejection in rejections {
        assert_eq!(attempts_after(builder(), rejection).await, (1, ms(0)));
    }
}

// R28, R29
#[tokio::test(start_paused = true)]
async fn retry_on_other_instance_retries_circuit_open_and_bulkhead_rejections_after_the_backoff() {
    // The circuit's retry time does not matter, since the next attempt goes to another instance.
    let rejections = [
        open(None),
        open(Some(ms(200))),
        open(Some(Duration::from_secs(3600))),
        Rejection::bulkhead_full("inner", 5),
        Rejection::queue_timeout("inner", ms(5)),
    ];
    for rejection in rejections {
        assert_eq!(attempts_after(builder().retry_on_other_instance(true), rejection).await, (2, ms(10)));
    }
}

// R27, R30
#[tokio::test(start_paused = true)]
async fn a_rate_limit_rejection_is_retried_after_its_time_unless_above_the_cap() {
    let limited = |retry_after| Rejection::rate_limited("inner", retry_after, 5);
    let capped = || builder().max_retry_after(ms(300));
    assert_eq!(attempts_after(capped(), limited(Some(ms(3)))).await, (2, ms(10)), "not before the backoff");
    assert_eq!(attempts_after(capped(), limited(Some(ms(200)))).await, (2, ms(200)));
    assert_eq!(attempts_after(capped(), limited(Some(ms(300)))).await, (2, ms(300)));
    assert_eq!(attempts_after(capped(), limited(Some(ms(301)))).await, (1, ms(0)));
    assert_eq!(attempts_after(capped(), limited(None)).await, (1, ms(0)), "it would never be admitted");
}

// R31
#[tokio::test(start_paused = true)]
async fn a_timed_out_request_is_retried_only_if_declared_idempotent() {
    let timed_out = |attempted| Rejection::timed_out("inner", ms(5), attempted);
    assert_eq!(attempts_after(builder(), timed_out(true)).await, (1, ms(0)));
    assert_eq!(attempts_after(builder().idempotent(true), timed_out(true)).await, (2, ms(10)));
    // The deadline passed before the call, and would have passed before a retry.
    assert_eq!(attempts_after(builder().idempotent(true), timed_out(false)).await, (1, ms(0)));
}

// R31
#[tokio::test(start_paused = true)]
async fn idempotency_can_be_decided_per_request() {
    for default in [false, true] {
        for (request, calls) in [("get", 3), ("post", 1)] {
            let (script, probe) = Script::new();
            for _ in 0..3 {
                script.reply(Reply::Err(Rejection::timed_out("inner", ms(5), true).into()));
            }
            let (builder, recorder) = recorded();
            let layer = builder.idempotent(default).build().unwrap().layer();
            let service = layer.idempotent_if(|request: &&'static str| *request == "get").layer(probe);
            service.oneshot(request).await.unwrap_err();
            assert_eq!(script.calls(), calls);
            // Also for the last attempt, which keeps no copy.
            assert_eq!(recorder.count("retries exhausted after 3"), usize::from(request == "get"));
        }
    }
}

// R31
#[tokio::test(start_paused = true)]
async fn a_request_that_is_not_idempotent_is_not_retried_after_a_failure() {
    for (request, calls) in [("get", 3), ("post", 1)] {
        let (script, probe) = failing(3);
        let layer = builder().idempotent(true).build().unwrap().layer();
        let service = layer.idempotent_if(|request: &&'static str| *request == "get").layer(probe);
        service.oneshot(request).await.unwrap_err();
        assert_eq!(script.calls(), calls, "{request}");
    }
}

/// Only the required method: every error is a failure.
#[derive(Clone)]
struct EveryErrorFails;

impl Classify<&'static str, BoxError> for EveryErrorFails {
    fn classify(&self, result: Result<&&'static str, &BoxError>) -> Verdict {
        by_text(result)
    }
}

// R28, R30, R31, R40
#[tokio::test(start_paused = true)]
async fn rejections_keep_their_rules_under_any_classifier() {
    async fn check<C: Classify<&'static str, BoxError> + Clone>(classify: C) {
        let limited = |after| Rejection::rate_limited("inner", Some(ms(after)), 5);
        for (rejection, calls) in [
            (open(Some(ms(1))), 1),
            (Rejection::bulkhead_full("inner", 5), 1),
            (Rejection::queue_timeout("inner", ms(5)), 1),
            (Rejection::timed_out("inner", ms(5), true), 1),
            (Rejection::timed_out("inner", ms(5), false), 1),
            (limited(200), 2),
            (limited(100_000), 1),
        ] {
            let wrapped: [fn(Rejection) -> BoxError; 3] = [
                Into::into,
                |rejection| std::io::Error::from(rejection).into(),
                |rejection| Error::<std::fmt::Error>::Rejected(rejection).into(),
            ];
            for wrap in wrapped {
                let (script, probe) = Script::new();
                script.reply(Reply::Err(wrap(rejection.clone())));
                let _ =
                    builder().build().unwrap().layer().classify(classify.clone()).layer(probe).oneshot("post").await;
                assert_eq!(script.calls(), calls, "{rejection}");
            }
            let mut attempts = 0;
            let run = builder().build().unwrap();
            let result = run.run_with(classify.clone(), |attempt| {
                attempts = attempt;
                let result = if attempt == 1 { Err(rejection.clone().into()) } else { Ok("ok") };
                async { result }
            });
            let _ = result.await;
            assert_eq!(attempts as usize, calls, "{rejection}");
        }
    }

    check(by_text).await;
    check(EveryErrorFails).await;
    check(DefaultClassifier).await;
}

/// Overrides the verdict on timeouts.
#[derive(Clone)]
struct TimeoutsCount(Verdict);

impl Classify<&'static str, BoxError> for TimeoutsCount {
    fn classify(&self, result: Result<&&'static str, &BoxError>) -> Verdict {
        by_text(result)
    }

    fn classify_rejection(&self, _: &Rejection) -> Verdict {
        self.0
    }
}

// R31, R40
#[tokio::test(start_paused = true)]
async fn a_classifier_may_override_how_a_timeout_counts() {
    for (verdict, idempotent, calls) in
        [(Verdict::Ignored, true, 1), (Verdict::Failure, true, 2), (Verdict::Failure, false, 1)]
    {
        let (script, probe) = Script::new();
        script.reply(Reply::Err(Rejection::timed_out("inner", ms(5), true).into()));
        let retry = builder().idempotent(idempotent).build().unwrap();
        let _ = retry.layer().classify(TimeoutsCount(verdict)).layer(probe).oneshot("post").await;
        assert_eq!(script.calls(), calls, "{verdict}");
    }
}

/// Counts every result but "ok" as throttled, with this hint.
#[derive(Clone)]
struct ThrottledWithHint(Duration);

impl Classify<&'static str, BoxError> for ThrottledWithHint {
    fn classify(&self, result: Result<&&'static str, &BoxError>) -> Verdict {
        if result.is_ok_and(|response| *response == "ok") { Verdict::Success } else { Verdict::Throttled }
    }

    fn retry_after(&self, _: Result<&&'static str, &BoxError>) -> Option<Duration> {
        Some(self.0)
    }
}

// R27
#[tokio::test(start_paused = true)]
async fn a_results_hint_is_honored_between_the_backoff_and_the_cap() {
    for reply in [|| Reply::Ok("busy"), || Reply::Err("busy".into())] {
        for (hint, calls, elapsed) in [(3, 2, 10), (200, 2, 200), (300, 2, 300), (301, 1, 0)] {
            let (script, probe) = Script::new();
            script.reply(reply());
            let retry = builder().max_retry_after(ms(300)).build().unwrap();
            let start = now();
            let _ = retry.layer().classify(ThrottledWithHint(ms(hint))).layer(probe).oneshot("a").await;
            assert_eq!((script.calls(), now() - start), (calls, ms(elapsed)), "a hint of {hint} ms");
        }
    }
}

// R27: the backoff under the hint keeps growing.
#[tokio::test(start_paused = true)]
async fn a_hint_does_not_stop_the_backoff_from_growing() {
    let (_, probe) = failing(4);
    let (recording, recorder) = recorded();
    let backoff = Backoff::exponential(ms(100), ms(1000)).jitter(Jitter::None);
    let retry = recording.max_attempts(4).backoff(backoff).build().unwrap();
    retry.layer().classify(ThrottledWithHint(ms(250))).layer(probe).oneshot("a").await.unwrap_err();
    let delays: Vec<_> = recorder.take().into_iter().filter(|line| line.starts_with("retry ")).collect();
    assert_eq!(delays, ["retry 2 in 250ms", "retry 3 in 250ms", "retry 4 in 400ms"]);
}

/// Reads the replay safety from the first word of the request.
#[derive(Clone)]
struct SafetyByFirstWord;

impl Repeat<&'static str> for SafetyByFirstWord {
    type Saved = &'static str;

    fn save(&self, request: &&'static str) -> Option<&'static str> {
        Some(request)
    }

    fn restore(&self, saved: &'static str) -> &'static str {
        saved
    }

    fn replay_safety(&self, saved: &&'static str) -> ReplaySafety {
        match saved.split(' ').next() {
            Some("never") => ReplaySafety::Never,
            Some("unattempted") => ReplaySafety::IfUnprocessed,
            _ => ReplaySafety::AfterFailure,
        }
    }
}

/// Classifies the error "refused" as a failure to connect: the request was not attempted.
#[derive(Clone)]
struct ConnectFailures;

impl Classify<&'static str, BoxError> for ConnectFailures {
    fn classify(&self, result: Result<&&'static str, &BoxError>) -> Verdict {
        by_text(result)
    }

    fn was_attempted(&self, result: Result<&&'static str, &BoxError>) -> bool {
        result.err().is_none_or(|error| error.to_string() != "refused")
    }
}

// R30, R31
#[tokio::test(start_paused = true)]
async fn a_non_idempotent_request_is_retried_only_if_it_was_certainly_not_attempted() {
    let limited = || Rejection::rate_limited("inner", Some(ms(5)), 1).into();
    let timed_out = |attempted| Rejection::timed_out("inner", ms(5), attempted).into();
    let open = || Rejection::circuit_open("inner", None).into();
    let calls = async |request: &'static str, error: BoxError| {
        let (script, probe) = Script::new();
        script.reply(Reply::Err(error));
        let retry = builder().idempotent(true).retry_on_other_instance(true).build().unwrap();
        let _ = retry.layer().classify(ConnectFailures).repeat(SafetyByFirstWord).layer(probe).oneshot(request).await;
        script.calls()
    };
    for error in [|| "down".into(), || "refused".into(), open] {
        assert_eq!(calls("never", error()).await, 1);
        assert_eq!(calls("any", error()).await, 2);
    }
    assert_eq!(calls("unattempted", "down".into()).await, 1);
    assert_eq!(calls("unattempted", "refused".into()).await, 2);
    assert_eq!(calls("unattempted", open()).await, 2);
    assert_eq!(calls("unattempted", limited()).await, 2);
    assert_eq!(calls("unattempted", timed_out(true)).await, 1);
    assert_eq!(calls("any", timed_out(true)).await, 2);
}

/// A request that can be replayed only once.
#[derive(Clone)]
struct ReplayedOnce(std::sync::Arc<std::sync::atomic::AtomicUsize>);

impl Repeat<&'static str> for ReplayedOnce {
    type Saved = &'static str;

    fn save(&self, request: &&'static str) -> Option<&'static str> {
        Some(request)
    }

    fn restore(&self, saved: &'static str) -> &'static str {
        saved
    }

    fn replay_safety(&self, _saved: &&'static str) -> ReplaySafety {
        match self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => ReplaySafety::AfterFailure,
            _ => ReplaySafety::Never,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_no_longer_replayable_ends_with_the_last_result() {
    let (script, probe) = failing(9);
    let retry = builder().max_attempts(5).build().unwrap();
    let layer = retry.layer().repeat(ReplayedOnce(std::sync::Arc::default()));
    let error = layer.layer(probe).oneshot("a").await.unwrap_err();
    assert_eq!((error.to_string().as_str(), script.calls()), ("down", 2));
}
