//! Circuit breakers.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use failsafe::CircuitBreaker as _;
use tower::Layer;
use tower_rampart::circuit_breaker::{CircuitBreaker, CircuitBreakerLayer};
use tower_resilience::circuitbreaker::{CircuitBreakerLayer as Theirs, SlidingWindowType};

use super::{Claim, Comparison, Row, contended, one_and_two};
use crate::{
    harness::{Candidate, Setting::Shared, Worker},
    inner::{Failing, Immediate, calls},
};

const LONG: Duration = Duration::from_secs(3600);

/// Returns a worker that passes the number of the call to the closure.
fn worker(mut operation: impl FnMut(u64) + Send + 'static) -> Worker {
    let mut call = 0;
    Box::new(move |operations| {
        for _ in 0..operations {
            call += 1;
            operation(call);
        }
    })
}

fn count_window() -> CircuitBreaker {
    let breaker =
        CircuitBreaker::builder("b").no_time_window().count_window(100).build().expect("the settings are valid");
    // Fill the window, as in a running service.
    (0..200).for_each(|_| breaker.try_acquire().expect("the circuit is closed").success());
    breaker
}

fn time_window() -> CircuitBreaker {
    CircuitBreaker::new("b")
}

/// One call in `every` fails.
fn ours(breaker: &CircuitBreaker, every: u64) -> Worker {
    let breaker = breaker.clone();
    worker(move |call| {
        let Ok(permit) = black_box(&breaker).try_acquire() else { panic!("the circuit is closed") };
        if call % every == 0 { permit.failure() } else { permit.success() }
    })
}

fn recloser(error_rate: f32) -> Arc<recloser::Recloser> {
    let custom = recloser::Recloser::custom();
    Arc::new(custom.error_rate(error_rate).closed_len(100).half_open_len(10).open_wait(LONG).build())
}

fn recloses(recloser: &Arc<recloser::Recloser>, every: u64) -> Worker {
    let recloser = Arc::clone(recloser);
    worker(move |call| {
        let _ = black_box(black_box(&recloser).call(|| if call % every == 0 { Err(()) } else { Ok(()) }));
    })
}

fn failsafe() -> failsafe::StateMachine<impl failsafe::FailurePolicy + Send + 'static, ()> {
    let backoff = failsafe::backoff::constant(LONG);
    failsafe::Config::new()
        .failure_policy(failsafe::failure_policy::success_rate_over_time_window(
            0.5,
            20,
            Duration::from_secs(10),
            backoff,
        ))
        .build()
}

const NEVER: u64 = u64::MAX;

/// Lower bounds: one atomic operation.
fn floors() -> [Candidate; 2] {
    [
        Candidate::new("floor: one load", || {
            let word = Arc::new(AtomicU64::new(0));
            move || {
                let word = Arc::clone(&word);
                worker(move |_| {
                    black_box(black_box(&word).load(Ordering::Acquire));
                })
            }
        }),
        Candidate::new("floor: one fetch_add", || {
            let word = Arc::new(AtomicU64::new(0));
            move || {
                let word = Arc::clone(&word);
                worker(move |_| {
                    black_box(black_box(&word).fetch_add(1, Ordering::AcqRel));
                })
            }
        }),
    ]
}

pub fn clean() -> Row {
    let mut candidates = vec![
        Candidate::new("rampart, count window", || {
            let breaker = count_window();
            move || ours(&breaker, NEVER)
        }),
        Candidate::new("recloser", || {
            let recloser = recloser(0.5);
            move || recloses(&recloser, NEVER)
        }),
        Candidate::new("failsafe", || {
            let breaker = failsafe();
            move || {
                let breaker = breaker.clone();
                worker(move |_| {
                    let _ = black_box(black_box(&breaker).call(|| Ok::<_, ()>(())));
                })
            }
        }),
        Candidate::new("a mutex around a counter", || {
            let counter = Arc::new(std::sync::Mutex::new(0_u64));
            move || {
                let counter = Arc::clone(&counter);
                worker(move |_| *black_box(&counter).lock().expect("no thread panics") += 1)
            }
        }),
    ];
    candidates.extend(floors());
    Row {
        name: "breaker core, admission and success, clean",
        candidates,
        settings: contended(),
        claims: vec![
            Claim::new("6 times faster than recloser", 6.0, |row| row.faster("rampart, count window", "recloser")),
            Claim::new("100 times recloser's throughput at 2 threads", 100.0, |row| {
                row.more("rampart, count window", "recloser", 2)
            }),
            Claim::new("2 threads on one instance as fast as on two, within 10%", 0.9, |row| {
                row.separate("rampart, count window")
            }),
            Claim::new("throughput at 8 threads no lower than at 2, within 10%", 0.9, |row| {
                Some(row.scaling("rampart, count window", 8)? / row.scaling("rampart, count window", 2)?)
            }),
        ],
    }
}

pub fn some_failures() -> Row {
    Row {
        name: "breaker core, admission and outcome, 1% failures",
        candidates: vec![
            Candidate::new("rampart, count window", || {
                let breaker = count_window();
                move || ours(&breaker, 100)
            }),
            Candidate::new("rampart, time window", || {
                let breaker = time_window();
                move || ours(&breaker, 100)
            }),
            Candidate::new("recloser", || {
                let recloser = recloser(0.5);
                move || recloses(&recloser, 100)
            }),
            Candidate::new("failsafe", || {
                let breaker = failsafe();
                move || {
                    let breaker = breaker.clone();
                    worker(move |call| {
                        let _ = black_box(black_box(&breaker).call(|| if call % 100 == 0 { Err(()) } else { Ok(()) }));
                    })
                }
            }),
            clock(),
        ],
        settings: one_and_two(),
        claims: vec![
            Claim::new("count window: no slower than recloser", 1.0, |row| {
                row.faster("rampart, count window", "recloser")
            }),
            Claim::new("count window: 10 times recloser's throughput at 2 threads", 10.0, |row| {
                row.more("rampart, count window", "recloser", 2)
            }),
            Claim::new("time window without its clock reading: no slower than recloser", 1.0, |row| {
                let clock = row.nanos("one clock reading", Shared(1))?;
                Some(row.nanos("recloser", Shared(1))? / (row.nanos("rampart, time window", Shared(1))? - clock))
            }),
            Claim::new(
                "time window without its clock reading: 10 times recloser's throughput at 2 threads",
                10.0,
                |row| {
                    let clock = row.nanos("one clock reading", Shared(2))?;
                    Some(row.nanos("recloser", Shared(2))? / (row.nanos("rampart, time window", Shared(2))? - clock))
                },
            ),
        ],
    }
}

/// The lower bound of a path that reads the clock once.
fn clock() -> Candidate {
    Candidate::new("one clock reading", || {
        || {
            worker(|_| {
                black_box(Instant::now());
            })
        }
    })
}

pub fn rejection() -> Row {
    Row {
        name: "breaker core, rejection while open",
        candidates: vec![
            Candidate::new("rampart", || {
                let breaker = count_window();
                breaker.open_for(LONG);
                move || {
                    let breaker = breaker.clone();
                    worker(move |_| assert!(black_box(&breaker).try_acquire().is_err()))
                }
            }),
            Candidate::new("recloser", || {
                let recloser = recloser(0.5);
                (0..300).for_each(|_| drop(recloser.call(|| Err::<(), ()>(()))));
                move || {
                    let recloser = Arc::clone(&recloser);
                    worker(move |_| assert!(black_box(&recloser).call(|| Ok::<_, ()>(())).is_err()))
                }
            }),
            Candidate::new("failsafe", || {
                let policy = failsafe::failure_policy::consecutive_failures(3, failsafe::backoff::constant(LONG));
                let breaker = failsafe::Config::new().failure_policy(policy).build();
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                move || {
                    let breaker = breaker.clone();
                    worker(move |_| assert!(black_box(&breaker).call(|| Ok::<_, ()>(())).is_err()))
                }
            }),
            clock(),
        ],
        settings: one_and_two(),
        claims: vec![
            Claim::headline("no slower than recloser", 1.0, Comparison::new("rampart", "recloser")),
            Claim::new("2 threads reach 1.9 times the throughput of one", 1.9, |row| row.scaling("rampart", 2)),
        ],
    }
}

pub fn layer() -> Row {
    let theirs = |window| {
        let builder = Theirs::builder().sliding_window_type(window).sliding_window_size(100);
        builder
            .sliding_window_duration(Duration::from_secs(10))
            .minimum_number_of_calls(20)
            .failure_rate_threshold(0.5)
            .build()
            .expect("the settings are valid")
    };
    let bare = || Failing { every: u64::MAX, calls: 0 };
    Row {
        name: "breaker layer, per call",
        candidates: vec![
            Candidate::new("bare service", || || calls(Immediate, Some(true))),
            Candidate::new("rampart, count window", move || {
                let service = CircuitBreakerLayer::new(&count_window()).layer(bare());
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("rampart, time window", move || {
                let service = CircuitBreakerLayer::new(&time_window()).layer(bare());
                move || calls(service.clone(), Some(true))
            }),
            Candidate::new("tower-resilience, count window", move || {
                let service = theirs(SlidingWindowType::CountBased).layer(bare());
                move || calls(service.clone(), Some(true))
            }),
        ],
        settings: contended(),
        claims: vec![
            Claim::new("12 times faster than tower-resilience, above the bare service", 12.0, |row| {
                row.faster_above("bare service", "rampart, count window", "tower-resilience, count window")
            }),
            Claim::new("2 threads reach 1.9 times the throughput of one", 1.9, |row| {
                row.scaling("rampart, count window", 2)
            }),
        ],
    }
}
