//! Successful and rejected calls allocate nothing in any layer: item G27 of the contract.

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

/// A typed error, so that a rejection needs no box.
type Failure = Error<Infallible>;

/// Responds immediately with the request.
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

/// Asserts that calls through `layer` succeed and allocate nothing.
#[track_caller]
fn assert_allocates_nothing<L>(layer: L)
where
    L: Layer<Echo>,
    L::Service: Service<u32, Response = u32, Error = Failure>,
{
    assert_eq!(assert_calls_allocate_nothing(layer.layer(Echo), 7).unwrap(), 7);
}

/// Asserts that calls through `layer` are rejected, from the second one on at the latest, and
/// allocate nothing.
#[track_caller]
fn assert_rejects_without_allocating<L>(layer: L)
where
    L: Layer<Echo>,
    L::Service: Service<u32, Response = u32, Error = Failure> + Clone,
{
    let service = layer.layer(Echo);
    let _ = assert_calls_allocate_nothing(service.clone(), 7);
    let error = assert_calls_allocate_nothing(service, 7).unwrap_err();
    assert!(matches!(error, Error::Rejected(_)));
}

fn no_op(_: &Event<'_>) {}

const LIMIT: Duration = Duration::from_secs(1);

fn high_rate() -> Rate {
    Rate::per_second(1_000_000)
}

#[test]
fn the_allocation_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(Box::new(1))));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn a_timeout_allocates_nothing() {
    assert_allocates_nothing(Timeout::new("t", LIMIT).layer());
    assert_allocates_nothing(Timeout::new(String::from("named at run time"), LIMIT).layer());
    assert_allocates_nothing(Timeout::builder("t", LIMIT).observer(no_op).build().layer());
    assert_allocates_nothing(
        Timeout::new("t", LIMIT).layer().per_request(|millis: &u32| Some(Duration::from_millis((*millis).into()))),
    );
}

#[test]
fn a_bulkhead_allocates_nothing() {
    let bulkhead = Bulkhead::new("b", 2).unwrap();
    assert_allocates_nothing(bulkhead.layer());
    assert_allocates_nothing(bulkhead.layer().backpressure());
    assert_allocates_nothing(bulkhead.layer().wait());
    let full = Bulkhead::new("b", 1).unwrap();
    let _permit = full.try_acquire().unwrap();
    assert_rejects_without_allocating(full.layer());
}

#[test]
fn a_rate_limiter_allocates_nothing() {
    let limiter = RateLimiter::new("r", high_rate()).unwrap();
    assert_allocates_nothing(limiter.layer());
    assert_allocates_nothing(limiter.layer().cost(|request: &u32| *request));
    assert_allocates_nothing(limiter.layer().backpressure());
    assert_allocates_nothing(limiter.layer().wait());
    let exhausted = RateLimiter::new("r", Rate::per_hour(1)).unwrap();
    exhausted.check().unwrap();
    assert_rejects_without_allocating(exhausted.layer());
}

#[test]
fn a_keyed_rate_limiter_allocates_nothing_for_a_known_key() {
    let limiter = KeyedRateLimiter::<u32>::builder("k", Rate::per_second(1_000)).max_keys(1_000).build().unwrap();
    assert_allocates_nothing(limiter.layer(|request: &u32| Some(*request)));
}

#[test]
fn a_circuit_breaker_allocates_nothing() {
    let breaker = CircuitBreaker::new("c");
    assert_allocates_nothing(breaker.layer());
    assert_allocates_nothing(breaker.layer().backpressure());
    assert_allocates_nothing(CircuitBreaker::builder("c").slow_calls(LIMIT, 0.5).build().unwrap().layer());
    breaker.force_open();
    assert_rejects_without_allocating(breaker.layer());
}

#[test]
fn a_retry_allocates_nothing() {
    assert_allocates_nothing(Retry::attempts("y", 3).unwrap().layer());
}

#[test]
fn a_fallback_allocates_nothing() {
    assert_allocates_nothing(Fallback::value("f", 1_u32));
    let list_price = |request: u32, _error: Result<u32, Failure>| ready(Ok(request));
    assert_allocates_nothing(Fallback::function("f", list_price));
    assert_allocates_nothing(Fallback::service("f", Echo));

    // Also when the fallback is served.
    let bulkhead = Bulkhead::new("b", 1).unwrap();
    let _permit = bulkhead.try_acquire().unwrap();
    assert_allocates_nothing(ServiceBuilder::new().layer(Fallback::function("f", list_price)).layer(bulkhead.layer()));
    assert_allocates_nothing(ServiceBuilder::new().layer(Fallback::service("f", Echo)).layer(bulkhead.layer()));
}

#[test]
fn the_ready_made_stacks_allocate_nothing() {
    assert_allocates_nothing(stack::client("c").build().unwrap());
    assert_allocates_nothing(stack::server("s").build().unwrap());
}

#[test]
fn handles_without_tower_allocate_nothing() {
    let work = || ready(Ok::<_, Rejection>(1));
    let (timeout, bulkhead) = (Timeout::new("t", LIMIT), Bulkhead::new("b", 1).unwrap());
    let (limiter, breaker) = (RateLimiter::new("r", high_rate()).unwrap(), CircuitBreaker::new("c"));
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
