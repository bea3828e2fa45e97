//! Counts the cost of a healthy call.

use std::{
    cell::Cell,
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};

use tower_layer::Layer;
use tower_service::Service;

use super::{client, server};
use crate::{
    BoxError,
    circuit_breaker::CircuitBreaker,
    clock::{READINGS, instant},
    shared::{
        striped::tests::REFS,
        thread_id::{stripes, thread_number},
    },
    state::atomics::{Ops, count},
};

/// A service whose response is pending this many times.
#[derive(Clone)]
struct TestService(u32);

struct PendingResponse(Cell<u32>);

impl Future for PendingResponse {
    type Output = Result<u64, BoxError>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        match self.0.get() {
            0 => Poll::Ready(Ok(7)),
            left => {
                self.0.set(left - 1);
                Poll::Pending
            }
        }
    }
}

impl Service<u64> for TestService {
    type Response = u64;
    type Error = BoxError;
    type Future = PendingResponse;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> PendingResponse {
        PendingResponse(Cell::new(self.0))
    }
}

fn call<S: Service<u64, Response = u64>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut response = pin!(service.call(1));
    while response.as_mut().poll(&mut cx).is_pending() {}
}

/// Counts the operations on shared words, the references to shared state and the clock reads of a
/// call in the steady state.
fn cost<S: Service<u64, Response = u64>>(mut service: S) -> (Ops, u32, u32) {
    (0..200).for_each(|_| call(&mut service));
    REFS.set(0);
    READINGS.set(0);
    let ((), ops) = count(|| call(&mut service));
    (ops, REFS.get(), READINGS.get())
}

/// Counts two read-modify-writes per reference, on this thread's reference count.
fn rmws(ops: Ops, refs: u32) -> u32 {
    ops.rmws + 2 * refs
}

#[tokio::test(start_paused = true)]
async fn a_healthy_call_of_the_client_stack_makes_four_read_modify_writes_and_reads_the_clock_twice_at_most() {
    for pending in 0..3 {
        let (ops, refs, readings) = cost(client("c").build().unwrap().layer(TestService(pending)));
        // The test runner may create more threads than there are stripes. Such a thread counts by a
        // swap, in shared cells.
        let shared_cells = u32::from(thread_number() >= stripes());
        assert_eq!((refs, rmws(ops, refs)), (1, 4 + shared_cells), "{ops:?}");
        // One read for the time window, and one for the timer, which is armed once.
        assert_eq!(readings, 1 + u32::from(pending > 0));
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_count_window_a_healthy_call_reads_no_clock_unless_it_waits() {
    for pending in 0..2 {
        let breaker = CircuitBreaker::builder("b").no_time_window().count_window(100).build().unwrap();
        let stack = client("c").circuit_breaker(&breaker).build().unwrap();
        let (ops, refs, readings) = cost(stack.layer(TestService(pending)));
        assert_eq!((rmws(ops, refs), ops.stores, readings), (4, 0, pending), "{ops:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_call_of_the_server_stack_makes_four_read_modify_writes() {
    for pending in 0..2 {
        let (ops, refs, readings) = cost(server("s").build().unwrap().layer(TestService(pending)));
        assert_eq!((rmws(ops, refs), readings), (4, pending), "{ops:?}");
    }
}

/// The total timeout relies on the attempt's timer if that fires first, and on its own timer if
/// not.
#[tokio::test(start_paused = true)]
async fn the_total_timeout_fires_whichever_timer_wakes_the_task() {
    for (total, attempt) in [(50, 40), (50, 49), (50, 30), (50, 10)] {
        let stack = client("c")
            .total_timeout(Duration::from_millis(total))
            .attempt_timeout(Duration::from_millis(attempt))
            .build()
            .unwrap();
        let started = instant();
        let mut service = stack.layer(TestService(u32::MAX));
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let error = service.call(1).await.unwrap_err();
        let elapsed = instant() - started;
        assert!(elapsed <= Duration::from_millis(total + 2), "{elapsed:?} with {attempt} ms per attempt: {error}");
    }
}
