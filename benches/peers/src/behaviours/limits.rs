//! Rate limiters and bulkheads.

use std::{future::pending, pin::pin, time::Duration};

use tower::{Layer, Service, ServiceExt, service_fn};
use tower_rampart::{
    bulkhead::Bulkhead,
    clock::ManualClock,
    rate_limit::{Rate, RateLimiter},
};
use tower_resilience::{bulkhead::BulkheadLayer, ratelimiter::RateLimiterLayer};

use super::{Behaviour, Seen, paused, poll, running};
use crate::inner::Fault;

const SECOND: Duration = Duration::from_secs(1);

fn edges() -> Behaviour {
    /// Within a tenth of a second.
    fn seen(most: usize) -> Seen {
        Seen::new(most <= 11, format!("{most} calls within 100 ms"))
    }
    /// The most calls in any tenth of a second, of those that passed at these milliseconds.
    fn most(passed: &[u64]) -> usize {
        let within = |from: u64| passed.iter().filter(|at| (from..=from + 100).contains(at)).count();
        passed.iter().map(|from| within(*from)).max().unwrap_or(0)
    }
    Behaviour {
        question: "\"10 per second\", asked for one and then, from 950 ms on, for all it gives: how many at once?",
        programs: vec![
            ("rampart", || {
                let clock = ManualClock::new();
                let limiter = RateLimiter::builder("l", Rate::per_second(10)).clock(clock.clone()).build();
                let limiter = limiter.expect("it is well set");
                let mut passed = Vec::new();
                for millis in 0..1100 {
                    if (millis == 0 || millis >= 950) && limiter.check().is_ok() {
                        passed.push(millis);
                        while limiter.check().is_ok() {
                            passed.push(millis);
                        }
                    }
                    clock.advance(Duration::from_millis(1));
                }
                // The first asks for one only.
                seen(most(&passed.into_iter().filter(|at| *at >= 950).collect::<Vec<_>>()))
            }),
            ("tower", || {
                paused(async {
                    let layer = tower::limit::RateLimitLayer::new(10, SECOND);
                    let mut service = layer.layer(service_fn(|()| async { Ok::<_, Fault>(()) }));
                    let start = tokio::time::Instant::now();
                    let mut passed = Vec::new();
                    let _ = service.ready().await.expect("ready").call(()).await;
                    tokio::time::sleep(Duration::from_millis(950)).await;
                    for _ in 0..19 {
                        let _ = service.ready().await.expect("ready").call(()).await;
                        passed.push(start.elapsed().as_millis() as u64);
                    }
                    seen(most(&passed))
                })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = RateLimiterLayer::builder().limit_for_period(10).refresh_period(SECOND);
                    let layer = layer.timeout_duration(Duration::ZERO).build().expect("it is well set");
                    let mut service = layer.layer(service_fn(|()| async { Ok::<_, Fault>(()) }));
                    let start = std::time::Instant::now();
                    let mut passed = Vec::new();
                    let _ = service.ready().await.expect("ready").call(()).await;
                    std::thread::sleep(Duration::from_millis(950));
                    while start.elapsed() < Duration::from_millis(1080) {
                        if service.ready().await.expect("ready").call(()).await.is_ok() {
                            passed.push(start.elapsed().as_millis() as u64);
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    seen(most(&passed))
                })
            }),
        ],
    }
}

fn full_bulkhead() -> Behaviour {
    Behaviour {
        question: "a bulkhead of one that refuses at once, with a call in it: what does the next one get?",
        programs: vec![
            ("rampart", || {
                let bulkhead = Bulkhead::new("k", 1).expect("it is well set");
                let _call = bulkhead.try_acquire().expect("it is free");
                let rejection = bulkhead.try_acquire().expect_err("it is full");
                Seen::new(rejection.reason() == "bulkhead_full", format!("`{rejection}`"))
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = BulkheadLayer::builder().max_concurrent_calls(1).reject_when_full().build();
                    let hang = service_fn(|()| pending::<Result<(), Fault>>());
                    let mut service = layer.expect("it is well set").layer(hang);
                    let mut call = Box::pin(service.ready().await.expect("ready").call(()));
                    drop(poll(call.as_mut()));
                    let refused = service.ready().await.expect("ready").call(()).await;
                    let text = format!("{:?}", refused.expect_err("it is full"));
                    Seen::new(!text.contains("Timeout"), format!("`{text}`"))
                })
            }),
        ],
    }
}

fn cancelled_call() -> Behaviour {
    fn seen(free: bool) -> Seen {
        Seen::new(free, if free { "its permit is free" } else { "its permit is lost" })
    }
    Behaviour {
        question: "a call within a bulkhead of one is dropped before its answer: is there room again?",
        programs: vec![
            ("rampart", || {
                running(async {
                    let bulkhead = Bulkhead::new("k", 1).expect("it is well set");
                    let mut service = bulkhead.layer().layer(service_fn(|()| pending::<Result<(), Fault>>()));
                    let mut call = Box::pin(service.ready().await.expect("ready").call(()));
                    drop(poll(call.as_mut()));
                    drop(call);
                    seen(bulkhead.try_acquire().is_ok())
                })
            }),
            ("tower", || {
                running(async {
                    let layer = tower::limit::ConcurrencyLimitLayer::new(1);
                    let mut service = layer.layer(service_fn(|()| pending::<Result<(), Fault>>()));
                    let mut call = Box::pin(service.ready().await.expect("ready").call(()));
                    drop(poll(call.as_mut()));
                    drop(call);
                    let ready = pin!(service.ready());
                    seen(poll(ready).is_ready())
                })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = BulkheadLayer::builder().max_concurrent_calls(1).reject_when_full().build();
                    let hang = service_fn(|()| pending::<Result<(), Fault>>());
                    let mut service = layer.expect("it is well set").layer(hang);
                    let mut call = Box::pin(service.ready().await.expect("ready").call(()));
                    drop(poll(call.as_mut()));
                    drop(call);
                    let mut next = Box::pin(service.ready().await.expect("ready").call(()));
                    seen(poll(next.as_mut()).is_pending())
                })
            }),
        ],
    }
}

pub fn all() -> Vec<Behaviour> {
    vec![edges(), full_bulkhead(), cancelled_call()]
}
