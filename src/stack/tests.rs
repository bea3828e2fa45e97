//! What a healthy call costs, counted.

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

/// Pending so many times.
#[derive(Clone)]
struct Inner(u32);

struct Answer(Cell<u32>);

impl Future for Answer {
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

impl Service<u64> for Inner {
    type Response = u64;
    type Error = BoxError;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: u64) -> Answer {
        Answer(Cell::new(self.0))
    }
}

fn call<S: Service<u64, Response = u64>>(service: &mut S) {
    let mut cx = Context::from_waker(Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let mut response = pin!(service.call(1));
    while response.as_mut().poll(&mut cx).is_pending() {}
}

/// Operations on shared words, shares of handles, and readings of the clock, of a call in the steady state.
fn cost<S: Service<u64, Response = u64>>(mut service: S) -> (Ops, u32, u32) {
    (0..200).for_each(|_| call(&mut service));
    REFS.set(0);
    READINGS.set(0);
    let ((), ops) = count(|| call(&mut service));
    (ops, REFS.get(), READINGS.get())
}

/// A hold is two read-modify-writes, on the count of this thread.
fn rmws(ops: Ops, holds: u32) -> u32 {
    ops.rmws + 2 * holds
}

#[tokio::test(start_paused = true)]
async fn a_healthy_call_of_the_client_stack_makes_four_read_modify_writes_and_reads_the_clock_twice_at_most() {
    for pending in 0..3 {
        let (ops, holds, readings) = cost(client("c").build().unwrap().layer(Inner(pending)));
        // A thread beyond the number of stripes, such as the tests' runner makes, counts in cells that are swapped.
        let shared_cells = u32::from(thread_number() >= stripes());
        assert_eq!((holds, rmws(ops, holds)), (1, 4 + shared_cells), "{ops:?}");
        // The time window, and the timer that is armed once.
        assert_eq!(readings, 1 + u32::from(pending > 0));
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_count_window_it_reads_no_clock_unless_it_waits() {
    for pending in 0..2 {
        let breaker = CircuitBreaker::builder("b").no_time_window().count_window(100).build().unwrap();
        let stack = client("c").circuit_breaker(&breaker).build().unwrap();
        let (ops, holds, readings) = cost(stack.layer(Inner(pending)));
        assert_eq!((rmws(ops, holds), ops.stores, readings), (4, 0, pending), "{ops:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_healthy_call_of_the_server_stack_makes_four_read_modify_writes() {
    for pending in 0..2 {
        let (ops, holds, readings) = cost(server("s").build().unwrap().layer(Inner(pending)));
        assert_eq!((rmws(ops, holds), readings), (4, pending), "{ops:?}");
    }
}

/// The total timeout relies on the timer of the attempt while that comes first, and on its own when that is too late.
#[tokio::test(start_paused = true)]
async fn the_total_timeout_fires_whichever_timer_wakes_the_task() {
    for (total, attempt) in [(50, 40), (50, 49), (50, 30), (50, 10)] {
        let stack = client("c")
            .total_timeout(Duration::from_millis(total))
            .attempt_timeout(Duration::from_millis(attempt))
            .build()
            .unwrap();
        let begun = instant();
        let mut service = stack.layer(Inner(u32::MAX));
        std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
        let error = service.call(1).await.unwrap_err();
        let took = instant() - begun;
        assert!(took <= Duration::from_millis(total + 2), "{took:?} with {attempt} ms an attempt: {error}");
    }
}
