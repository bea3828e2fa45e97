//! The cost of waiting, by the number of waiters: every operation of a queue takes a constant time.
//!
//! `cargo bench --bench queues` prints the table, with up to 1,000,000 waiters; `-- --quick` is a
//! smoke test. Each figure is the time of a whole crowd, divided by its size: the waiters join
//! (each is polled once), and go in the way that the row names. tokio's semaphore is beside the
//! bulkhead. A second table has 10,000 waiters of one permit, which each acquire it when the one
//! before releases it, relative to tokio's semaphore; `-- --in-turn` prints only that one.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods)] // the benchmark's clock

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rand::{SeedableRng, rngs::SmallRng, seq::SliceRandom};
use tokio::sync::Semaphore;
use tower::{Layer, Service, service_fn};
use tower_rampart::{BoxError, bulkhead::Bulkhead, circuit_breaker::CircuitBreaker};

mod in_turn;
#[path = "../support/statistics.rs"]
mod statistics;

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A queue: how a waiter joins it, and how all waiters are released.
struct Queue<'a> {
    name: &'static str,
    wait: Box<dyn Fn() -> Boxed<'a> + 'a>,
    release_all: Box<dyn Fn(usize) + 'a>,
}

#[derive(Clone, Copy)]
enum Way {
    InOrder,
    LastFirst,
    AtRandom,
    /// All are polled again, twice, and then leave in order.
    PolledSpuriously,
    /// All are released at once, and polled in order.
    Released,
}

const WAYS: [(Way, &str); 5] = [
    (Way::InOrder, "leave in order"),
    (Way::LastFirst, "leave, last first"),
    (Way::AtRandom, "leave at random"),
    (Way::PolledSpuriously, "are polled twice more, and leave"),
    (Way::Released, "are released at once"),
];

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let crowds: &[usize] = if quick { &[100, 2_000] } else { &[1_000, 10_000, 100_000, 1_000_000] };
    let (crowd, rounds) = if quick { (500, 3) } else { (10_000, 101) };
    in_turn::print(crowd, rounds);
    if std::env::args().any(|argument| argument == "--in-turn") {
        return;
    }
    println!();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();

    let bulkhead = Bulkhead::builder("k")
        .max_concurrent(1)
        .max_wait(Duration::MAX)
        .max_queue(u32::MAX)
        .build()
        .expect("a valid configuration");
    let _permit = bulkhead.try_acquire().expect("a free permit");
    let breaker = CircuitBreaker::new("b");
    let layer = breaker.layer().backpressure();
    let semaphore = Semaphore::new(0);
    let queues = [
        Queue {
            name: "bulkhead",
            wait: Box::new(|| Box::pin(async { std::mem::forget(bulkhead.acquire().await) })),
            // The permits of the released waiters are forgotten, so the bulkhead is full again.
            release_all: Box::new(|crowd| bulkhead.resize(bulkhead.snapshot().limit + crowd as u32).expect("not zero")),
        },
        Queue {
            name: "tokio's semaphore",
            wait: Box::new(|| Box::pin(async { semaphore.acquire().await.expect("it is open").forget() })),
            release_all: Box::new(|crowd| semaphore.add_permits(crowd)),
        },
        Queue {
            name: "breaker",
            wait: Box::new(|| {
                let mut service = layer.layer(service_fn(async |()| Ok::<_, BoxError>(())));
                Box::pin(std::future::poll_fn(move |cx| service.poll_ready(cx).map(|_| ())))
            }),
            release_all: Box::new(|_| breaker.close()),
        },
    ];

    print!("| waiters of | that |");
    crowds.iter().for_each(|crowd| print!(" ns each, of {crowd} |"));
    println!("\n|---|---|{}", "---|".repeat(crowds.len()));
    for queue in &queues {
        for (way, text) in WAYS {
            print!("| {} | {text} |", queue.name);
            for crowd in crowds {
                // The best of three: other processes only add time.
                let times = (0..3).map(|_| {
                    breaker.force_open();
                    let time = measure(queue, *crowd, way);
                    let snapshot = bulkhead.snapshot();
                    assert_eq!((snapshot.in_flight, snapshot.waiting, snapshot.reserved), (snapshot.limit, 0, 0));
                    time
                });
                let best = times.min().expect("three times");
                print!(" {:.0} |", best.as_nanos() as f64 / *crowd as f64);
            }
            println!();
        }
    }
}

fn measure(queue: &Queue<'_>, crowd: usize, way: Way) -> Duration {
    let mut waiters: Vec<_> = (0..crowd).map(|_| Some((queue.wait)())).collect();
    let joined = timed(|| poll(&mut waiters, Poll::Pending));
    match way {
        Way::LastFirst => waiters.reverse(),
        Way::AtRandom => waiters.shuffle(&mut SmallRng::seed_from_u64(7)),
        Way::InOrder | Way::PolledSpuriously | Way::Released => {}
    }
    let left = timed(|| {
        match way {
            Way::PolledSpuriously => (0..2).for_each(|_| poll(&mut waiters, Poll::Pending)),
            Way::Released => {
                (queue.release_all)(crowd);
                poll(&mut waiters, Poll::Ready(()));
            }
            Way::InOrder | Way::LastFirst | Way::AtRandom => {}
        }
        waiters.iter_mut().for_each(|waiter| drop(waiter.take()));
    });
    joined + left
}

fn poll(waiters: &mut [Option<Boxed<'_>>], expected: Poll<()>) {
    let mut context = Context::from_waker(Waker::noop());
    for waiter in waiters.iter_mut().flatten() {
        assert_eq!(waiter.as_mut().poll(&mut context), expected);
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
