//! Circuit breakers.

use std::{
    future::{Future, pending},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use failsafe::CircuitBreaker as _;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_rampart::circuit_breaker::CircuitBreaker;
use tower_resilience::circuitbreaker::{CircuitBreakerLayer, CircuitState, DefaultClassifier};

use super::{Behaviour, Seen, poll, running};
use crate::inner::Fault;

const OPEN: Duration = Duration::from_millis(20);
/// Longer than the circuits are open.
const LATER: Duration = Duration::from_millis(40);

fn ours() -> CircuitBreaker {
    let builder = CircuitBreaker::builder("b").no_time_window().count_window(100).min_calls(20).open_jitter(false);
    builder.open_duration(OPEN).probes(3).probe_timeout(OPEN).build().expect("it is well set")
}

fn recloser() -> recloser::Recloser {
    recloser::Recloser::custom().error_rate(0.5).closed_len(100).half_open_len(10).open_wait(OPEN).build()
}

fn failsafe() -> failsafe::StateMachine<impl failsafe::FailurePolicy, ()> {
    let policy = failsafe::failure_policy::consecutive_failures(20, failsafe::backoff::constant(OPEN));
    failsafe::Config::new().failure_policy(policy).build()
}

fn theirs() -> CircuitBreakerLayer<DefaultClassifier> {
    let builder = CircuitBreakerLayer::builder().sliding_window_size(100).minimum_number_of_calls(20);
    builder
        .failure_rate_threshold(0.5)
        .wait_duration_in_open(OPEN)
        .permitted_calls_in_half_open(3)
        .build()
        .expect("it is well set")
}

/// What a request asks of the service.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ask {
    Succeed,
    Fail,
    Hang,
}

/// Does as asked, and counts the calls that reach it.
#[derive(Clone, Default)]
struct Asked(Arc<AtomicU32>);

impl Service<Ask> for Asked {
    type Response = ();
    type Error = Fault;
    type Future = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, ask: Ask) -> Self::Future {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            match ask {
                Ask::Succeed => Ok(()),
                Ask::Fail => Err(Fault::Failed),
                Ask::Hang => pending().await,
            }
        })
    }
}

/// Calls a service until `refused` says so of a result; the number of that call.
fn first_refused(mut call: impl FnMut(bool) -> bool) -> Seen {
    for _ in 0..10_000 {
        assert!(!call(true), "all is well");
    }
    match (1..=20_000).find(|_| call(false)) {
        Some(number) => Seen::new(number <= 101, format!("the first refused call of the outage is number {number}")),
        None => Seen::new(false, "none of 20,000 calls is refused"),
    }
}

fn slides() -> Behaviour {
    Behaviour {
        question: "10,000 successes, then a total outage; window of 100 calls, trips at 50%: when is a call refused?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                first_refused(|ok| match breaker.try_acquire() {
                    Ok(permit) if ok => {
                        permit.success();
                        false
                    }
                    Ok(permit) => {
                        permit.failure();
                        false
                    }
                    Err(_) => true,
                })
            }),
            ("recloser", || {
                let breaker = recloser();
                first_refused(|ok| {
                    let result = breaker.call(|| if ok { Ok(()) } else { Err(()) });
                    matches!(result, Err(recloser::Error::Rejected))
                })
            }),
            ("tower-resilience", || {
                running(async {
                    let mut service = theirs().layer(Asked::default());
                    let mut outcomes = Vec::new();
                    for call in 0..30_000 {
                        let ask = if call < 10_000 { Ask::Succeed } else { Ask::Fail };
                        let before = service.get_ref().0.load(Ordering::Relaxed);
                        let _ = service.ready().await.expect("it is ready").call(ask).await;
                        outcomes.push(service.get_ref().0.load(Ordering::Relaxed) == before);
                    }
                    let mut outcomes = outcomes.into_iter();
                    first_refused(move |_| outcomes.next().unwrap_or(false))
                })
            }),
        ],
    }
}

fn half_open_is_bounded() -> Behaviour {
    fn seen(reached: u32) -> Seen {
        Seen::new(reached <= 10, format!("{reached} of 50 reach the service"))
    }
    Behaviour {
        question: "50 calls at once when the open time is over, set to 3 probes (or the peer's own): how many get through?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                std::thread::sleep(LATER);
                let permits: Vec<_> = (0..50).filter_map(|_| breaker.try_acquire().ok()).collect();
                seen(permits.len() as u32)
            }),
            ("recloser", || {
                running(async {
                    let breaker = recloser::AsyncRecloser::from(recloser());
                    let reached = AtomicU32::new(0);
                    for _ in 0..300 {
                        let _ = breaker.call(async { Err::<(), ()>(()) }).await;
                    }
                    std::thread::sleep(LATER);
                    let calls = (0..50).map(|_| {
                        Box::pin(breaker.call(async {
                            reached.fetch_add(1, Ordering::Relaxed);
                            pending::<Result<(), ()>>().await
                        }))
                    });
                    let mut calls: Vec<_> = calls.collect();
                    calls.iter_mut().for_each(|call| drop(poll(call.as_mut())));
                    seen(reached.load(Ordering::Relaxed))
                })
            }),
            ("failsafe", || {
                let breaker = failsafe();
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                std::thread::sleep(LATER);
                seen((0..50).filter(|_| breaker.is_call_permitted()).count() as u32)
            }),
            ("tower-resilience", || {
                running(async {
                    let asked = Asked::default();
                    let mut service = theirs().layer(asked.clone());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("it is ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    let before = asked.0.load(Ordering::Relaxed);
                    let mut calls = Vec::new();
                    for _ in 0..50 {
                        calls.push(Box::pin(service.ready().await.expect("it is ready").call(Ask::Hang)));
                    }
                    calls.iter_mut().for_each(|call| drop(poll(call.as_mut())));
                    seen(asked.0.load(Ordering::Relaxed) - before)
                })
            }),
        ],
    }
}

fn late_outcomes() -> Behaviour {
    fn seen(still_half_open: bool, state: impl std::fmt::Debug) -> Seen {
        Seen::new(still_half_open, format!("the circuit is then {state:?}"))
    }
    Behaviour {
        question: "a call from before the outage succeeds while the circuit is half-open and its probe runs: does it decide?",
        programs: vec![
            ("rampart", || {
                let breaker = CircuitBreaker::builder("b").no_time_window().consecutive_failures(3).no_failure_rate();
                let breaker = breaker.probes(1).probe_successes(1).open_duration(OPEN).build().expect("it is well set");
                let early = breaker.try_acquire().expect("closed");
                (0..3).for_each(|_| breaker.try_acquire().expect("closed").failure());
                std::thread::sleep(LATER);
                let _probe = breaker.try_acquire().expect("half-open");
                early.success();
                seen(breaker.state() == tower_rampart::circuit_breaker::CircuitState::HalfOpen, breaker.state())
            }),
            ("recloser", || {
                running(async {
                    // The verdict needs as many outcomes as the window is long, and one.
                    let breaker = recloser::Recloser::custom().error_rate(0.5).closed_len(2).half_open_len(1);
                    let breaker = recloser::AsyncRecloser::from(breaker.open_wait(OPEN).build());
                    let (sender, receiver) = tokio::sync::watch::channel(false);
                    let early = || {
                        let mut told = receiver.clone();
                        Box::pin(breaker.call(async move {
                            told.wait_for(|told| *told).await.expect("it is told");
                            Ok::<(), ()>(())
                        }))
                    };
                    let mut early = [early(), early(), early()];
                    early.iter_mut().for_each(|call| drop(poll(call.as_mut())));
                    for _ in 0..9 {
                        let _ = breaker.call(async { Err::<(), ()>(()) }).await;
                    }
                    std::thread::sleep(LATER);
                    let mut probe = Box::pin(breaker.call(pending::<Result<(), ()>>()));
                    drop(poll(probe.as_mut()));
                    sender.send(true).expect("they wait");
                    for call in early {
                        let _ = call.await;
                    }
                    // Closed, it needs three failures to refuse.
                    let mut refused = 0;
                    for _ in 0..2 {
                        let result = breaker.call(async { Err::<(), ()>(()) }).await;
                        refused += u32::from(matches!(result, Err(recloser::Error::Rejected)));
                    }
                    let closed = refused == 0;
                    seen(!closed, if closed { "Closed" } else { "not closed" })
                })
            }),
            ("failsafe", || {
                let breaker = failsafe();
                assert!(breaker.is_call_permitted(), "the early call");
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                std::thread::sleep(LATER);
                assert!(breaker.is_call_permitted(), "the probe");
                // The early call ends: its outcome is all that the breaker is told.
                breaker.on_success();
                let closed = breaker.call(|| Err::<(), ()>(())).is_err() && breaker.is_call_permitted();
                seen(!closed, if closed { "Closed" } else { "not closed" })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = CircuitBreakerLayer::builder().sliding_window_size(4).minimum_number_of_calls(4);
                    let layer = layer.failure_rate_threshold(0.5).wait_duration_in_open(OPEN);
                    let layer = layer.permitted_calls_in_half_open(1).build().expect("it is well set");
                    let (sender, receiver) = tokio::sync::watch::channel(false);
                    let mut service = layer.layer(service_fn(move |ask: Ask| {
                        let mut told = receiver.clone();
                        async move {
                            match ask {
                                Ask::Succeed => told.wait_for(|told| *told).await.map(drop).map_err(|_| Fault::Failed),
                                Ask::Fail => Err(Fault::Failed),
                                Ask::Hang => pending().await,
                            }
                        }
                    }));
                    let mut early = Box::pin(service.ready().await.expect("ready").call(Ask::Succeed));
                    drop(poll(early.as_mut()));
                    for _ in 0..8 {
                        let _ = service.ready().await.expect("ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    let mut probe = Box::pin(service.ready().await.expect("ready").call(Ask::Hang));
                    drop(poll(probe.as_mut()));
                    sender.send(true).expect("it waits");
                    let _ = early.await;
                    let state = service.state().await;
                    seen(state == CircuitState::HalfOpen, state)
                })
            }),
        ],
    }
}

fn hung_probe() -> Behaviour {
    fn seen(admitted: bool) -> Seen {
        Seen::new(admitted, if admitted { "another call is let in" } else { "no other call is let in" })
    }
    Behaviour {
        question: "the probes hang for good; five times the open time later, is anybody else let in?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                std::thread::sleep(LATER);
                let _hung: Vec<_> = (0..10).filter_map(|_| breaker.try_acquire().ok()).collect();
                std::thread::sleep(OPEN * 5);
                seen(breaker.try_acquire().is_ok())
            }),
            ("tower-resilience", || {
                running(async {
                    let asked = Asked::default();
                    let mut service = theirs().layer(asked.clone());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("it is ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    let mut hung = Vec::new();
                    for _ in 0..10 {
                        hung.push(Box::pin(service.ready().await.expect("it is ready").call(Ask::Hang)));
                    }
                    hung.iter_mut().for_each(|call| drop(poll(call.as_mut())));
                    std::thread::sleep(OPEN * 5);
                    let before = asked.0.load(Ordering::Relaxed);
                    let mut call = pin!(service.ready().await.expect("it is ready").call(Ask::Succeed));
                    drop(poll(call.as_mut()));
                    seen(asked.0.load(Ordering::Relaxed) > before)
                })
            }),
        ],
    }
}

fn dropped_probe() -> Behaviour {
    fn seen(admitted: bool) -> Seen {
        Seen::new(admitted, if admitted { "their places are free" } else { "their places are lost" })
    }
    Behaviour {
        question: "the callers of all probes leave before the answers: are their places free?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                std::thread::sleep(LATER);
                drop((0..10).filter_map(|_| breaker.try_acquire().ok()).collect::<Vec<_>>());
                seen(breaker.try_acquire().is_ok())
            }),
            ("tower-resilience", || {
                running(async {
                    let asked = Asked::default();
                    let mut service = theirs().layer(asked.clone());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("it is ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    for _ in 0..10 {
                        let mut left = Box::pin(service.ready().await.expect("it is ready").call(Ask::Hang));
                        drop(poll(left.as_mut()));
                    }
                    let before = asked.0.load(Ordering::Relaxed);
                    let mut call = pin!(service.ready().await.expect("it is ready").call(Ask::Succeed));
                    drop(poll(call.as_mut()));
                    seen(asked.0.load(Ordering::Relaxed) > before)
                })
            }),
        ],
    }
}

fn retry_after() -> Behaviour {
    Behaviour {
        question: "what does the error of an open circuit say of when to come back?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                let rejection = breaker.try_acquire().expect_err("it is open");
                Seen::new(rejection.retry_after().is_some(), format!("`{rejection}`"))
            }),
            ("recloser", || {
                let breaker = recloser();
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                let error = breaker.call(|| Ok::<_, ()>(())).expect_err("it is open");
                Seen::new(false, format!("`{error:?}`"))
            }),
            ("failsafe", || {
                let breaker = failsafe();
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                let error = breaker.call(|| Ok::<_, ()>(())).expect_err("it is open");
                Seen::new(false, format!("`{error:?}`"))
            }),
            ("tower-resilience", || {
                running(async {
                    let mut service = theirs().layer(Asked::default());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("it is ready").call(Ask::Fail).await;
                    }
                    let error = service.ready().await.expect("it is ready").call(Ask::Succeed).await;
                    let text = format!("{:?}", error.expect_err("it is open"));
                    Seen::new(text.contains("retry_after"), format!("`{text}`"))
                })
            }),
        ],
    }
}

pub fn all() -> Vec<Behaviour> {
    vec![slides(), half_open_is_bounded(), late_outcomes(), hung_probe(), dropped_probe(), retry_after()]
}
