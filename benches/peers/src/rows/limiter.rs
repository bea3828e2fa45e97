//! Rate limiters.

use std::{
    hint::black_box,
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};

use governor::{
    Quota,
    clock::{Clock as _, MonotonicClock, QuantaClock},
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tower::Layer;
use tower_rampart::{
    clock::{Clock, CycleClock, Nanos},
    rate_limit::{Rate, RateLimiter, RateLimiterBuilder},
};

use super::{Claim, Comparison, Row, one_and_two};
use crate::{
    harness::{Candidate, Worker},
    inner::{Immediate, calls},
};

/// Governor's default clock, for this crate's limiter.
struct Quanta(quanta::Clock);

impl Clock for Quanta {
    fn now(&self) -> Nanos {
        Nanos::new(self.0.delta_as_nanos(0, self.0.raw()))
    }
}

/// The standard library's clock, without the detour through tokio that paused tests need.
struct Std(Instant);

impl Clock for Std {
    fn now(&self) -> Nanos {
        Nanos::new(self.0.elapsed().as_nanos() as u64)
    }
}

fn worker(mut operation: impl FnMut() + Send + 'static) -> Worker {
    Box::new(move |operations| (0..operations).for_each(|_| operation()))
}

fn quanta_clock() -> Quanta {
    Quanta(quanta::Clock::new())
}

/// This crate's clock by the cycle counter, where the system relies on it.
fn cycle_clock() -> impl Clock {
    CycleClock::new().map_or_else(
        |unusable| {
            eprintln!("rampart, CycleClock: {unusable}");
            Arc::new(quanta_clock()) as Arc<dyn Clock>
        },
        |clock| Arc::new(clock),
    )
}

/// A rate so high that every call is admitted.
fn plenty() -> RateLimiterBuilder {
    RateLimiter::builder("l", Rate::per_second(60_000_000))
}

/// A limiter whose only permit is used up.
fn exhausted(builder: impl FnOnce(RateLimiterBuilder) -> RateLimiterBuilder) -> RateLimiter {
    let limiter = builder(RateLimiter::builder("l", Rate::per_hour(1))).build().expect("the settings are valid");
    limiter.check().expect("the first call is admitted");
    limiter
}

fn admits(limiter: RateLimiter) -> impl Fn() -> Worker + Send + Sync {
    move || {
        let limiter = limiter.clone();
        worker(move || assert!(black_box(&limiter).check().is_ok()))
    }
}

fn rejects(limiter: RateLimiter) -> impl Fn() -> Worker + Send + Sync {
    move || {
        let limiter = limiter.clone();
        worker(move || assert!(black_box(&limiter).check().is_err()))
    }
}

type Governor<C> =
    governor::RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as governor::clock::Clock>::Instant>>;

fn governor<C: governor::clock::Clock + Default>(quota: Quota) -> Arc<Governor<C>> {
    Arc::new(governor::RateLimiter::direct_with_clock(quota, C::default()))
}

fn governs<C>(limiter: Arc<Governor<C>>, admits: bool) -> impl Fn() -> Worker + Send + Sync
where
    C: governor::clock::Clock + Send + Sync + 'static,
    C::Instant: Send + Sync,
{
    move || {
        let limiter = Arc::clone(&limiter);
        worker(move || assert_eq!(black_box(&limiter).check().is_ok(), admits))
    }
}

fn open_quota() -> Quota {
    Quota::per_second(NonZeroU32::MAX)
}

fn spent<C>() -> Arc<Governor<C>>
where
    C: governor::clock::Clock + Default,
{
    let limiter = governor::<C>(Quota::per_hour(NonZeroU32::MIN));
    limiter.check().expect("the first call is admitted");
    limiter
}

pub fn admission() -> Row {
    Row {
        name: "limiter core, admission",
        candidates: vec![
            Candidate::new("rampart, its own clock", || admits(plenty().build().expect("the settings are valid"))),
            Candidate::new("rampart, std", || {
                admits(plenty().clock(Std(Instant::now())).build().expect("the settings are valid"))
            }),
            Candidate::new("rampart, quanta", || {
                admits(plenty().clock(quanta_clock()).build().expect("the settings are valid"))
            }),
            Candidate::new("rampart, CycleClock", || {
                admits(plenty().clock(cycle_clock()).build().expect("the settings are valid"))
            }),
            Candidate::new("governor, std", || governs(governor::<MonotonicClock>(open_quota()), true)),
            Candidate::new("governor, quanta", || governs(governor::<QuantaClock>(open_quota()), true)),
            Candidate::new("one reading of the std clock", || {
                || {
                    worker(|| {
                        black_box(Instant::now());
                    })
                }
            }),
            Candidate::new("one reading of the quanta clock", || {
                || {
                    let clock = QuantaClock::default();
                    worker(move || {
                        black_box(clock.now());
                    })
                }
            }),
        ],
        settings: one_and_two(),
        claims: vec![
            Claim::new("its own clock: no slower than governor, std", 1.0, |row| {
                row.faster("rampart, its own clock", "governor, std")
            }),
            Claim::new("quanta: no slower than governor", 1.0, |row| row.faster("rampart, quanta", "governor, quanta")),
            Claim::new("its own clock: higher throughput than governor, std, at 2 threads", 1.0, |row| {
                row.more("rampart, its own clock", "governor, std", 2)
            }),
        ],
    }
}

pub fn rejection() -> Row {
    Row {
        name: "limiter core, rejection",
        candidates: vec![
            Candidate::new("rampart, its own clock", || rejects(exhausted(|builder| builder))),
            Candidate::new("rampart, std", || rejects(exhausted(|builder| builder.clock(Std(Instant::now()))))),
            Candidate::new("rampart, quanta", || rejects(exhausted(|builder| builder.clock(quanta_clock())))),
            Candidate::new("rampart, CycleClock", || rejects(exhausted(|builder| builder.clock(cycle_clock())))),
            Candidate::new("governor, std", || governs(spent::<MonotonicClock>(), false)),
            Candidate::new("governor, quanta", || governs(spent::<QuantaClock>(), false)),
        ],
        settings: one_and_two(),
        claims: vec![
            Claim::headline(
                "its own clock: no slower than governor, std",
                1.0,
                Comparison::new("rampart, its own clock", "governor, std"),
            ),
            Claim::headline(
                "quanta: no slower than governor",
                1.0,
                Comparison::new("rampart, quanta", "governor, quanta"),
            ),
            Claim::new("2 threads reach 1.9 times the throughput of one", 1.9, |row| {
                row.scaling("rampart, its own clock", 2)
            }),
        ],
    }
}

pub fn layer() -> Row {
    Row {
        name: "limiter layer, per call",
        candidates: vec![
            Candidate::new("bare service", || || calls(Immediate, Some(true))),
            Candidate::new("rampart", || {
                let service = plenty().build().expect("the settings are valid").layer().layer(Immediate);
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("tower-resilience", || {
                let builder = tower_resilience::ratelimiter::RateLimiterLayer::builder();
                let layer = builder.limit_for_period(1 << 40).refresh_period(Duration::from_secs(1)).build();
                let service = layer.expect("the settings are valid").layer(Immediate);
                move || calls(service.clone(), Some(true))
            }),
            Candidate::single("tower (not Clone)", || {
                || {
                    let layer = tower::limit::RateLimitLayer::new(u64::MAX, Duration::from_secs(1));
                    calls(layer.layer(Immediate), Some(true))
                }
            }),
        ],
        settings: one_and_two(),
        claims: vec![Claim::new("4 times faster than tower-resilience", 4.0, |row| {
            row.faster_above("bare service", "rampart", "tower-resilience")
        })],
    }
}
