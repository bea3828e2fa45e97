//! Layers in whatever order have one flat error, and what they do together: items X of the contract.
#![allow(clippy::disallowed_methods)] // the time is paused

mod support;

use std::time::Duration;

use support::{
    BoxError,
    probe::{Probe, Reply, Script},
    recorder::Recorder,
};
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AsRejection, Error, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    rate_limit::{Rate, RateLimiter},
    retry::{Backoff, Jitter, Retry},
    timeout::Timeout,
};

#[derive(Debug, thiserror::Error)]
enum OwnError {
    #[error("own failure")]
    Own,
    #[error("rejected")]
    Rejected(#[from] Rejection),
}

impl AsRejection for OwnError {
    fn as_rejection(&self) -> Option<&Rejection> {
        if let Self::Rejected(rejection) = self { Some(rejection) } else { None }
    }
}

#[derive(Clone)]
struct Parts {
    timeout: Timeout,
    retry: Retry,
    limiter: RateLimiter,
    breaker: CircuitBreaker,
    bulkhead: Bulkhead,
}

fn parts() -> Parts {
    let backoff = Backoff::fixed(Duration::from_millis(10)).jitter(Jitter::None);
    Parts {
        timeout: Timeout::new("total", Duration::from_secs(1)),
        retry: Retry::builder("retry").backoff(backoff).no_budget().build().unwrap(),
        limiter: RateLimiter::new("limiter", Rate::per_hour(1000)).unwrap(),
        breaker: CircuitBreaker::consecutive("breaker", 3).unwrap(),
        bulkhead: Bulkhead::new("bulkhead", 2).unwrap(),
    }
}

/// The service fails three times with its own error, and the breaker then refuses: in every order the caller sees one
/// error type, and finds in it what it is.
macro_rules! orders {
    ($($name:ident: $($part:ident),+;)+) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let all = parts();
            let own = tower::service_fn(|_: u32| async { Err::<(), _>(OwnError::Own) });
            let service = ServiceBuilder::new()$(.layer(all.$part.layer()))+.service(own);
            let mut seen = (0, 0);
            for _ in 0..5 {
                // The same type from every order, without an annotation.
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

            let all = parts();
            let (script, probe) = Script::new();
            for _ in 0..9 { script.reply(Reply::Err("boom".into())); }
            let service = ServiceBuilder::new()$(.layer(all.$part.layer()))+.service(probe);
            for _ in 0..5 {
                let error: BoxError = service.clone().oneshot("a").await.unwrap_err();
                assert!(error.as_rejection().is_none_or(|rejection| rejection.name() == "breaker"));
            }
            assert_eq!(all.breaker.state(), CircuitState::Open);
            assert_eq!((all.bulkhead.snapshot().in_flight, script.live()), (0, 0));

            let all = parts();
            let foreign = tower::service_fn(|_: u32| async { Err::<(), _>(std::fmt::Error) });
            let service = ServiceBuilder::new()$(.layer(all.$part.layer()))+
                .layer(tower_rampart::AdaptErrorLayer::new())
                .service(foreign);
            let error: Error<std::fmt::Error> = service.oneshot(1).await.unwrap_err();
            assert!(matches!(error, Error::Service(std::fmt::Error) | Error::Rejected(_)));
        }
    )+};
}

// X7
orders! {
    the_recommended_order: timeout, retry, limiter, breaker, bulkhead;
    breaker_outermost: breaker, limiter, timeout, retry, bulkhead;
    limiter_outermost: limiter, breaker, retry, timeout, bulkhead;
    bulkhead_outermost: bulkhead, timeout, retry, breaker, limiter;
    retry_outermost: retry, timeout, breaker, limiter, bulkhead;
    timeout_innermost: retry, limiter, breaker, bulkhead, timeout;
    breaker_innermost: timeout, limiter, bulkhead, retry, breaker;
    limiter_innermost: bulkhead, retry, timeout, breaker, limiter;
    retry_innermost: limiter, bulkhead, breaker, timeout, retry;
    reversed: bulkhead, breaker, limiter, retry, timeout;
    mixed: breaker, bulkhead, timeout, limiter, retry;
    another: limiter, timeout, bulkhead, breaker, retry;
}

fn never_answers(script: &Script, times: usize) {
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
async fn attempts_that_time_out_trip_the_breaker_and_the_fourth_is_not_sent() {
    let (script, probe) = Script::new();
    never_answers(&script, 10);
    let breaker = CircuitBreaker::consecutive("breaker", 3).unwrap();
    let attempt = Timeout::new("attempt", Duration::from_millis(50));
    let layers = ServiceBuilder::new().layer(retry(10).layer()).layer(breaker.layer()).layer(attempt.layer());
    let error = layers.service(probe).oneshot("a").await.unwrap_err();
    assert_eq!(error.as_rejection().unwrap().name(), "breaker");
    assert_eq!((script.calls(), breaker.state()), (3, CircuitState::Open));
}

// X2
#[tokio::test(start_paused = true)]
async fn outside_of_the_retry_the_breaker_counts_one_failure_for_each_exhausted_call() {
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
async fn a_retry_over_a_balancer_of_breakers_goes_elsewhere() {
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
    assert_eq!(scripts[0].calls(), 1, "once, and then its circuit was open");
}

// X4, T23
#[tokio::test(start_paused = true)]
async fn the_total_timeout_bounds_attempts_and_backoff() {
    let (script, probe) = Script::new();
    never_answers(&script, 100);
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
async fn a_probe_that_times_out_opens_again() {
    let (script, probe) = Script::new();
    never_answers(&script, 2);
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
async fn an_open_breaker_inside_a_bulkhead_frees_permits_at_once() {
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
async fn a_bulkhead_inside_a_retry_is_free_during_the_backoff_and_one_outside_is_not() {
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

/// All five around a service whose call is pending for a while, cancelled or panicking at each point there is.
fn five(probe: Probe, parts: &Parts) -> impl Service<&'static str, Response = &'static str, Error = BoxError> + use<> {
    ServiceBuilder::new()
        .layer(parts.timeout.layer())
        .layer(parts.retry.layer())
        .layer(parts.limiter.layer())
        .layer(parts.breaker.layer())
        .layer(parts.bulkhead.layer())
        .layer(Timeout::new("attempt", Duration::from_millis(100)).layer())
        .service(probe)
}

// X9, X10
#[tokio::test(start_paused = true)]
async fn cancelled_or_panicking_at_each_point_nothing_is_left_behind() {
    for polls in 0..8 {
        for panics in [false, true] {
            let (script, probe) = Script::new();
            // Pending, then a failure, a backoff, pending, a failure, ...
            for _ in 0..4 {
                script.reply(Reply::Later);
            }
            let all = parts();
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
                    panic!("while it is pending");
                });
                assert!(std::panic::catch_unwind(unwinding).is_err());
            } else {
                drop(call);
            }
            assert_eq!((all.bulkhead.snapshot().in_flight, script.live()), (0, 0), "after {polls} polls");
            assert_eq!(all.breaker.snapshot().probes_in_flight, 0);
            all.breaker.close();
            // For those replies that are still to come later.
            (0..4).for_each(|_| script.answer(Ok("ok")));
            assert!(service.ready().await.unwrap().call("b").await.is_ok(), "after {polls} polls");
        }
    }
}

// G23 for the whole: with one observer for all, the ends add up.
#[tokio::test(start_paused = true)]
async fn one_observer_hears_all_layers() {
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
