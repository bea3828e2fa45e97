//! Compositions, items X of the contract: one flat error in every order of the layers, and their
//! joint behaviour.
#![allow(clippy::disallowed_methods)] // the time is paused

mod support;

use std::time::Duration;

use support::{
    BoxError, OwnError,
    probe::{Probe, Reply, Script},
    recorder::Recorder,
};
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AsRejection, Error,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    rate_limit::{Rate, RateLimiter},
    retry::{Backoff, Jitter, Retry},
    timeout::Timeout,
};

#[derive(Clone)]
struct Handles {
    timeout: Timeout,
    retry: Retry,
    limiter: RateLimiter,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
}

fn handles() -> Handles {
    let backoff = Backoff::fixed(Duration::from_millis(10)).jitter(Jitter::None);
    Handles {
        timeout: Timeout::new("total", Duration::from_secs(1)),
        retry: Retry::builder("retry").backoff(backoff).no_budget().build().unwrap(),
        limiter: RateLimiter::new("limiter", Rate::per_hour(1000)).unwrap(),
        breaker: CircuitBreaker::consecutive("breaker", 3).unwrap(),
        bulkhead: Bulkhead::new("bulkhead", 2).unwrap(),
    }
}

/// The service fails three times with its own error, then the breaker rejects: in every order the
/// caller gets one error type and can tell the two apart.
macro_rules! orders {
    ($($name:ident: $($handle:ident),+;)+) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let all = handles();
            let failing = tower::service_fn(|_: u32| async { Err::<(), _>(OwnError::Failed) });
            let service = ServiceBuilder::new()$(.layer(all.$handle.layer()))+.service(failing);
            let mut seen = (0, 0);
            for _ in 0..5 {
                // Every order yields this type without an annotation in the stack.
                let error: OwnError = service.clone().oneshot(1).await.unwrap_err();
                match error.as_rejection() {
                    None => seen.0 += 1,
                    Some(rejection) => {
                        assert_eq!(rejection.name(), "breaker");
                        seen.1 += 1;
                    }
                }
            }
            assert!(seen.0 >= 1 && seen.1 >= 1, "{seen:?}");

            let all = handles();
            let (script, probe) = Script::new();
            for _ in 0..9 { script.reply(Reply::Err("boom".into())); }
            let service = ServiceBuilder::new()$(.layer(all.$handle.layer()))+.service(probe);
            for _ in 0..5 {
                let error: BoxError = service.clone().oneshot("a").await.unwrap_err();
                assert!(error.as_rejection().is_none_or(|rejection| rejection.name() == "breaker"));
            }
            assert_eq!(all.breaker.state(), CircuitState::Open);
            assert_eq!((all.bulkhead.snapshot().in_flight, script.live()), (0, 0));

            let all = handles();
            let foreign = tower::service_fn(|_: u32| async { Err::<(), _>(std::fmt::Error) });
            let service = ServiceBuilder::new()$(.layer(all.$handle.layer()))+
                .layer(tower_rampart::AdaptErrorLayer::new())
                .service(foreign);
            let error: Error<std::fmt::Error> = service.oneshot(1).await.unwrap_err();
            assert!(matches!(error, Error::Service(std::fmt::Error) | Error::Rejected(_)));
        }
    )+};
}

// X7
orders! {
    errors_are_flat_in_the_recommended_order: timeout, retry, limiter, breaker, bulkhead;
    errors_are_flat_with_the_breaker_outermost: breaker, limiter, timeout, retry, bulkhead;
    errors_are_flat_with_the_limiter_outermost: limiter, breaker, retry, timeout, bulkhead;
    errors_are_flat_with_the_bulkhead_outermost: bulkhead, timeout, retry, breaker, limiter;
    errors_are_flat_with_the_retry_outermost: retry, timeout, breaker, limiter, bulkhead;
    errors_are_flat_with_the_timeout_innermost: retry, limiter, breaker, bulkhead, timeout;
    errors_are_flat_with_the_breaker_innermost: timeout, limiter, bulkhead, retry, breaker;
    errors_are_flat_with_the_limiter_innermost: bulkhead, retry, timeout, breaker, limiter;
    errors_are_flat_with_the_retry_innermost: limiter, bulkhead, breaker, timeout, retry;
    errors_are_flat_in_the_reversed_order: bulkhead, breaker, limiter, retry, timeout;
    errors_are_flat_in_a_mixed_order: breaker, bulkhead, timeout, limiter, retry;
    errors_are_flat_in_another_mixed_order: limiter, timeout, bulkhead, breaker, retry;
}

fn hang(script: &Script, times: usize) {
    for _ in 0..times {
        script.reply(Reply::Later);
    }
}

fn retry(attempts: u32) -> Retry {
    Retry::builder("retry")
        .max_attempts(attempts)
        .backoff(Backoff::fixed(Duration::from_millis(10)).jitter(Jitter::None))
        .idempotent(true)
        .no_budget()
        .build()
        .unwrap()
}

// X1, T21, T24
#[tokio::test(start_paused = true)]
async fn three_attempts_that_time_out_trip_the_breaker_and_the_fourth_is_not_sent() {
    let (script, probe) = Script::new();
    hang(&script, 10);
    let breaker = CircuitBreaker::consecutive("breaker", 3).unwrap();
    let attempt = Timeout::new("attempt", Duration::from_millis(50));
    let layers = ServiceBuilder::new().layer(retry(10).layer()).layer(breaker.layer()).layer(attempt.layer());
    let error = layers.service(probe).oneshot("a").await.unwrap_err();
    assert_eq!(error.as_rejection().unwrap().name(), "breaker");
    assert_eq!((script.calls(), breaker.state()), (3, CircuitState::Open));
}

// X2
#[tokio::test(start_paused = true)]
async fn a_breaker_outside_the_retry_counts_one_failure_per_exhausted_call() {
    let (script, probe) = Script::new();
    for _ in 0..6 {
        script.reply(Reply::Err("boom".into()));
    }
    let breaker = CircuitBreaker::consecutive("breaker", 3).unwrap();
    let service = ServiceBuilder::new().layer(breaker.layer()).layer(retry(3).layer()).service(probe);
    for _ in 0..2 {
        assert!(service.clone().oneshot("a").await.is_err());
    }
    assert_eq!((script.calls(), breaker.snapshot().consecutive_failures), (6, 2));
}

// X3
#[tokio::test(start_paused = true)]
async fn a_retry_over_a_balancer_of_breakers_reaches_another_endpoint() {
    use tower::{balance::p2c::Balance, buffer::Buffer, discover::ServiceList, load::Constant};

    let mut scripts = Vec::new();
    let endpoints: Vec<_> = (0..2)
        .map(|at| {
            let (script, probe) = Script::new();
            if at == 0 {
                for _ in 0..50 {
                    script.reply(Reply::Err("down".into()));
                }
            }
            scripts.push(script);
            let breaker = CircuitBreaker::consecutive("endpoint", 1).unwrap();
            Constant::new(breaker.layer().backpressure().layer(probe), 1_usize)
        })
        .collect();
    let balance = Buffer::new(Balance::new(ServiceList::new::<&'static str>(endpoints)), 16);
    let mut service = retry(3).layer().layer(balance);
    for _ in 0..20 {
        assert_eq!(service.ready().await.unwrap().call("a").await.unwrap(), "ok");
    }
    assert_eq!(scripts[0].calls(), 1, "called once, then its circuit was open");
}

// X4, T23
#[tokio::test(start_paused = true)]
async fn the_total_timeout_limits_attempts_and_backoff() {
    let (script, probe) = Script::new();
    hang(&script, 100);
    let layers = ServiceBuilder::new()
        .layer(Timeout::new("total", Duration::from_millis(200)).layer())
        .layer(retry(100).layer())
        .layer(Timeout::new("attempt", Duration::from_millis(50)).layer());
    let began = tokio::time::Instant::now();
    let error = layers.service(probe).oneshot("a").await.unwrap_err();
    assert!(error.as_rejection().is_some());
    assert!(began.elapsed() <= Duration::from_millis(202), "{:?}", began.elapsed());
    assert!((3..=4).contains(&script.calls()), "{} attempts", script.calls());
}

// T22
#[tokio::test(start_paused = true)]
async fn a_probe_that_times_out_reopens_the_circuit() {
    let (script, probe) = Script::new();
    hang(&script, 2);
    let breaker = CircuitBreaker::consecutive("breaker", 1).unwrap();
    let attempt = Timeout::new("attempt", Duration::from_millis(50));
    let service = ServiceBuilder::new().layer(breaker.layer()).layer(attempt.layer()).service(probe);
    assert!(service.clone().oneshot("a").await.is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(service.clone().oneshot("probe").await.is_err());
    assert_eq!((breaker.state(), breaker.snapshot().reopened), (CircuitState::Open, 1));
}

// X5
#[tokio::test(start_paused = true)]
async fn an_open_breaker_inside_a_bulkhead_releases_permits_immediately() {
    let (script, probe) = Script::new();
    let breaker = CircuitBreaker::new("breaker");
    breaker.force_open();
    let bulkhead = Bulkhead::new("bulkhead", 1).unwrap();
    let service = ServiceBuilder::new().layer(bulkhead.layer()).layer(breaker.layer()).service(probe);
    for _ in 0..10 {
        let error = service.clone().oneshot("a").await.unwrap_err();
        assert_eq!(error.as_rejection().unwrap().name(), "breaker");
    }
    assert_eq!((bulkhead.snapshot().in_flight, script.calls()), (0, 0));
}

// X6, L32
#[tokio::test(start_paused = true)]
async fn a_limiter_inside_a_retry_counts_attempts_and_one_outside_counts_calls() {
    for (inside, tokens) in [(true, 3), (false, 1)] {
        let (script, probe) = Script::new();
        for _ in 0..3 {
            script.reply(Reply::Err("boom".into()));
        }
        let limiter = RateLimiter::new("limiter", Rate::per_hour(100)).unwrap();
        let result = if inside {
            ServiceBuilder::new().layer(retry(3).layer()).layer(limiter.layer()).service(probe).oneshot("a").await
        } else {
            ServiceBuilder::new().layer(limiter.layer()).layer(retry(3).layer()).service(probe).oneshot("a").await
        };
        assert!(result.is_err());
        assert_eq!(limiter.snapshot().available, 100 - tokens);
    }
}

// K26, K27, R13
#[tokio::test(start_paused = true)]
async fn a_bulkhead_inside_a_retry_is_released_during_the_backoff_and_one_outside_is_held() {
    for (inside, held) in [(true, 0), (false, 1)] {
        let (script, probe) = Script::new();
        script.reply(Reply::Err("boom".into()));
        let bulkhead = Bulkhead::new("bulkhead", 1).unwrap();
        let mut service = if inside {
            ServiceBuilder::new().boxed().layer(retry(2).layer()).layer(bulkhead.layer()).service(probe)
        } else {
            ServiceBuilder::new().boxed().layer(bulkhead.layer()).layer(retry(2).layer()).service(probe)
        };
        let mut call = task::spawn(service.ready().await.unwrap().call("a"));
        assert_pending!(call.poll());
        assert_eq!(bulkhead.snapshot().in_flight, held);
        assert_eq!(call.await.unwrap(), "ok");
        assert_eq!(bulkhead.snapshot().in_flight, 0);
    }
}

/// All five layers around the probe.
fn five(
    probe: Probe,
    handles: &Handles,
) -> impl Service<&'static str, Response = &'static str, Error = BoxError> + use<> {
    ServiceBuilder::new()
        .layer(handles.timeout.layer())
        .layer(handles.retry.layer())
        .layer(handles.limiter.layer())
        .layer(handles.breaker.layer())
        .layer(handles.bulkhead.layer())
        .layer(Timeout::new("attempt", Duration::from_millis(100)).layer())
        .service(probe)
}

// X9, X10
#[tokio::test(start_paused = true)]
async fn cancelling_or_panicking_at_any_point_leaves_nothing_behind() {
    for polls in 0..8 {
        for panics in [false, true] {
            let (script, probe) = Script::new();
            // Each attempt is pending, then fails, then its backoff elapses.
            for _ in 0..4 {
                script.reply(Reply::Later);
            }
            let all = handles();
            let mut service = Box::pin(five(probe, &all));
            let mut call = task::spawn(service.ready().await.unwrap().call("a"));
            for step in 0..polls {
                if call.poll().is_ready() {
                    break;
                }
                if step % 2 == 0 {
                    script.answer(Err("boom".into()));
                } else {
                    tokio::time::advance(Duration::from_millis(11)).await;
                }
            }
            if panics {
                let unwinding = std::panic::AssertUnwindSafe(move || {
                    let _call = call;
                    panic!("deliberate panic");
                });
                assert!(std::panic::catch_unwind(unwinding).is_err());
            } else {
                drop(call);
            }
            assert_eq!((all.bulkhead.snapshot().in_flight, script.live()), (0, 0), "after {polls} polls");
            assert_eq!(all.breaker.snapshot().probes_in_flight, 0);
            all.breaker.close();
            // Complete the remaining pending replies.
            (0..4).for_each(|_| script.answer(Ok("ok")));
            assert!(service.ready().await.unwrap().call("b").await.is_ok(), "after {polls} polls");
        }
    }
}

// G23, with one observer for the whole stack.
#[tokio::test(start_paused = true)]
async fn one_observer_can_serve_all_layers() {
    let recorder = Recorder::new();
    let (script, probe) = Script::new();
    let timeout = Timeout::builder("t", Duration::from_secs(1)).observer(recorder.clone()).build();
    let breaker = CircuitBreaker::builder("b").observer(recorder.clone()).build().unwrap();
    let bulkhead = Bulkhead::builder("k").observer(recorder.clone()).build().unwrap();
    let layers = ServiceBuilder::new().layer(timeout.layer()).layer(breaker.layer()).layer(bulkhead.layer());
    let service = layers.service(probe);
    assert!(service.clone().oneshot("a").await.is_ok());
    script.reply(Reply::Later);
    let mut call = task::spawn(service.oneshot("b"));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!((recorder.count("admitted"), recorder.count("completed"), recorder.count("cancelled")), (6, 3, 3));
}
