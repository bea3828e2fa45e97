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

use super::{Behaviour, Observed, paused, running};
use crate::inner::Fault;

fn busy_future() -> Behaviour {
    /// Exhausts tokio's cooperative budget at each poll; completes after half a second.
    async fn busy() -> Result<(), Fault> {
        let started = Instant::now();
        while started.elapsed() < Duration::from_millis(500) {
            tokio::task::coop::consume_budget().await;
        }
        Ok(())
    }
    fn observed(started: Instant) -> Observed {
        let millis = started.elapsed().as_millis();
        Observed::new(millis < 250, format!("the caller has a result after {millis} ms"))
    }
    const LIMIT: Duration = Duration::from_millis(50);
    Behaviour {
        question: "a timeout of 50 ms around a call that is busy for 500 ms and yields to tokio's cooperative budget: when does the caller get a result?",
        programs: vec![
            ("rampart", || {
                running(async {
                    let service = Timeout::new("t", LIMIT).layer().layer(service_fn(|()| busy()));
                    let started = Instant::now();
                    let _ = service.oneshot(()).await;
                    observed(started)
                })
            }),
            ("tower", || {
                running(async {
                    let service = tower::timeout::TimeoutLayer::new(LIMIT).layer(service_fn(|()| busy()));
                    let started = Instant::now();
                    let _ = service.oneshot(()).await;
                    observed(started)
                })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = TimeLimiterLayer::builder().timeout_duration(LIMIT).build();
                    let service = layer.layer(service_fn(|()| busy()));
                    let started = Instant::now();
                    let _ = service.oneshot(()).await;
                    observed(started)
                })
            }),
        ],
    }
}

fn jitter() -> Behaviour {
    fn observed(delays: &BTreeSet<Duration>) -> Observed {
        Observed::new(delays.len() > 10, format!("{} of 20 are distinct", delays.len()))
    }
    const BASE: Duration = Duration::from_millis(400);
    Behaviour {
        question: "the first delays of 20 retries with full jitter over 400 ms: how many are distinct?",
        programs: vec![
            ("rampart", || {
                paused(async {
                    let mut delays = BTreeSet::new();
                    let backoff = Backoff::exponential(BASE, Duration::from_secs(10)).jitter(Jitter::Full);
                    let retry = Retry::builder("r").max_attempts(2).backoff(backoff).no_budget().build();
                    let retry = retry.expect("the settings are valid");
                    for _ in 0..20 {
                        let started = tokio::time::Instant::now();
                        let _ = retry.run(|_| async { Err::<(), _>(Fault::Failed) }).await;
                        delays.insert(started.elapsed());
                    }
                    observed(&delays)
                })
            }),
            ("tower", || {
                paused(async {
                    let maker = ExponentialBackoffMaker::new(BASE, Duration::from_secs(10), 1.0, HasherRng::default());
                    let mut maker = maker.expect("the settings are valid");
                    let mut delays = BTreeSet::new();
                    for _ in 0..20 {
                        let started = tokio::time::Instant::now();
                        maker.make_backoff().next_backoff().await;
                        delays.insert(started.elapsed());
                    }
                    observed(&delays)
                })
            }),
        ],
    }
}

fn budget() -> Behaviour {
    const THREADS: u32 = 4;
    fn most(rounds: u32, tokens: u32, withdraw: impl Fn() -> Box<dyn Fn() -> bool + Sync>) -> Observed {
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
        Observed::new(most <= tokens, format!("at most {most} of {tokens} tokens granted"))
    }
    Behaviour {
        question: "4 threads drain a budget of 100 tokens, 400 times: is it ever overdrawn?",
        programs: vec![
            ("rampart", || {
                most(400, 100, || {
                    let budget =
                        RetryBudget::builder().capacity(100).min_per_second(0).build().expect("the settings are valid");
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
                    let budget = budget.expect("the settings are valid");
                    Box::new(move || budget.try_withdraw())
                })
            }),
        ],
    }
}

fn cloned_state() -> Behaviour {
    fn observed(attempts: u32) -> Observed {
        Observed::new(attempts == 3, format!("{attempts} attempts"))
    }
    Behaviour {
        question: "a service that always fails, 3 attempts in total: how many are made?",
        programs: vec![
            ("rampart", || {
                paused(async {
                    let attempts = Arc::new(Mutex::new(0));
                    let counted = Arc::clone(&attempts);
                    let retry = Retry::attempts("r", 3).expect("the settings are valid").layer();
                    let service = retry.layer(service_fn(move |()| {
                        *counted.lock().expect("no thread panics") += 1;
                        async { Err::<(), _>(Fault::Failed) }
                    }));
                    let _ = service.oneshot(()).await;
                    let attempts = *attempts.lock().expect("no thread panics");
                    observed(attempts)
                })
            }),
            ("tower-resilience", || {
                paused(async {
                    let attempts = Arc::new(Mutex::new(0));
                    let counted = Arc::clone(&attempts);
                    let layer = tower_resilience::retry::RetryLayer::<(), (), Fault>::builder();
                    let layer = layer.max_attempts(3).fixed_backoff(Duration::from_millis(1)).build();
                    let mut service = layer.layer(service_fn(move |()| {
                        *counted.lock().expect("no thread panics") += 1;
                        async { Err::<(), _>(Fault::Failed) }
                    }));
                    let _ = service.ready().await.expect("the service is ready").call(()).await;
                    let attempts = *attempts.lock().expect("no thread panics");
                    observed(attempts)
                })
            }),
        ],
    }
}

pub fn all() -> Vec<Behaviour> {
    vec![busy_future(), jitter(), budget(), cloned_state()]
}
