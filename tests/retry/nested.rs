//! R36: nested retries do not multiply. Also retries combined with other patterns.

use std::time::Duration;

use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    rate_limit::{Rate, RateLimiter},
    retry::RetryBuilder,
    timeout::Timeout,
};

use crate::{
    budget, builder, error, failing, ms, recorded,
    support::{
        BoxError,
        probe::{Ready, Reply, Script},
    },
};

/// Counts the calls of a failing service behind a retry of 3 attempts around `inner`.
async fn attempts(inner: RetryBuilder) -> usize {
    let (script, probe) = failing(100);
    let service = ServiceBuilder::new()
        .layer(builder().build().unwrap().layer())
        .layer(Timeout::new("between", Duration::from_secs(60)).layer())
        .layer(inner.build().unwrap().layer())
        .service(probe);
    service.oneshot("a").await.unwrap_err();
    script.calls()
}

// R36
#[tokio::test(start_paused = true)]
async fn a_retry_does_not_retry_calls_that_an_inner_retry_exhausted() {
    assert_eq!(attempts(builder()).await, 3, "attempts exhausted");
    let one = budget(1);
    assert_eq!(attempts(builder().budget(&one)).await, 2, "budget exhausted");
    assert_eq!(attempts(builder().deadline(ms(5))).await, 1, "time exhausted");
}

// R36
#[tokio::test(start_paused = true)]
async fn a_retry_retries_calls_that_an_inner_retry_never_would() {
    assert_eq!(attempts(builder().max_attempts(1)).await, 3, "retries disabled inside");
    let (script, probe) = failing(100);
    let once = builder().build().unwrap().layer().clone_with(|_: &&'static str| None);
    builder().build().unwrap().layer().layer(once.layer(probe)).oneshot("a").await.unwrap_err();
    assert_eq!(script.calls(), 3, "requests that cannot be copied inside");
}

// R36
#[tokio::test(start_paused = true)]
async fn three_nested_retries_do_not_multiply() {
    for between in [builder(), builder().max_attempts(1)] {
        let (script, probe) = failing(100);
        let retry = || builder().build().unwrap().layer();
        let service =
            ServiceBuilder::new().layer(retry()).layer(between.build().unwrap().layer()).layer(retry()).service(probe);
        service.oneshot("a").await.unwrap_err();
        assert_eq!(script.calls(), 3);
    }
}

// R36, R15
#[tokio::test(start_paused = true)]
async fn an_inner_retry_that_ends_unready_is_not_retried() {
    let (script, probe) = failing(1);
    let inner = builder().deadline(ms(50)).build().unwrap();
    let outer = builder().build().unwrap();
    let (mut call, ready) = {
        let service = outer.layer().layer(inner.layer().layer(probe));
        (tokio_test::task::spawn(service.oneshot("a")), script.clone())
    };
    tokio_test::assert_pending!(call.poll());
    ready.set_ready(Ready::No);
    call.await.unwrap_err();
    assert_eq!(script.calls(), 1);
}

// R36: the mark belongs to the attempt's own result.
#[tokio::test(start_paused = true)]
async fn the_mark_of_an_exhausted_side_call_does_not_stop_the_main_call() {
    let inner = builder().max_attempts(2).build().unwrap();
    let (outer, recorder) = recorded();
    let outer = outer.build().unwrap();
    let handler = |attempt: u32| {
        let inner = &inner;
        async move {
            // A side call that fails, then the main call fails for another reason.
            let _ = inner.run(|_| async { Err::<(), _>(error("side call")) }).await;
            tokio::time::sleep(ms(1)).await;
            if attempt < 3 { Err(error("main call")) } else { Ok(attempt) }
        }
    };
    assert_eq!(outer.run(handler).await.unwrap(), 3);
    assert_eq!(recorder.count("retry"), 2);
}

// R36
#[tokio::test(start_paused = true)]
async fn a_successful_inner_retry_does_not_hide_an_exhausted_one() {
    for other_first in [false, true] {
        let inner = || builder().max_attempts(2).build().unwrap();
        let (exhausts, other, outer) = (inner(), inner(), builder().build().unwrap());
        let mut calls = 0;
        let handler = |_| {
            calls += 1;
            let down = exhausts.run(|_| async { Err::<(), _>(error("down")) });
            let fine = other.run(|attempt| async move { if attempt == 1 { Err(error("down")) } else { Ok(()) } });
            async move {
                let (down, fine) = match other_first {
                    false => tokio::join!(down, fine),
                    true => {
                        let (fine, down) = tokio::join!(fine, down);
                        (down, fine)
                    }
                };
                down.and(fine)
            }
        };
        outer.run(handler).await.unwrap_err();
        assert_eq!(calls, 1, "other first: {other_first}");
    }
}

// R36: two calls on one thread are independent.
#[tokio::test(start_paused = true)]
async fn an_exhausted_call_does_not_affect_the_next_call() {
    let (_, probe) = failing(3);
    builder().build().unwrap().layer().layer(probe).oneshot("a").await.unwrap_err();
    let (script, probe) = failing(2);
    builder().build().unwrap().layer().layer(probe).oneshot("a").await.unwrap();
    assert_eq!(script.calls(), 3);
}

// X1, T21, R28
#[tokio::test(start_paused = true)]
async fn three_timeouts_trip_the_inner_breaker_and_no_fourth_attempt_is_sent() {
    let (script, probe) = Script::new();
    (0..9).for_each(|_| _ = script.reply(Reply::Later));
    let breaker = CircuitBreaker::consecutive("inner", 3).unwrap();
    let service = ServiceBuilder::new()
        .layer(builder().max_attempts(9).idempotent(true).build().unwrap().layer())
        .layer(breaker.layer())
        .layer(Timeout::new("attempt", ms(20)).layer())
        .service(probe);
    let error: BoxError = service.oneshot("a").await.unwrap_err();
    assert!(matches!(error.as_rejection(), Some(Rejection::CircuitOpen { .. })));
    assert_eq!((script.calls(), breaker.state()), (3, CircuitState::Open));
}

// X2
#[tokio::test(start_paused = true)]
async fn an_outer_breaker_counts_one_failure_per_call() {
    let (script, probe) = failing(6);
    let breaker = CircuitBreaker::consecutive("outer", 2).unwrap();
    let retry = builder().no_budget().build().unwrap();
    let service = ServiceBuilder::new().layer(breaker.layer()).layer(retry.layer()).service(probe);
    for state in [CircuitState::Closed, CircuitState::Open] {
        service.clone().oneshot("a").await.unwrap_err();
        assert_eq!(breaker.state(), state);
    }
    assert_eq!(script.calls(), 6);
}

// X6, L32
#[tokio::test(start_paused = true)]
async fn an_inner_limiter_counts_attempts_and_an_outer_one_counts_calls() {
    let limiter = || RateLimiter::builder("limit", Rate::per_second(1)).burst(5).build().unwrap();
    let remaining = |limiter: &RateLimiter| (0..9).take_while(|_| limiter.check().is_ok()).count();
    let (_, probe) = failing(2);
    let inside = limiter();
    let service = ServiceBuilder::new().layer(builder().build().unwrap().layer()).layer(inside.layer()).service(probe);
    service.oneshot("a").await.unwrap();
    assert_eq!(remaining(&inside), 2);
    let (_, probe) = failing(2);
    let outside = limiter();
    let service = ServiceBuilder::new().layer(outside.layer()).layer(builder().build().unwrap().layer()).service(probe);
    service.oneshot("a").await.unwrap();
    assert_eq!(remaining(&outside), 4);
}

// R30, with a real limiter.
#[tokio::test(start_paused = true)]
async fn a_call_rejected_by_an_inner_limiter_is_retried_when_a_token_is_available() {
    let limiter = RateLimiter::builder("limit", Rate::per_second(10)).burst(1).build().unwrap();
    limiter.check().unwrap();
    let (script, probe) = Script::new();
    let (builder, recorder) = recorded();
    let service = ServiceBuilder::new().layer(builder.build().unwrap().layer()).layer(limiter.layer()).service(probe);
    let service: tower::util::BoxCloneService<_, _, BoxError> = tower::util::BoxCloneService::new(service);
    assert_eq!(service.oneshot("a").await.unwrap(), "ok");
    assert_eq!(script.calls(), 1);
    assert_eq!(recorder.take(), ["admitted", "retry 2 in 100ms", "completed success"]);
}

// K27
#[tokio::test(start_paused = true)]
async fn an_outer_bulkheads_permit_is_held_during_the_delay() {
    let bulkhead = Bulkhead::new("outer", 1).unwrap();
    let down = service_fn(|_: &'static str| async { Err::<(), BoxError>(error("down")) });
    let service = ServiceBuilder::new().layer(bulkhead.layer()).layer(builder().build().unwrap().layer()).service(down);
    let mut call = tokio_test::task::spawn(service.oneshot("a"));
    tokio_test::assert_pending!(call.poll());
    assert_eq!(bulkhead.snapshot().in_flight, 1);
    drop(call);
    assert_eq!(bulkhead.snapshot().in_flight, 0);
}
