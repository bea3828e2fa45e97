//! G27: a healthy call through a layer allocates nothing, once the thread's reference line is there.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    future::{Future, Ready, ready},
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower::{Layer, Service};
use tower_rampart::{
    BoxError,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    fallback::Fallback,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::Retry,
    stack,
    timeout::Timeout,
};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[allow(unsafe_code)] // an allocator is; the library forbids it
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Ready at once, and allocates nothing.
#[derive(Clone)]
struct Plain;

impl Service<u64> for Plain {
    type Response = u64;
    type Error = BoxError;
    type Future = Ready<Result<u64, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Self::Future {
        ready(Ok(request))
    }
}

fn call<S: Service<u64, Response = u64, Error = BoxError>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(matches!(service.poll_ready(&mut cx), Poll::Ready(Ok(()))));
    assert!(matches!(pin!(service.call(7)).poll(&mut cx), Poll::Ready(Ok(7))));
}

#[track_caller]
fn allocates_nothing<L>(layer: &L)
where
    L: Layer<Plain>,
    L::Service: Service<u64, Response = u64, Error = BoxError>,
{
    let mut service = layer.layer(Plain);
    call(&mut service);
    let before = ALLOCATIONS.get();
    for _ in 0..100 {
        call(&mut service);
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
}

#[test]
fn a_healthy_call_allocates_nothing() {
    let breaker = CircuitBreaker::builder("b").count_window(100).consecutive_failures(5).build().unwrap();
    allocates_nothing(&breaker.layer());
    allocates_nothing(&breaker.layer().backpressure());
    let bulkhead = Bulkhead::new("k", 2).unwrap();
    allocates_nothing(&bulkhead.layer());
    allocates_nothing(&bulkhead.layer().wait());
    allocates_nothing(&bulkhead.layer().backpressure());
    let limiter = RateLimiter::new("l", Rate::per_second(1_000_000)).unwrap();
    allocates_nothing(&limiter.layer());
    allocates_nothing(&limiter.layer().wait());
    allocates_nothing(&limiter.layer().backpressure());
    let keyed = KeyedRateLimiter::<u64>::builder("u", Rate::per_second(10_000)).build().unwrap();
    allocates_nothing(&keyed.layer(|request: &u64| Some(*request)));
    allocates_nothing(&Retry::attempts("r", 3).unwrap().layer());
    allocates_nothing(&Timeout::new("t", Duration::from_secs(1)).layer());
    allocates_nothing(&Timeout::new(String::from("dynamic"), Duration::from_secs(1)).layer());
    allocates_nothing(&Fallback::value("f", 1_u64));
    allocates_nothing(&stack::client("c").build().unwrap());
    allocates_nothing(&stack::server("s").build().unwrap());
}
