//! Timeouts, retries and their budgets.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use tower::{
    Layer, Service, ServiceExt,
    retry::{
        backoff::{Backoff as _, ExponentialBackoffMaker, MakeBackoff},
        budget::{Budget, TpsBudget},
    },
    service_fn,
    util::rng::HasherRng,
};
use tower_rampart::{
    retry::{Backoff, Jitter, Retry, RetryBudget},
    timeout::Timeout,
};
use tower_resilience::timelimiter::TimeLimiterLayer;

use super::{Behaviour, Seen, paused, running};
use crate::inner::Fault;

fn busy_future() -> Behaviour {
    /// Uses up tokio's cooperative budget at each poll; ends by itself after half a second.
    async fn busy() -> Result<(), Fault> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(500) {
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }
    fn seen(begun: Instant) -> Seen {
        let millis = begun.elapsed().as_millis();
        Seen::new(millis < 250, format!("the caller has an answer after {millis} ms"))
    }
    const LIMIT: Duration = Duration::from_millis(50);
    Behaviour {
        question: "a timeout of 50 ms around a call that is busy for 500 ms and yields by tokio's cooperative budget",
        programs: vec![
            ("rampart", || {
                running(async {
                    let service = Timeout::new("t", LIMIT).layer().layer(service_fn(|()| busy()));
                    let begun = Instant::now();
                    let _ = service.oneshot(()).await;
                    seen(begun)
                })
            }),
            ("tower", || {
                running(async {
                    let service = tower::timeout::TimeoutLayer::new(LIMIT).layer(service_fn(|()| busy()));
                    let begun = Instant::now();
                    let _ = service.oneshot(()).await;
                    seen(begun)
                })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = TimeLimiterLayer::builder().timeout_duration(LIMIT).build();
                    let service = layer.layer(service_fn(|()| busy()));
                    let begun = Instant::now();
                    let _ = service.oneshot(()).await;
                    seen(begun)
                })
            }),
        ],
    }
}

fn jitter() -> Behaviour {
    fn seen(delays: &BTreeSet<Duration>) -> Seen {
        Seen::new(delays.len() > 10, format!("{} different ones of 20", delays.len()))
    }
    const BASE: Duration = Duration::from_millis(400);
    Behaviour {
        question: "the first delay of 20 retries with full jitter over 400 ms",
        programs: vec![
            ("rampart", || {
                paused(async {
                    let mut delays = BTreeSet::new();
                    let backoff = Backoff::exponential(BASE, Duration::from_secs(10)).jitter(Jitter::Full);
                    let retry = Retry::builder("r").max_attempts(2).backoff(backoff).no_budget().build();
                    let retry = retry.expect("it is well set");
                    for _ in 0..20 {
                        let begun = tokio::time::Instant::now();
                        let _ = retry.run(|_| async { Err::<(), _>(Fault::Failed) }).await;
                        delays.insert(begun.elapsed());
                    }
                    seen(&delays)
                })
            }),
            ("tower", || {
                paused(async {
                    let maker = ExponentialBackoffMaker::new(BASE, Duration::from_secs(10), 1.0, HasherRng::default());
                    let mut maker = maker.expect("it is well set");
                    let mut delays = BTreeSet::new();
                    for _ in 0..20 {
                        let begun = tokio::time::Instant::now();
                        maker.make_backoff().next_backoff().await;
                        delays.insert(begun.elapsed());
                    }
                    seen(&delays)
                })
            }),
        ],
    }
}

fn budget() -> Behaviour {
    const THREADS: u32 = 4;
    fn most(rounds: u32, tokens: u32, withdraw: impl Fn() -> Box<dyn Fn() -> bool + Sync>) -> Seen {
        let mut most = 0;
        for _ in 0..rounds {
            let (budget, granted) = (withdraw(), AtomicU32::new(0));
            let barrier = std::sync::Barrier::new(THREADS as usize);
            std::thread::scope(|scope| {
                for _ in 0..THREADS {
                    scope.spawn(|| {
                        barrier.wait();
                        for _ in 0..tokens {
                            granted.fetch_add(u32::from(budget()), Ordering::Relaxed);
                        }
                    });
                }
            });
            most = most.max(granted.into_inner());
        }
        Seen::new(most <= tokens, format!("at most {most} granted of {tokens}"))
    }
    Behaviour {
        question: "4 threads withdraw from a budget that has 100 tokens, 400 times: is it overdrawn?",
        programs: vec![
            ("rampart", || {
                most(400, 100, || {
                    let budget =
                        RetryBudget::builder().capacity(100).min_per_second(0).build().expect("it is well set");
                    Box::new(move || budget.try_withdraw())
                })
            }),
            ("tower", || {
                most(400, 100, || {
                    let budget = TpsBudget::new(Duration::from_secs(10), 10, 0.0);
                    Box::new(move || budget.withdraw())
                })
            }),
            ("tower-resilience", || {
                most(400, 100, || {
                    let builder = tower_resilience::retry::RetryBudgetBuilder::new().token_bucket();
                    let budget = builder.max_tokens(100).initial_tokens(100).tokens_per_second(1.0).build();
                    let budget = budget.expect("it is well set");
                    Box::new(move || budget.try_withdraw())
                })
            }),
        ],
    }
}

fn cloned_state() -> Behaviour {
    fn seen(attempts: u32) -> Seen {
        Seen::new(attempts == 3, format!("{attempts} attempts"))
    }
    Behaviour {
        question: "a service that always fails, three attempts in all: how many are made?",
        programs: vec![
            ("rampart", || {
                paused(async {
                    let attempts = Arc::new(Mutex::new(0));
                    let counted = Arc::clone(&attempts);
                    let retry = Retry::attempts("r", 3).expect("it is well set").layer();
                    let service = retry.layer(service_fn(move |()| {
                        *counted.lock().expect("nobody panics") += 1;
                        async { Err::<(), _>(Fault::Failed) }
                    }));
                    let _ = service.oneshot(()).await;
                    let attempts = *attempts.lock().expect("nobody panics");
                    seen(attempts)
                })
            }),
            ("tower-resilience", || {
                paused(async {
                    let attempts = Arc::new(Mutex::new(0));
                    let counted = Arc::clone(&attempts);
                    let layer = tower_resilience::retry::RetryLayer::<(), (), Fault>::builder();
                    let layer = layer.max_attempts(3).fixed_backoff(Duration::from_millis(1)).build();
                    let mut service = layer.layer(service_fn(move |()| {
                        *counted.lock().expect("nobody panics") += 1;
                        async { Err::<(), _>(Fault::Failed) }
                    }));
                    let _ = service.ready().await.expect("ready").call(()).await;
                    let attempts = *attempts.lock().expect("nobody panics");
                    seen(attempts)
                })
            }),
        ],
    }
}

pub fn all() -> Vec<Behaviour> {
    vec![busy_future(), jitter(), budget(), cloned_state()]
}
