//! The ready-made stacks.

mod support;

use std::time::Duration;

use support::{
    BoxError,
    probe::{Reply, Script},
    recorder::Recorder,
};
use tower::{Layer, ServiceExt, service_fn};
use tower_rampart::{
    AsRejection, DefaultClassifier, Name, Rejection, ServiceBuilderExt, Verdict,
    bulkhead::Bulkhead,
    circuit_breaker::{CircuitBreaker, CircuitState},
    fallback::Fallback,
    per_key::PerKey,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Retry, RetryBudget},
    stack,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_client_stack_applies_its_layers_in_the_documented_order() {
    let (script, probe) = Script::new();
    let recorder = Recorder::new();
    let stack = stack::client("db").observer(recorder.clone()).build().unwrap();
    script.reply(Reply::Err("boom".into()));
    assert_eq!(stack.layer(probe.clone()).oneshot("a").await.unwrap(), "ok");
    assert_eq!(script.calls(), 2, "retried once");
    let lines = recorder.take();
    let order: Vec<_> = lines.iter().map(String::as_str).collect();
    // The layers from the outside in: total timeout, retry, breaker, bulkhead, attempt timeout. The
    // first attempt fails through the inner three.
    assert_eq!(
        order[..8],
        [
            "admitted",
            "admitted",
            "admitted",
            "admitted",
            "admitted",
            "completed failure",
            "completed failure",
            "completed failure",
        ]
    );
    assert!(order[8].starts_with("retry 2 in "), "{order:?}");
    assert_eq!(lines.iter().filter(|line| *line == "completed success").count(), 5);

    let breaker = stack.circuit_breaker().unwrap();
    breaker.force_open();
    let error = stack.layer(probe).oneshot("b").await.unwrap_err();
    assert!(matches!(error.as_rejection(), Some(Rejection::CircuitOpen { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_attempt_timeout_limits_an_attempt_and_the_total_timeout_the_call() {
    let (script, probe) = Script::new();
    for _ in 0..10 {
        script.reply(Reply::Later);
    }
    let stack = stack::client("db").total_timeout(SECOND).attempt_timeout(SECOND / 4).build().unwrap();
    let error = stack.layer(probe.clone()).oneshot("a").await.unwrap_err();
    assert_eq!(error.as_rejection().unwrap().name(), "db.attempt", "not idempotent: one attempt");
    let stack = stack::client("db").total_timeout(SECOND).without_attempt_timeout().build().unwrap();
    let error = stack.layer(probe).oneshot("b").await.unwrap_err();
    assert_eq!(error.as_rejection().unwrap().name(), "db");
}

#[tokio::test(start_paused = true)]
async fn every_part_can_be_left_out_or_replaced() {
    let (script, probe) = Script::new();
    script.reply(Reply::Err("boom".into()));
    let bare = stack::client("db")
        .without_total_timeout()
        .without_retry()
        .without_circuit_breaker()
        .without_bulkhead()
        .without_attempt_timeout()
        .build()
        .unwrap();
    assert_eq!(bare.layer(probe.clone()).oneshot("a").await.unwrap_err().to_string(), "boom");
    assert_eq!(
        bare.to_string(),
        "client stack `db`:  -> service".replace(":  ->", ": service").replace(" service service", " service")
    );

    let breaker = CircuitBreaker::consecutive("mine", 1).unwrap();
    let bulkhead = Bulkhead::new("mine", 1).unwrap();
    let limiter = RateLimiter::new("mine", Rate::per_hour(3)).unwrap();
    let retry = Retry::attempts("mine", 1).unwrap();
    let stack = stack::client("db")
        .circuit_breaker(&breaker)
        .bulkhead(&bulkhead)
        .rate_limiter(&limiter)
        .retry(&retry)
        .classify_with(|result: Result<&&'static str, &BoxError>| match result {
            Ok(&"bad") => Verdict::Failure,
            _ => Verdict::Success,
        })
        .fallback(Fallback::value("db", "instead"))
        .build()
        .unwrap();
    script.reply(Reply::Ok("bad"));
    assert_eq!(stack.layer(probe.clone()).oneshot("b").await.unwrap(), "bad");
    assert_eq!(breaker.state(), CircuitState::Open);
    assert_eq!(
        stack.layer(probe.clone()).oneshot("c").await.unwrap(),
        "instead",
        "the fallback replaces the rejection"
    );
    breaker.close();
    let _permit = bulkhead.try_acquire().unwrap();
    assert_eq!(stack.layer(probe.clone()).oneshot("d").await.unwrap(), "instead");
    assert_eq!(limiter.snapshot().available, 0, "three calls took three tokens");
    assert_eq!(script.calls(), 2);
}

// R31, R40
#[tokio::test(start_paused = true)]
async fn a_call_that_timed_out_is_made_once_whatever_the_classifier() {
    for idempotent in [false, true] {
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = calls.clone();
        let hung = service_fn(move |_: &'static str| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            std::future::pending::<Result<(), BoxError>>()
        });
        let stack = stack::client("db")
            .attempt_timeout(SECOND)
            .classify(|result: Result<&(), &BoxError>| if result.is_ok() { Verdict::Success } else { Verdict::Failure })
            .idempotent_if(move |_: &&'static str| idempotent)
            .build()
            .unwrap();
        let error = stack.layer(hung).oneshot("post").await.unwrap_err();
        assert!(matches!(error.as_rejection(), Some(Rejection::TimedOut { attempted: true, .. })), "{error}");
        assert_eq!(calls.load(std::sync::atomic::Ordering::Relaxed), if idempotent { 3 } else { 1 });
    }
}

#[test]
fn contradictory_configurations_do_not_build() {
    let field = |result: Result<stack::ClientStack, _>| {
        let error: tower_rampart::ConfigError = result.expect_err("the configuration contradicts itself");
        error.field()
    };
    let client = || stack::client("db").total_timeout(SECOND);
    assert_eq!(field(stack::client("db").total_timeout(Duration::ZERO).build()), "total_timeout");
    assert_eq!(field(client().attempt_timeout(SECOND).build()), "attempt_timeout");
    assert_eq!(field(client().attempt_timeout(SECOND * 2).build()), "attempt_timeout");
    let budget = RetryBudget::default();
    assert_eq!(field(stack::client("db").retry_budget(&budget).without_retry().build()), "retry_budget");
    let retry = Retry::attempts("r", 2).unwrap();
    assert_eq!(field(stack::client("db").retry_budget(&budget).retry(&retry).build()), "retry_budget");
    assert!(stack::client("db").retry_budget(&budget).build().is_ok());
    let client = || client().attempt_timeout(SECOND / 4);
    let retry = Retry::builder("r").deadline(SECOND * 2).build().unwrap();
    assert_eq!(field(client().retry(&retry).build()), "retry");
    let bulkhead = Bulkhead::builder("k").max_wait(SECOND).build().unwrap();
    assert_eq!(field(client().bulkhead(&bulkhead).build()), "bulkhead");
    let limiter = RateLimiter::smooth("l", Rate::per_second(1), SECOND * 3).unwrap();
    assert_eq!(field(client().rate_limiter(&limiter).build()), "rate_limiter");
    let breaker = CircuitBreaker::builder("b").slow_calls(SECOND / 2, 0.5).build().unwrap();
    assert_eq!(field(client().circuit_breaker(&breaker).build()), "circuit_breaker");
    let server = stack::server("api").total_timeout(SECOND);
    assert_eq!(server.bulkhead(&bulkhead).build().unwrap_err().field(), "bulkhead");
    let server = stack::server("api").total_timeout(SECOND);
    assert_eq!(server.rate_limiter(&limiter).build().unwrap_err().field(), "rate_limiter");
}

// Only limits that were set can contradict each other.
#[test]
fn defaults_follow_the_limits_that_were_set() {
    let ms = Duration::from_millis;
    let limits = |builder: stack::ClientBuilder| {
        let stack = builder.build().unwrap();
        (stack.total_timeout().unwrap().limit(), stack.attempt_timeout().unwrap().limit())
    };
    let client = || stack::client("db");
    assert_eq!(limits(client()), (SECOND * 5, SECOND * 2));
    assert_eq!(limits(client().total_timeout(SECOND)), (SECOND, ms(800)));
    assert_eq!(limits(client().total_timeout(SECOND * 2)), (SECOND * 2, ms(1600)));
    assert_eq!(limits(client().total_timeout(SECOND * 3)), (SECOND * 3, SECOND * 2));
    assert_eq!(limits(client().total_timeout(Duration::from_nanos(1))).0, Duration::from_nanos(1));
    assert_eq!(limits(client().attempt_timeout(SECOND * 8)), (SECOND * 10, SECOND * 8));
    assert_eq!(limits(client().attempt_timeout(SECOND * 3)), (SECOND * 5, SECOND * 3));
    assert_eq!(limits(client().attempt_timeout(Duration::MAX)).1, Duration::MAX);
    let bulkhead = Bulkhead::builder("k").max_wait(SECOND * 10).build().unwrap();
    assert_eq!(limits(client().bulkhead(&bulkhead)), (SECOND * 15, SECOND * 2));
    let limiter = RateLimiter::smooth("l", Rate::per_second(1), SECOND * 10).unwrap();
    assert_eq!(limits(client().rate_limiter(&limiter)), (SECOND * 15, SECOND * 2));
    let retry = Retry::builder("r").deadline(SECOND * 30).build().unwrap();
    assert_eq!(limits(client().retry(&retry)), (SECOND * 30, SECOND * 2));
    let breaker = CircuitBreaker::builder("b").slow_calls(SECOND * 4, 0.5).build().unwrap();
    assert_eq!(limits(client().circuit_breaker(&breaker)), (ms(6250), SECOND * 5));
    // All of them at once, at both ends of the range.
    for limit in [Duration::from_nanos(1), ms(1), SECOND, SECOND * 3600] {
        let bulkhead = Bulkhead::builder("k").max_wait(limit).build().unwrap();
        let limiter = RateLimiter::smooth("l", Rate::per_second(1), limit).unwrap();
        let breaker = CircuitBreaker::builder("b").slow_calls(limit, 0.5).build().unwrap();
        let retry = Retry::builder("r").deadline(limit).build().unwrap();
        client().bulkhead(&bulkhead).rate_limiter(&limiter).circuit_breaker(&breaker).retry(&retry).build().unwrap();
        stack::server("api").bulkhead(&bulkhead).rate_limiter(&limiter).build().unwrap();
        client().total_timeout(limit).build().unwrap();
        stack::server("api").total_timeout(limit).build().unwrap();
    }
}

#[test]
fn a_configuration_error_names_the_instance() {
    let error = stack::client("db").total_timeout(Duration::ZERO).build().unwrap_err();
    assert_eq!(error.to_string(), "invalid `total_timeout` of `db`: is zero: no call could complete");
    assert_eq!((error.name().unwrap().as_str(), error.field()), ("db", "total_timeout"));
    assert_eq!(stack::server("api").total_timeout(Duration::ZERO).build().unwrap_err().name().unwrap(), "api");
    assert_eq!(Retry::attempts("r", 0).unwrap_err().name().unwrap(), "r");
    assert_eq!(Retry::attempts("r", 1).unwrap().set_max_attempts(0).unwrap_err().name().unwrap(), "r");
    assert_eq!(Bulkhead::new("k", 0).unwrap_err().name().unwrap(), "k");
    assert_eq!(Bulkhead::new("k", 1).unwrap().resize(0).unwrap_err().name().unwrap(), "k");
    assert_eq!(RateLimiter::new("l", Rate::per_second(0)).unwrap_err().name().unwrap(), "l");
    let limiter = RateLimiter::new("l", Rate::per_second(1)).unwrap();
    assert_eq!(limiter.set_rate(Rate::per_second(1), 0).unwrap_err().name().unwrap(), "l");
    assert_eq!(
        KeyedRateLimiter::<u32>::builder("keys", Rate::per_second(0)).build().unwrap_err().name().unwrap(),
        "keys"
    );
    assert_eq!(CircuitBreaker::builder("b").probes(0).build().unwrap_err().name().unwrap(), "b");
    let make = |_: Name| Bulkhead::new("part", 0);
    assert_eq!(PerKey::<u32, _>::builder("map", make).max_keys(0).build().unwrap_err().name().unwrap(), "map");
    assert_eq!(PerKey::<u32, _>::builder("map", make).build().unwrap_err().name().unwrap(), "part");
    let error = RetryBudget::builder().ratio(-1.0).build().unwrap_err();
    assert_eq!((error.name(), error.to_string().starts_with("invalid `ratio`: ")), (None, true));
}

#[test]
fn a_stack_displays_its_layers_and_settings() {
    let limiter = RateLimiter::new("l", Rate::per_second(50)).unwrap();
    let stack = stack::client("db").total_timeout(SECOND * 3).rate_limiter(&limiter).build().unwrap();
    assert_eq!(
        stack.to_string(),
        "client stack `db`: total timeout 3s -> retry (3 attempts, budget 0.1 of successes, 2 at most) -> \
         rate limiter (50 per 1s, burst 50, waits 0ns) -> \
         circuit breaker (trips at 80% failures in the last 10s (from 20 calls on); open 1s) -> \
         bulkhead (64 at once, waits 0ns) -> attempt timeout 2s -> service"
    );
    let server = stack::server("api").build().unwrap();
    assert_eq!(
        server.to_string(),
        "server stack `api`: total timeout 10s -> bulkhead (256 at once, waits 100ms) -> service"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_stack_responds_for_an_infallible_service() {
    let bulkhead = Bulkhead::new("api", 1).unwrap();
    let stack = stack::server("api").bulkhead(&bulkhead).build().unwrap();
    let never_fails = service_fn(|request: &'static str| async move { Ok::<_, std::convert::Infallible>(request) });
    let service = stack.respond(|rejection: Rejection| rejection.reason()).layer(never_fails);
    assert_eq!(service.clone().oneshot("fine").await.unwrap(), "fine");
    let _permit = bulkhead.try_acquire().unwrap();
    assert_eq!(service.oneshot("rejected").await.unwrap(), "bulkhead_full");
}

#[tokio::test]
async fn the_service_builder_extension_adds_every_layer() {
    let (_, probe) = Script::new();
    let service = tower::ServiceBuilder::new()
        .fallback(Fallback::value("f", "instead"))
        .time_limit(&tower_rampart::timeout::Timeout::new("t", SECOND))
        .retries(&Retry::attempts("r", 2).unwrap(), DefaultClassifier)
        .rate_limiter(&RateLimiter::new("l", Rate::per_hour(1)).unwrap())
        .circuit_breaker(&CircuitBreaker::new("b"), DefaultClassifier)
        .bulkhead(&Bulkhead::new("k", 1).unwrap())
        .service(probe);
    assert_eq!(service.clone().oneshot("a").await.unwrap(), "ok");
    assert_eq!(service.oneshot("b").await.unwrap(), "instead", "the limiter rejected it");
}

#[tokio::test(start_paused = true)]
#[allow(clippy::disallowed_methods)] // the time is paused
async fn a_stack_without_timeouts_leaves_the_deadline_of_a_scope_to_others() {
    let slow = |n: u32| async move {
        tokio::time::sleep(2 * SECOND).await;
        Ok::<_, BoxError>(n)
    };
    let client = stack::client("db").without_total_timeout().without_attempt_timeout().build().unwrap();
    let server = stack::server("db").without_total_timeout().build().unwrap();
    let at = tokio::time::Instant::now() + SECOND;
    let calls = async {
        let client = client.layer(service_fn(slow)).oneshot(1).await;
        (client.unwrap(), server.layer(service_fn(slow)).oneshot(2).await.unwrap())
    };
    assert_eq!(tower_rampart::deadline::scope(at, calls).await, (1, 2));
}
