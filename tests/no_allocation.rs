//! A call that is well allocates nothing, in any layer; nor does one that is refused. Item G27.

#[path = "support/alloc.rs"]
mod alloc;
mod support;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
    time::Duration,
};

use alloc::assert_calls_allocate_nothing;
use tower::{Layer, Service, ServiceBuilder};
use tower_rampart::{
    Error, Event, Rejection,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    fallback::Fallback,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::Retry,
    stack,
    timeout::Timeout,
};

/// The service's error is typed, so that a rejection needs no box.
type Failure = Error<Infallible>;

/// Answers at once with the request.
#[derive(Clone)]
struct Echo;

impl Service<u32> for Echo {
    type Response = u32;
    type Error = Failure;
    type Future = Ready<Result<u32, Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

/// Calls through `layer` allocate nothing and are answered.
#[track_caller]
fn assert_free<L>(layer: L)
where
    L: Layer<Echo>,
    L::Service: Service<u32, Response = u32, Error = Failure>,
{
    assert_eq!(assert_calls_allocate_nothing(layer.layer(Echo), 7).unwrap(), 7);
}

/// Calls through `layer` allocate nothing and are refused, at the latest from the second one on.
#[track_caller]
fn assert_free_to_refuse<L>(layer: L)
where
    L: Layer<Echo>,
    L::Service: Service<u32, Response = u32, Error = Failure> + Clone,
{
    let service = layer.layer(Echo);
    let _ = assert_calls_allocate_nothing(service.clone(), 7);
    let refused = assert_calls_allocate_nothing(service, 7).unwrap_err();
    assert!(matches!(refused, Error::Rejected(_)));
}

fn deaf(_: &Event<'_>) {}

const LIMIT: Duration = Duration::from_secs(1);

fn plenty() -> Rate {
    Rate::per_second(1_000_000)
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn a_timeout_allocates_nothing() {
    assert_free(Timeout::new("t", LIMIT).layer());
    assert_free(Timeout::new(String::from("named at run time"), LIMIT).layer());
    assert_free(Timeout::builder("t", LIMIT).observer(deaf).build().layer());
    assert_free(
        Timeout::new("t", LIMIT).layer().per_request(|millis: &u32| Some(Duration::from_millis((*millis).into()))),
    );
}

#[test]
fn a_bulkhead_allocates_nothing() {
    let bulkhead = Bulkhead::new("b", 2).unwrap();
    assert_free(bulkhead.layer());
    assert_free(bulkhead.layer().backpressure());
    assert_free(bulkhead.layer().wait());
    let full = Bulkhead::new("b", 1).unwrap();
    let _only = full.try_acquire().unwrap();
    assert_free_to_refuse(full.layer());
}

#[test]
fn a_rate_limiter_allocates_nothing() {
    let limiter = RateLimiter::new("r", plenty()).unwrap();
    assert_free(limiter.layer());
    assert_free(limiter.layer().cost(|request: &u32| *request));
    assert_free(limiter.layer().backpressure());
    assert_free(limiter.layer().wait());
    let spent = RateLimiter::new("r", Rate::per_hour(1)).unwrap();
    spent.check().unwrap();
    assert_free_to_refuse(spent.layer());
}

#[test]
fn a_keyed_rate_limiter_allocates_nothing_for_a_key_it_knows() {
    let limiter = KeyedRateLimiter::<u32>::builder("k", Rate::per_second(1_000)).max_keys(1_000).build().unwrap();
    assert_free(limiter.layer(|request: &u32| Some(*request)));
}

#[test]
fn a_circuit_breaker_allocates_nothing() {
    let breaker = CircuitBreaker::new("c");
    assert_free(breaker.layer());
    assert_free(breaker.layer().backpressure());
    assert_free(CircuitBreaker::builder("c").slow_calls(LIMIT, 0.5).build().unwrap().layer());
    breaker.force_open();
    assert_free_to_refuse(breaker.layer());
}

#[test]
fn a_retry_allocates_nothing() {
    assert_free(Retry::attempts("y", 3).unwrap().layer());
}

#[test]
fn a_fallback_allocates_nothing() {
    assert_free(Fallback::value("f", 1_u32));
    let list_price = |request: u32, _error: Result<u32, Failure>| ready(Ok(request));
    assert_free(Fallback::function("f", list_price));
    assert_free(Fallback::service("f", Echo));

    // Nor when it serves.
    let bulkhead = Bulkhead::new("b", 1).unwrap();
    let _only = bulkhead.try_acquire().unwrap();
    assert_free(ServiceBuilder::new().layer(Fallback::function("f", list_price)).layer(bulkhead.layer()));
    assert_free(ServiceBuilder::new().layer(Fallback::service("f", Echo)).layer(bulkhead.layer()));
}

#[test]
fn the_ready_made_stacks_allocate_nothing() {
    assert_free(stack::client("c").build().unwrap());
    assert_free(stack::server("s").build().unwrap());
}

#[test]
fn use_without_tower_allocates_nothing() {
    let work = || ready(Ok::<_, Rejection>(1));
    let (timeout, bulkhead) = (Timeout::new("t", LIMIT), Bulkhead::new("b", 1).unwrap());
    let (limiter, breaker) = (RateLimiter::new("r", plenty()).unwrap(), CircuitBreaker::new("c"));
    let all = || {
        assert!(support::poll_once(timeout.run(work())).is_ready());
        assert!(support::poll_once(bulkhead.run(work())).is_ready());
        assert!(support::poll_once(limiter.run(work())).is_ready());
        assert!(support::poll_once(breaker.run(work())).is_ready());
        drop((bulkhead.try_acquire().unwrap(), breaker.try_acquire().unwrap()));
        limiter.check().unwrap();
    };
    all();
    assert_eq!(allocation_counter::measure(all).count_total, 0);
}
