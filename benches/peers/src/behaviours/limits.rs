//! Rate limiters and bulkheads.

use std::{future::pending, pin::pin, time::Duration};

use tower::{Layer, Service, ServiceExt, service_fn};
use tower_rampart::{
    bulkhead::Bulkhead,
    clock::ManualClock,
    rate_limit::{Rate, RateLimiter},
};
use tower_resilience::{bulkhead::BulkheadLayer, ratelimiter::RateLimiterLayer};

use super::{Behaviour, Observed, paused, poll, running};
use crate::inner::Fault;

const SECOND: Duration = Duration::from_secs(1);

fn edges() -> Behaviour {
    /// At most 11 calls may pass within a tenth of a second.
    fn observed(most: usize) -> Observed {
        Observed::new(most <= 11, format!("{most} calls within 100 ms"))
    }
    /// Returns the most calls in any tenth of a second, given the times at which they passed, in
    /// milliseconds.
    fn most(passed: &[u64]) -> usize {
        let within = |from: u64| passed.iter().filter(|at| (from..=from + 100).contains(at)).count();
        passed.iter().map(|from| within(*from)).max().unwrap_or(0)
    }
    Behaviour {
        question: "\"10 per second\", one call at 0 ms, then as many as possible from 950 ms: how many pass within 100 ms?",
        programs: vec![
            ("rampart", || {
                let clock = ManualClock::new();
                let limiter = RateLimiter::builder("l", Rate::per_second(10)).clock(clock.clone()).build();
                let limiter = limiter.expect("the settings are valid");
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
                // The call at 0 ms is not part of the burst.
                observed(most(&passed.into_iter().filter(|at| *at >= 950).collect::<Vec<_>>()))
            }),
            ("tower", || {
                paused(async {
                    let layer = tower::limit::RateLimitLayer::new(10, SECOND);
                    let mut service = layer.layer(service_fn(|()| async { Ok::<_, Fault>(()) }));
                    let start = tokio::time::Instant::now();
                    let mut passed = Vec::new();
                    let _ = service.ready().await.expect("the service is ready").call(()).await;
                    tokio::time::sleep(Duration::from_millis(950)).await;
                    for _ in 0..19 {
                        let _ = service.ready().await.expect("the service is ready").call(()).await;
                        passed.push(start.elapsed().as_millis() as u64);
                    }
                    observed(most(&passed))
                })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = RateLimiterLayer::builder().limit_for_period(10).refresh_period(SECOND);
                    let layer = layer.timeout_duration(Duration::ZERO).build().expect("the settings are valid");
                    let mut service = layer.layer(service_fn(|()| async { Ok::<_, Fault>(()) }));
                    let start = std::time::Instant::now();
                    let mut passed = Vec::new();
                    let _ = service.ready().await.expect("the service is ready").call(()).await;
                    std::thread::sleep(Duration::from_millis(950));
                    while start.elapsed() < Duration::from_millis(1080) {
                        if service.ready().await.expect("the service is ready").call(()).await.is_ok() {
                            passed.push(start.elapsed().as_millis() as u64);
                        }
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    observed(most(&passed))
                })
            }),
        ],
    }
}

fn full_bulkhead() -> Behaviour {
    Behaviour {
        question: "a bulkhead of 1 that rejects immediately, with a call in flight: which error does the next call get?",
        programs: vec![
            ("rampart", || {
                let bulkhead = Bulkhead::new("k", 1).expect("the settings are valid");
                let _call = bulkhead.try_acquire().expect("the bulkhead is free");
                let rejection = bulkhead.try_acquire().expect_err("the bulkhead is full");
                Observed::new(rejection.reason() == "bulkhead_full", format!("`{rejection}`"))
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = BulkheadLayer::builder().max_concurrent_calls(1).reject_when_full().build();
                    let hang = service_fn(|()| pending::<Result<(), Fault>>());
                    let mut service = layer.expect("the settings are valid").layer(hang);
                    let mut call = Box::pin(service.ready().await.expect("the service is ready").call(()));
                    drop(poll(call.as_mut()));
                    let rejected = service.ready().await.expect("the service is ready").call(()).await;
                    let text = format!("{:?}", rejected.expect_err("the bulkhead is full"));
                    Observed::new(!text.contains("Timeout"), format!("`{text}`"))
                })
            }),
        ],
    }
}

fn cancelled_call() -> Behaviour {
    fn observed(free: bool) -> Observed {
        Observed::new(free, if free { "its permit is released" } else { "its permit is lost" })
    }
    Behaviour {
        question: "a call in a bulkhead of 1 is dropped before its response: is its permit released?",
        programs: vec![
            ("rampart", || {
                running(async {
                    let bulkhead = Bulkhead::new("k", 1).expect("the settings are valid");
                    let mut service = bulkhead.layer().layer(service_fn(|()| pending::<Result<(), Fault>>()));
                    let mut call = Box::pin(service.ready().await.expect("the service is ready").call(()));
                    drop(poll(call.as_mut()));
                    drop(call);
                    observed(bulkhead.try_acquire().is_ok())
                })
            }),
            ("tower", || {
                running(async {
                    let layer = tower::limit::ConcurrencyLimitLayer::new(1);
                    let mut service = layer.layer(service_fn(|()| pending::<Result<(), Fault>>()));
                    let mut call = Box::pin(service.ready().await.expect("the service is ready").call(()));
                    drop(poll(call.as_mut()));
                    drop(call);
                    let ready = pin!(service.ready());
                    observed(poll(ready).is_ready())
                })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = BulkheadLayer::builder().max_concurrent_calls(1).reject_when_full().build();
                    let hang = service_fn(|()| pending::<Result<(), Fault>>());
                    let mut service = layer.expect("the settings are valid").layer(hang);
                    let mut call = Box::pin(service.ready().await.expect("the service is ready").call(()));
                    drop(poll(call.as_mut()));
                    drop(call);
                    let mut next = Box::pin(service.ready().await.expect("the service is ready").call(()));
                    observed(poll(next.as_mut()).is_pending())
                })
            }),
        ],
    }
}

pub fn all() -> Vec<Behaviour> {
    vec![edges(), full_bulkhead(), cancelled_call()]
}
