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

use super::{Behaviour, Observed, poll, running};
use crate::inner::Fault;

const OPEN: Duration = Duration::from_millis(20);
/// Longer than the open duration.
const LATER: Duration = Duration::from_millis(40);

fn ours() -> CircuitBreaker {
    let builder = CircuitBreaker::builder("b").no_time_window().count_window(100).min_calls(20).open_jitter(false);
    builder.open_duration(OPEN).probes(3).probe_timeout(OPEN).build().expect("the settings are valid")
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
        .expect("the settings are valid")
}

/// The outcome that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ask {
    Succeed,
    Fail,
    Hang,
}

/// Produces the requested outcome, and counts the calls that reach it.
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

/// Makes successful and then failing calls until `call` reports a rejection.
fn first_rejected(mut call: impl FnMut(bool) -> bool) -> Observed {
    for _ in 0..10_000 {
        assert!(!call(true), "no call is rejected before the outage");
    }
    match (1..=20_000).find(|_| call(false)) {
        Some(number) => {
            Observed::new(number <= 101, format!("the first rejected call of the outage is number {number}"))
        }
        None => Observed::new(false, "none of 20,000 calls is rejected"),
    }
}

fn slides() -> Behaviour {
    Behaviour {
        question: "10,000 successes, then a total outage; window of 100 calls, trips at 50%: which call is rejected first?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                first_rejected(|ok| match breaker.try_acquire() {
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
                first_rejected(|ok| {
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
                        let _ = service.ready().await.expect("the service is ready").call(ask).await;
                        outcomes.push(service.get_ref().0.load(Ordering::Relaxed) == before);
                    }
                    let mut outcomes = outcomes.into_iter();
                    first_rejected(move |_| outcomes.next().unwrap_or(false))
                })
            }),
        ],
    }
}

fn half_open_is_bounded() -> Behaviour {
    fn observed(reached: u32) -> Observed {
        Observed::new(reached <= 10, format!("{reached} of 50 reach the service"))
    }
    Behaviour {
        question: "50 concurrent calls after the open duration, with 3 probes (or the crate's default): how many reach the service?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                std::thread::sleep(LATER);
                let permits: Vec<_> = (0..50).filter_map(|_| breaker.try_acquire().ok()).collect();
                observed(permits.len() as u32)
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
                    observed(reached.load(Ordering::Relaxed))
                })
            }),
            ("failsafe", || {
                let breaker = failsafe();
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                std::thread::sleep(LATER);
                observed((0..50).filter(|_| breaker.is_call_permitted()).count() as u32)
            }),
            ("tower-resilience", || {
                running(async {
                    let asked = Asked::default();
                    let mut service = theirs().layer(asked.clone());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("the service is ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    let before = asked.0.load(Ordering::Relaxed);
                    let mut calls = Vec::new();
                    for _ in 0..50 {
                        calls.push(Box::pin(service.ready().await.expect("the service is ready").call(Ask::Hang)));
                    }
                    calls.iter_mut().for_each(|call| drop(poll(call.as_mut())));
                    observed(asked.0.load(Ordering::Relaxed) - before)
                })
            }),
        ],
    }
}

fn late_outcomes() -> Behaviour {
    fn observed(still_half_open: bool, state: impl std::fmt::Debug) -> Observed {
        Observed::new(still_half_open, format!("the circuit is then {state:?}"))
    }
    Behaviour {
        question: "a call from before the outage succeeds while the circuit is half-open and a probe is in flight: does it change the state?",
        programs: vec![
            ("rampart", || {
                let breaker = CircuitBreaker::builder("b").no_time_window().consecutive_failures(3).no_failure_rate();
                let breaker =
                    breaker.probes(1).probe_successes(1).open_duration(OPEN).build().expect("the settings are valid");
                let early = breaker.try_acquire().expect("the circuit is closed");
                (0..3).for_each(|_| breaker.try_acquire().expect("the circuit is closed").failure());
                std::thread::sleep(LATER);
                let _probe = breaker.try_acquire().expect("the circuit is half-open");
                early.success();
                observed(breaker.state() == tower_rampart::circuit_breaker::CircuitState::HalfOpen, breaker.state())
            }),
            ("recloser", || {
                running(async {
                    // recloser decides once it has one outcome more than the length of its window.
                    let breaker = recloser::Recloser::custom().error_rate(0.5).closed_len(2).half_open_len(1);
                    let breaker = recloser::AsyncRecloser::from(breaker.open_wait(OPEN).build());
                    let (sender, receiver) = tokio::sync::watch::channel(false);
                    let early = || {
                        let mut released = receiver.clone();
                        Box::pin(breaker.call(async move {
                            released.wait_for(|released| *released).await.expect("the sender is alive");
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
                    sender.send(true).expect("the calls wait");
                    for call in early {
                        let _ = call.await;
                    }
                    // A closed circuit needs three failures to reject.
                    let mut rejected = 0;
                    for _ in 0..2 {
                        let result = breaker.call(async { Err::<(), ()>(()) }).await;
                        rejected += u32::from(matches!(result, Err(recloser::Error::Rejected)));
                    }
                    let closed = rejected == 0;
                    observed(!closed, if closed { "Closed" } else { "not closed" })
                })
            }),
            ("failsafe", || {
                let breaker = failsafe();
                assert!(breaker.is_call_permitted(), "the early call");
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                std::thread::sleep(LATER);
                assert!(breaker.is_call_permitted(), "the probe");
                // The early call completes: the breaker only receives its outcome.
                breaker.on_success();
                let closed = breaker.call(|| Err::<(), ()>(())).is_err() && breaker.is_call_permitted();
                observed(!closed, if closed { "Closed" } else { "not closed" })
            }),
            ("tower-resilience", || {
                running(async {
                    let layer = CircuitBreakerLayer::builder().sliding_window_size(4).minimum_number_of_calls(4);
                    let layer = layer.failure_rate_threshold(0.5).wait_duration_in_open(OPEN);
                    let layer = layer.permitted_calls_in_half_open(1).build().expect("the settings are valid");
                    let (sender, receiver) = tokio::sync::watch::channel(false);
                    let mut service = layer.layer(service_fn(move |ask: Ask| {
                        let mut released = receiver.clone();
                        async move {
                            match ask {
                                Ask::Succeed => {
                                    released.wait_for(|released| *released).await.map(drop).map_err(|_| Fault::Failed)
                                }
                                Ask::Fail => Err(Fault::Failed),
                                Ask::Hang => pending().await,
                            }
                        }
                    }));
                    let mut early = Box::pin(service.ready().await.expect("the service is ready").call(Ask::Succeed));
                    drop(poll(early.as_mut()));
                    for _ in 0..8 {
                        let _ = service.ready().await.expect("the service is ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    let mut probe = Box::pin(service.ready().await.expect("the service is ready").call(Ask::Hang));
                    drop(poll(probe.as_mut()));
                    sender.send(true).expect("the call waits");
                    let _ = early.await;
                    let state = service.state().await;
                    observed(state == CircuitState::HalfOpen, state)
                })
            }),
        ],
    }
}

fn hung_probe() -> Behaviour {
    fn observed(admitted: bool) -> Observed {
        Observed::new(admitted, if admitted { "another call is admitted" } else { "no other call is admitted" })
    }
    Behaviour {
        question: "all probes hang permanently: is another call admitted after five times the open duration?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                std::thread::sleep(LATER);
                let _hung: Vec<_> = (0..10).filter_map(|_| breaker.try_acquire().ok()).collect();
                std::thread::sleep(OPEN * 5);
                observed(breaker.try_acquire().is_ok())
            }),
            ("tower-resilience", || {
                running(async {
                    let asked = Asked::default();
                    let mut service = theirs().layer(asked.clone());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("the service is ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    let mut hung = Vec::new();
                    for _ in 0..10 {
                        hung.push(Box::pin(service.ready().await.expect("the service is ready").call(Ask::Hang)));
                    }
                    hung.iter_mut().for_each(|call| drop(poll(call.as_mut())));
                    std::thread::sleep(OPEN * 5);
                    let before = asked.0.load(Ordering::Relaxed);
                    let mut call = pin!(service.ready().await.expect("the service is ready").call(Ask::Succeed));
                    drop(poll(call.as_mut()));
                    observed(asked.0.load(Ordering::Relaxed) > before)
                })
            }),
        ],
    }
}

fn dropped_probe() -> Behaviour {
    fn observed(admitted: bool) -> Observed {
        Observed::new(admitted, if admitted { "the slots are released" } else { "the slots are lost" })
    }
    Behaviour {
        question: "all probes are cancelled: are their slots released?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                std::thread::sleep(LATER);
                drop((0..10).filter_map(|_| breaker.try_acquire().ok()).collect::<Vec<_>>());
                observed(breaker.try_acquire().is_ok())
            }),
            ("tower-resilience", || {
                running(async {
                    let asked = Asked::default();
                    let mut service = theirs().layer(asked.clone());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("the service is ready").call(Ask::Fail).await;
                    }
                    std::thread::sleep(LATER);
                    for _ in 0..10 {
                        let mut left = Box::pin(service.ready().await.expect("the service is ready").call(Ask::Hang));
                        drop(poll(left.as_mut()));
                    }
                    let before = asked.0.load(Ordering::Relaxed);
                    let mut call = pin!(service.ready().await.expect("the service is ready").call(Ask::Succeed));
                    drop(poll(call.as_mut()));
                    observed(asked.0.load(Ordering::Relaxed) > before)
                })
            }),
        ],
    }
}

fn retry_after() -> Behaviour {
    Behaviour {
        question: "does the error of an open circuit say when to retry?",
        programs: vec![
            ("rampart", || {
                let breaker = ours();
                breaker.open_for(OPEN);
                let rejection = breaker.try_acquire().expect_err("the circuit is open");
                Observed::new(rejection.retry_after().is_some(), format!("`{rejection}`"))
            }),
            ("recloser", || {
                let breaker = recloser();
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                let error = breaker.call(|| Ok::<_, ()>(())).expect_err("the circuit is open");
                Observed::new(false, format!("`{error:?}`"))
            }),
            ("failsafe", || {
                let breaker = failsafe();
                (0..300).for_each(|_| drop(breaker.call(|| Err::<(), ()>(()))));
                let error = breaker.call(|| Ok::<_, ()>(())).expect_err("the circuit is open");
                Observed::new(false, format!("`{error:?}`"))
            }),
            ("tower-resilience", || {
                running(async {
                    let mut service = theirs().layer(Asked::default());
                    for _ in 0..300 {
                        let _ = service.ready().await.expect("the service is ready").call(Ask::Fail).await;
                    }
                    let error = service.ready().await.expect("the service is ready").call(Ask::Succeed).await;
                    let text = format!("{:?}", error.expect_err("the circuit is open"));
                    Observed::new(text.contains("retry_after"), format!("`{text}`"))
                })
            }),
        ],
    }
}

pub fn all() -> Vec<Behaviour> {
    vec![slides(), half_open_is_bounded(), late_outcomes(), hung_probe(), dropped_probe(), retry_after()]
}
