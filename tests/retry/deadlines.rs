//! No attempt starts after a deadline, and no delay that would end after one.

use std::time::Duration;

use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AsRejection, deadline,
    retry::{Backoff, Jitter},
    timeout::Timeout,
};

use crate::{
    address, builder, by_text, error, failing, ms, now, recorded,
    support::{
        BoxError,
        probe::{Ready, Reply, Script},
    },
};

/// The source of the deadline: the retry itself, a timeout around it, or a scope.
#[derive(Clone, Copy, Debug)]
enum Source {
    Retry,
    Timeout,
    Scope,
}

const ALL: [Source; 3] = [Source::Retry, Source::Timeout, Source::Scope];

/// Calls a retry of 10 attempts, 10 ms apart, around `inner`, with a deadline after `limit`.
async fn call_within<S>(source: Source, limit: Duration, inner: S) -> Result<&'static str, BoxError>
where
    S: tower::Service<&'static str, Response = &'static str, Error = BoxError> + Clone,
{
    let retry = builder().max_attempts(10);
    match source {
        Source::Retry => retry.deadline(limit).build().unwrap().layer().layer(inner).oneshot("a").await,
        Source::Timeout => {
            let retry = retry.build().unwrap().layer();
            ServiceBuilder::new()
                .layer(Timeout::new("total", limit).layer())
                .layer(retry)
                .service(inner)
                .oneshot("a")
                .await
        }
        Source::Scope => deadline::scope(now() + limit, retry.build().unwrap().layer().layer(inner).oneshot("a")).await,
    }
}

// R32
#[tokio::test(start_paused = true)]
async fn a_delay_that_would_end_at_or_after_the_deadline_is_not_started() {
    for source in ALL {
        for (limit, calls, elapsed) in [(5, 1, 0), (10, 1, 0), (11, 2, 10), (25, 3, 20), (31, 4, 30)] {
            let (script, probe) = failing(10);
            let start = now();
            let error = call_within(source, ms(limit), probe).await.unwrap_err();
            assert!(error.as_rejection().is_none(), "{source:?}: the service's error, not a timeout");
            assert_eq!((script.calls(), now() - start), (calls, ms(elapsed)), "{source:?} of {limit} ms");
        }
    }
}

// R32
#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_counts() {
    for (own, around) in [(25, 100), (100, 25)] {
        let (script, probe) = failing(10);
        let retry = builder().max_attempts(10).deadline(ms(own)).build().unwrap();
        let timeout = Timeout::new("total", ms(around));
        let service = ServiceBuilder::new().layer(timeout.layer()).layer(retry.layer()).service(probe);
        service.oneshot("a").await.unwrap_err();
        assert_eq!(script.calls(), 3);
    }
}

// R32
#[tokio::test(start_paused = true)]
async fn the_retrys_own_deadline_does_not_interrupt_an_attempt() {
    let (script, probe) = failing(1);
    script.reply(Reply::Later);
    let retry = builder().deadline(ms(25)).build().unwrap();
    let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    tokio::time::advance(ms(11)).await;
    assert_pending!(call.poll());
    tokio::time::advance(ms(1000)).await;
    script.answer(Ok("late"));
    assert_eq!(assert_ready_ok!(call.poll()), "late");
}

// R32, R15
#[tokio::test(start_paused = true)]
async fn waiting_for_readiness_ends_at_the_deadline_with_the_last_error() {
    for source in ALL {
        let (script, probe) = Script::new();
        let down = error("down");
        let original = address(&down);
        script.reply(Reply::Err(down));
        let start = now();
        let mut call = task::spawn(call_within(source, ms(50), probe));
        assert_pending!(call.poll());
        script.set_ready(Ready::No);
        let error = call.await.unwrap_err();
        assert_eq!(address(&error), original, "{source:?}");
        assert_eq!((script.calls(), now() - start), (1, ms(50)), "{source:?}");
    }
}

// R32: the service becomes ready only after the deadline, or the timer fires late.
#[tokio::test(start_paused = true)]
async fn no_attempt_starts_after_the_deadline_even_on_a_late_wakeup() {
    for source in [Source::Retry, Source::Scope] {
        for unready in [false, true] {
            let (script, probe) = failing(1);
            let mut call = task::spawn(call_within(source, ms(50), probe));
            assert_pending!(call.poll());
            if unready {
                script.set_ready(Ready::No);
                tokio::time::advance(ms(11)).await;
                assert_pending!(call.poll());
                script.set_ready(Ready::Yes);
            }
            tokio::time::advance(Duration::from_secs(3600)).await;
            assert_ready_err!(call.poll());
            assert_eq!(script.calls(), 1, "{source:?}, unready {unready}");
        }
    }
}

// R12, R32: the failed response is dropped before the delay, so only another attempt can produce a
// result.
#[tokio::test(start_paused = true)]
async fn after_a_failed_response_a_delayed_attempt_is_made_past_the_deadline() {
    let (script, probe) = Script::new();
    script.reply(Reply::Ok("bad"));
    let (builder, recorder) = recorded();
    let layer = builder.deadline(ms(50)).build().unwrap().layer().classify_with(by_text);
    let mut call = task::spawn(layer.layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    script.set_ready(Ready::No);
    tokio::time::advance(ms(100)).await;
    assert_pending!(call.poll());
    script.set_ready(Ready::Yes);
    assert!(call.is_woken());
    assert_eq!(assert_ready_ok!(call.poll()), "ok");
    assert_eq!(recorder.take(), ["admitted", "retry 2 in 10ms", "completed success"]);
}

// X4, T23
#[tokio::test(start_paused = true)]
async fn a_total_timeout_covers_hanging_attempts_and_delays() {
    let (script, probe) = failing(1);
    script.reply(Reply::Later);
    let start = now();
    let error = call_within(Source::Timeout, ms(50), probe).await.unwrap_err();
    assert!(error.as_rejection().is_some_and(tower_rampart::Rejection::was_attempted));
    assert_eq!((script.calls(), script.live()), (2, 0));
    assert!(now() - start <= ms(51));
}

// T24, X4
#[tokio::test(start_paused = true)]
async fn each_attempt_has_the_full_time_of_an_inner_timeout() {
    let (script, probe) = Script::new();
    script.reply(Reply::Later).reply(Reply::Later).reply(Reply::Later);
    let retry = builder().idempotent(true).build().unwrap();
    let attempt = Timeout::new("attempt", ms(40));
    let start = now();
    let service = ServiceBuilder::new().layer(retry.layer()).layer(attempt.layer()).service(probe);
    service.oneshot("a").await.unwrap_err();
    assert_eq!((script.calls(), script.live()), (3, 0));
    let elapsed = now() - start;
    assert!((ms(140)..=ms(146)).contains(&elapsed), "3 attempts of 40 ms and 2 delays of 10 ms took {elapsed:?}");
}

// R10
#[tokio::test(start_paused = true)]
async fn the_longest_durations_never_elapse() {
    let (script, probe) = failing(1);
    let retry = builder().deadline(Duration::MAX).build().unwrap();
    assert_eq!(retry.layer().layer(probe).oneshot("a").await.unwrap(), "ok");
    assert_eq!(script.calls(), 2);

    let (script, probe) = failing(1);
    let retry = builder().backoff(Backoff::fixed(Duration::MAX).jitter(Jitter::None)).build().unwrap();
    let mut call = task::spawn(retry.layer().layer(probe).oneshot("a"));
    assert_pending!(call.poll());
    tokio::time::advance(Duration::from_secs(1 << 27)).await;
    assert_pending!(call.poll());
    assert_eq!(script.calls(), 1);
}

// R32, without Tower.
#[tokio::test(start_paused = true)]
async fn run_respects_deadlines() {
    let retry = builder().max_attempts(10);
    let own = retry.deadline(ms(25)).build().unwrap();
    let mut attempts = 0;
    let start = now();
    let down = |_| {
        attempts += 1;
        async { Err::<(), _>(error("down")) }
    };
    own.run(down).await.unwrap_err();
    assert_eq!((attempts, now() - start), (3, ms(20)));

    let around = builder().max_attempts(10).build().unwrap();
    let mut attempts = 0;
    let total = Timeout::new("total", ms(25));
    let run = total.run(async {
        let down = |_| {
            attempts += 1;
            async { Err::<(), _>(error("down")) }
        };
        around.run(down).await
    });
    assert!(run.await.unwrap_err().as_rejection().is_none());
    assert_eq!(attempts, 3);
}

// R32
#[tokio::test(start_paused = true)]
async fn run_makes_no_attempt_after_a_late_wakeup() {
    let (builder, recorder) = recorded();
    let retry = builder.deadline(ms(25)).build().unwrap();
    let mut call = task::spawn(retry.run(|_| async { Err::<(), _>(error("down")) }));
    assert_pending!(call.poll());
    tokio::time::advance(ms(100)).await;
    assert_ready_err!(call.poll());
    let events = ["admitted", "retry 2 in 10ms", "retries exhausted after 1", "completed failure"];
    assert_eq!(recorder.take(), events);
}

#[tokio::test(start_paused = true)]
async fn attempts_see_the_deadline_around_the_retry() {
    let seen = tower::service_fn(|_: &'static str| async { Ok::<Option<Instant>, BoxError>(deadline::current()) });
    let retry = builder().build().unwrap();
    let at = now() + ms(40);
    let service = retry.layer().layer(seen);
    assert_eq!(deadline::scope(at, service.oneshot("a")).await.unwrap(), Some(at));
}
