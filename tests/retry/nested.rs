//! R36, R38: nested retries do not multiply. Also retries combined with other patterns.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    rate_limit::{Rate, RateLimiter},
    retry::{RetryBuilder, side_call},
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
async fn nested_retries_together_make_the_attempts_of_the_outermost() {
    assert_eq!(attempts(builder()).await, 3, "attempts exhausted");
    assert_eq!(attempts(builder().max_attempts(2)).await, 3, "fewer attempts inside");
    assert_eq!(attempts(builder().max_attempts(9)).await, 3, "more attempts inside");
    let one = budget(1);
    assert_eq!(attempts(builder().budget(&one)).await, 3, "budget exhausted");
    assert_eq!(attempts(builder().deadline(ms(5))).await, 3, "time exhausted");
}

// R36, R38: whatever lies between the two retries.
#[tokio::test(start_paused = true)]
async fn nested_retries_do_not_multiply_whatever_lies_between_them() {
    type Down = Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;
    type Wrap = fn(Down) -> Down;
    let between: [(&str, Wrap); 4] = [
        ("yields", |inner| {
            Box::pin(async {
                let result = inner.await;
                tokio::task::yield_now().await;
                result
            })
        }),
        ("sleeps", |inner| {
            Box::pin(async {
                let result = inner.await;
                tokio::time::sleep(ms(1)).await;
                result
            })
        }),
        ("times out during the delay", |inner| {
            Box::pin(async { tokio::time::timeout(ms(15), inner).await.unwrap_or_else(|_| Err(error("late"))) })
        }),
        ("selects", |inner| {
            Box::pin(async {
                tokio::select! {
                    result = inner => result,
                    () = tokio::time::sleep(ms(25)) => Err(error("late")),
                }
            })
        }),
    ];
    for (name, between) in between {
        let (outer, inner) = (builder().build().unwrap(), builder().build().unwrap());
        let calls = Arc::new(AtomicUsize::new(0));
        let attempt = |_| {
            let (inner, calls) = (inner.clone(), calls.clone());
            between(Box::pin(async move {
                let down = |_| {
                    calls.fetch_add(1, SeqCst);
                    async { Err::<(), _>(error("down")) }
                };
                inner.run(down).await
            }))
        };
        outer.run(attempt).await.unwrap_err();
        assert_eq!(calls.load(SeqCst), 3, "{name}");
    }
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

// R15
#[tokio::test(start_paused = true)]
async fn an_inner_retry_that_ends_unready_returns_its_error() {
    let (script, probe) = failing(1);
    let inner = builder().deadline(ms(50)).build().unwrap();
    let outer = builder().deadline(ms(50)).build().unwrap();
    let (mut call, ready) = {
        let service = outer.layer().layer(inner.layer().layer(probe));
        (tokio_test::task::spawn(service.oneshot("a")), script.clone())
    };
    tokio_test::assert_pending!(call.poll());
    ready.set_ready(Ready::No);
    call.await.unwrap_err();
    assert_eq!(script.calls(), 1);
}

// R36, R38: a failure of any type cannot be told from that of a side call, whose retries therefore
// count, in the same poll as in an earlier one; unless it is said to be one.
#[tokio::test(start_paused = true)]
async fn the_retries_of_a_side_call_count_unless_it_is_marked_as_one() {
    for (delay, is_marked, attempts) in [(0, false, 2), (1, false, 2), (0, true, 3), (1, true, 3)] {
        let inner = builder().max_attempts(2).build().unwrap();
        let (outer, recorder) = recorded();
        let outer = outer.build().unwrap();
        let handler = |attempt: u32| {
            let inner = &inner;
            async move {
                // A side call that fails, then the main call fails for another reason.
                let side = inner.run(|_| async { Err::<(), _>(error("side call")) });
                let _ = if is_marked { side_call(side).await } else { side.await };
                if delay > 0 {
                    tokio::time::sleep(ms(delay)).await;
                }
                if attempt < 3 { Err(error("main call")) } else { Ok(attempt) }
            }
        };
        let result = outer.run(handler).await;
        assert_eq!((result.is_ok(), recorder.count("retry") + 1), (attempts == 3, attempts));
    }
}

// R36: the retries of calls that succeed are not in vain.
#[tokio::test(start_paused = true)]
async fn only_the_retries_of_failed_calls_count() {
    let inner = || builder().max_attempts(2).build().unwrap();
    let (exhausts, other, outer) = (inner(), inner(), builder().build().unwrap());
    let mut calls = 0;
    let fails_once = |attempt| async move { if attempt == 1 { Err(error("down")) } else { Ok(()) } };
    let handler = |_| {
        calls += 1;
        let down = exhausts.run(|_| async { Err::<(), _>(error("down")) });
        let fine = other.run(fails_once);
        async move {
            let (down, fine) = tokio::join!(down, fine);
            down.and(fine)
        }
    };
    outer.run(handler).await.unwrap_err();
    assert_eq!(calls, 2, "one retry in vain, and one of its own");
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

// R42
#[tokio::test(start_paused = true)]
async fn a_success_through_nested_retries_pays_into_a_shared_budget_once() {
    let drained = || {
        let budget = budget(9);
        while budget.try_withdraw() {}
        budget
    };
    let (shared, other) = (drained(), drained());
    let retry = |budget: &tower_rampart::retry::RetryBudget| builder().budget(budget).build().unwrap();
    let layer = |budget| retry(budget).layer();
    let (_, probe) = Script::new();
    layer(&shared).layer(layer(&shared).layer(layer(&shared).layer(probe.clone()))).oneshot("a").await.unwrap();
    assert_eq!(crate::balance(&shared), 1.0, "three layers");
    let without = builder().no_budget().build().unwrap().layer();
    layer(&shared).layer(without.layer(layer(&shared).layer(probe.clone()))).oneshot("a").await.unwrap();
    assert_eq!(crate::balance(&shared), 2.0, "a retry without a budget between them");
    layer(&other).layer(layer(&shared).layer(probe)).oneshot("a").await.unwrap();
    assert_eq!((crate::balance(&shared), crate::balance(&other)), (3.0, 1.0), "two budgets");
    let (outer, inner) = (retry(&shared), retry(&shared));
    let yields = |_| async {
        inner.run(|_| async { Ok::<_, BoxError>(()) }).await?;
        tokio::task::yield_now().await;
        Ok::<_, BoxError>(())
    };
    outer.run(yields).await.unwrap();
    assert_eq!(crate::balance(&shared), 4.0, "paid in an earlier poll");
}
