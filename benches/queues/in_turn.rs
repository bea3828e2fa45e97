//! One permit, and a crowd that waits for it: each waiter acquires it when the one before releases
//! it.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;
use tower::{Layer, Service, ServiceExt, limit::GlobalConcurrencyLimitLayer, service_fn};
use tower_rampart::{
    BoxError,
    bulkhead::Bulkhead,
    clock::ManualClock,
    rate_limit::{Rate, RateLimiter},
};

use crate::statistics::{median, ratio};

/// The multiple of tokio's time that a waiter of the bulkhead may take.
const GOAL: f64 = 2.0;

const LIMIT: Duration = Duration::from_secs(60);

struct Row {
    name: &'static str,
    /// The row that it is compared with, and whether the goal applies.
    peer: Option<(usize, bool)>,
    run: Box<dyn Fn(usize) -> Sample>,
}

struct Sample {
    /// From the creation of the first waiter's future to the last one's result.
    time: Duration,
    /// The memory of a crowd that waits, its futures included. `None` for tasks, whose own memory
    /// is larger.
    bytes: Option<u64>,
}

impl Row {
    fn new(name: &'static str, run: impl Fn(usize) -> Sample + 'static) -> Self {
        Self { name, peer: None, run: Box::new(run) }
    }

    fn beside(self, peer: usize) -> Self {
        Self { peer: Some((peer, false)), ..self }
    }

    fn with_goal(self, peer: usize) -> Self {
        Self { peer: Some((peer, true)), ..self }
    }
}

/// Prints the table. Every round runs all rows, in turn.
pub(crate) fn print(crowd: usize, rounds: usize) {
    let rows = rows();
    let mut times: Vec<Vec<f64>> = rows.iter().map(|_| Vec::new()).collect();
    let mut bytes = vec![String::new(); rows.len()];
    for round in 0..=rounds {
        for turn in 0..rows.len() {
            let which = (round + turn) % rows.len();
            let sample = (rows[which].run)(crowd);
            // The first round warms up.
            if round > 0 {
                times[which].push(sample.time.as_nanos() as f64 / crowd as f64);
                bytes[which] = sample.bytes.map_or_else(String::new, |bytes| (bytes / crowd as u64).to_string());
            }
        }
    }
    println!("\n### {crowd} waiters, one after the other\n");
    println!("| | ns each | of the peer's time (95% interval) | at most {GOAL} | bytes each |\n|---|---|---|---|---|");
    for (which, row) in rows.iter().enumerate() {
        let (compared, met) = row.peer.map_or_else(Default::default, |(peer, has_goal)| {
            let (ratio, low, high) = ratio(&times[which], &times[peer]);
            let met = if !has_goal {
                ""
            } else if ratio <= GOAL {
                "met"
            } else {
                "**not met**"
            };
            (format!("{ratio:.2} ({low:.2} to {high:.2}) of {}", rows[peer].name), met)
        });
        println!("| {} | {:.0} | {compared} | {met} | {} |", row.name, median(&times[which]), bytes[which]);
    }
}

fn bulkhead(max_wait: Duration) -> Bulkhead {
    let bulkhead = Bulkhead::builder("k").max_concurrent(1).max_wait(max_wait).max_queue(u32::MAX);
    bulkhead.build().expect("a valid configuration")
}

fn echo() -> impl Service<(), Response = (), Error = BoxError, Future: Send> + Clone + Send + 'static {
    service_fn(async |()| Ok::<_, BoxError>(()))
}

fn rows() -> Vec<Row> {
    let semaphore = || &*Box::leak(Box::new(Semaphore::new(1)));
    let leaked = |max_wait| &*Box::leak(Box::new(bulkhead(max_wait)));
    let (plain, timed, owned, tasks) = (semaphore(), semaphore(), Arc::new(Semaphore::new(1)), semaphore());
    let (unlimited, limited, handled) = (leaked(Duration::MAX), leaked(LIMIT), leaked(LIMIT));
    let (layered, pressed) = (bulkhead(LIMIT), bulkhead(LIMIT));
    let tower = GlobalConcurrencyLimitLayer::with_semaphore(Arc::new(Semaphore::new(1))).layer(echo());
    let clock = ManualClock::new();
    let second = Duration::from_secs(1);
    let limiter = RateLimiter::builder("r", Rate::per_second(1)).burst(1).max_wait(Duration::MAX).clock(clock.clone());
    let limiter = &*Box::leak(Box::new(limiter.build().expect("a valid configuration")));
    vec![
        Row::new("tokio's semaphore", move |crowd| {
            let taken = plain.try_acquire().expect("a free permit");
            polled(crowd, || async { drop(plain.acquire().await) }, || drop(taken), || ())
        }),
        Row::new("bulkhead without a limit of time", move |crowd| {
            let taken = unlimited.try_acquire().expect("a free permit");
            polled(crowd, || async { drop(unlimited.acquire().await) }, || drop(taken), || ())
        })
        .with_goal(0),
        Row::new("bulkhead", move |crowd| {
            let taken = limited.try_acquire().expect("a free permit");
            polled(crowd, || async { drop(limited.acquire().await) }, || drop(taken), || ())
        })
        .with_goal(0),
        Row::new("tokio's semaphore in a timeout", move |crowd| {
            let taken = timed.try_acquire().expect("a free permit");
            let wait = || async { drop(tokio::time::timeout(LIMIT, timed.acquire()).await) };
            polled(crowd, wait, || drop(taken), || ())
        })
        .beside(0),
        Row::new("a service after tokio's semaphore", move |crowd| {
            let taken = owned.try_acquire().expect("a free permit");
            let wait = || {
                let (semaphore, mut service) = (Arc::clone(&owned), echo());
                async move {
                    let _permit = semaphore.acquire_owned().await;
                    let _ = service.call(()).await;
                }
            };
            polled(crowd, wait, || drop(taken), || ())
        }),
        Row::new("bulkhead layer that waits", move |crowd| {
            let service = layered.layer().wait().layer(echo());
            let taken = layered.try_acquire().expect("a free permit");
            let wait = || {
                let mut service = service.clone();
                async move { drop(service.call(()).await) }
            };
            polled(crowd, wait, || drop(taken), || ())
        })
        .with_goal(4),
        Row::new("tower's concurrency limit", move |crowd| {
            let mut service = tower.clone();
            assert!(service.poll_ready(&mut Context::from_waker(Waker::noop())).is_ready());
            polled(crowd, || async { drop(tower.clone().oneshot(()).await) }, || drop(service), || ())
        }),
        Row::new("bulkhead layer with backpressure", move |crowd| {
            let service = pressed.layer().backpressure().layer(echo());
            let taken = pressed.try_acquire().expect("a free permit");
            polled(crowd, || async { drop(service.clone().oneshot(()).await) }, || drop(taken), || ())
        })
        .with_goal(6),
        Row::new("limiter, its clock moved manually", move |crowd| {
            clock.advance(second);
            limiter.check().expect("a token");
            let advance = || clock.advance(second);
            polled(crowd, || async { drop(limiter.acquire(1).await) }, || (), advance)
        })
        .beside(0),
        Row::new("tokio's semaphore, in tasks", move |crowd| {
            let taken = tasks.try_acquire().expect("a free permit");
            spawned(crowd, || async { drop(tasks.acquire().await) }, || drop(taken))
        }),
        Row::new("bulkhead, in tasks", move |crowd| {
            let taken = handled.try_acquire().expect("a free permit");
            spawned(crowd, || async { drop(handled.acquire().await) }, || drop(taken))
        })
        .with_goal(9),
    ]
}

/// Polls the waiters in order: as they join, and once each is granted its permit.
fn polled<F: Future<Output = ()>>(
    crowd: usize,
    wait: impl Fn() -> F,
    release: impl FnOnce(),
    before_grant: impl Fn(),
) -> Sample {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let mut context = Context::from_waker(Waker::noop());
    let mut waiting: Vec<Pin<Box<F>>> = Vec::with_capacity(crowd);
    let mut started = Instant::now();
    let allocated = allocation_counter::measure(|| {
        started = Instant::now();
        waiting.extend((0..crowd).map(|_| Box::pin(wait())));
        waiting.iter_mut().for_each(|waiter| assert!(waiter.as_mut().poll(&mut context).is_pending()));
    });
    release();
    for waiter in &mut waiting {
        before_grant();
        assert_eq!(waiter.as_mut().poll(&mut context), Poll::Ready(()));
    }
    Sample { time: started.elapsed(), bytes: Some(allocated.bytes_current.unsigned_abs()) }
}

/// Spawns the waiters on a runtime, which polls them as they are woken.
fn spawned<F: Future<Output = ()> + Send + 'static>(
    crowd: usize,
    wait: impl Fn() -> F,
    release: impl FnOnce(),
) -> Sample {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let started = Instant::now();
        let tasks: Vec<_> = (0..crowd).map(|_| tokio::spawn(wait())).collect();
        // All tasks are polled before the one that yields.
        tokio::task::yield_now().await;
        release();
        for task in tasks {
            task.await.expect("no task panics");
        }
        Sample { time: started.elapsed(), bytes: None }
    })
}
