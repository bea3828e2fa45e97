//! The layer with backpressure.

use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{
    AsRejection, DefaultClassifier,
    circuit_breaker::{CircuitBreaker, CircuitBreakerService, CircuitState},
    readiness::Backpressure,
};

use super::{OPEN, consecutive, failure};
use crate::support::{
    call, on_threads, poll_ready,
    probe::{Probe, Ready, Reply, Script},
};

type Service_ = CircuitBreakerService<Probe, DefaultClassifier, Backpressure>;

async fn open() -> (Script, CircuitBreaker, Service_) {
    let (script, probe) = Script::new();
    let breaker = consecutive(1).build().unwrap();
    let mut service = breaker.layer().backpressure().layer(probe);
    script.reply(failure());
    assert!(call(&mut service).await.is_err());
    (script, breaker, service)
}

// B33
#[tokio::test(start_paused = true)]
async fn an_open_circuit_is_pending_and_wakes_its_waiter_at_the_deadline() {
    let (script, breaker, service) = open().await;
    let polls = script.ready_polls();
    let mut service = task::spawn(service);
    assert_pending!(poll_ready(&mut service));
    assert_eq!(script.ready_polls(), polls, "the inner service is not polled");
    tokio::time::advance(OPEN / 2).await;
    assert!(!service.is_woken());
    tokio::time::advance(OPEN / 2 + Duration::from_millis(1)).await;
    assert!(service.is_woken());
    assert!(assert_ready!(poll_ready(&mut service)).is_ok());
    assert_eq!(breaker.snapshot().probes_in_flight, 1, "the probe slot is reserved");
    assert!(service.enter(|_, mut service| service.call("probe")).await.is_ok());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// B33, B31
#[tokio::test(start_paused = true)]
async fn closing_wakes_all_waiters() {
    let (_, breaker, service) = open().await;
    breaker.force_open();
    let mut waiting: Vec<_> = (0..5).map(|_| task::spawn(service.clone())).collect();
    for service in &mut waiting {
        assert_pending!(poll_ready(service));
    }
    breaker.close();
    for service in &mut waiting {
        assert!(service.is_woken());
        assert!(assert_ready!(poll_ready(service)).is_ok());
    }
}

// G8, G7, B20
#[tokio::test(start_paused = true)]
async fn dropping_a_ready_service_passes_its_probe_slot_to_a_waiter() {
    let (_, breaker, service) = open().await;
    tokio::time::advance(OPEN).await;
    let mut first = task::spawn(service.clone());
    let mut second = task::spawn(service);
    assert!(assert_ready!(poll_ready(&mut first)).is_ok());
    assert_pending!(poll_ready(&mut second));
    let clone = first.enter(|_, service| service.clone());
    drop(clone);
    assert_pending!(poll_ready(&mut second));
    drop(first);
    assert!(second.is_woken());
    assert!(assert_ready!(poll_ready(&mut second)).is_ok());
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
    drop(second);
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
}

// G8
#[tokio::test(start_paused = true)]
async fn no_probe_slot_is_held_while_the_inner_service_is_not_ready() {
    let (script, breaker, service) = open().await;
    tokio::time::advance(OPEN).await;
    script.set_ready(Ready::No);
    let mut service = task::spawn(service);
    assert_pending!(poll_ready(&mut service));
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
    script.set_ready(Ready::Yes);
    assert!(service.is_woken());
    assert!(assert_ready!(poll_ready(&mut service)).is_ok());
}

// B35
#[tokio::test(start_paused = true)]
async fn a_call_is_rejected_if_the_circuit_opens_after_readiness() {
    let (_, breaker, mut service) = open().await;
    breaker.close();
    service.ready().await.unwrap();
    breaker.force_open();
    assert!(service.call("late").await.unwrap_err().as_rejection().is_some());
}

// B35: a reservation does not outlive the half-open state it was made in.
#[tokio::test(start_paused = true)]
async fn a_reserved_probe_slot_is_void_once_the_circuit_reopens() {
    let (script, probe) = Script::new();
    let breaker = consecutive(1).probes(2).build().unwrap();
    let mut first = breaker.layer().backpressure().layer(probe);
    let mut second = first.clone();
    script.reply(failure());
    assert!(call(&mut first).await.is_err());
    tokio::time::advance(OPEN).await;
    second.ready().await.unwrap();
    script.reply(failure());
    assert!(call(&mut first).await.is_err(), "the other probe fails");
    assert_eq!(breaker.state(), CircuitState::Open);
    let calls = script.calls();
    assert!(second.call("late").await.unwrap_err().as_rejection().is_some());
    assert_eq!(script.calls(), calls);
}

// B31
#[tokio::test(start_paused = true)]
async fn forcing_the_circuit_open_makes_a_ready_service_pending_again() {
    let (script, breaker, service) = open().await;
    tokio::time::advance(OPEN).await;
    let mut service = task::spawn(service);
    assert!(assert_ready!(poll_ready(&mut service)).is_ok());
    breaker.force_open();
    assert_pending!(poll_ready(&mut service));
    breaker.half_open();
    assert!(service.is_woken());
    assert!(assert_ready!(poll_ready(&mut service)).is_ok());
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
    breaker.force_open();
    assert!(service.enter(|_, mut service| service.call("late")).await.is_err());
    assert_eq!(script.calls(), 1);
}

/// The time in which the reservation of an idle service is certain to lapse.
const BOUND: Duration = Duration::from_millis(6);

// B24, G31
#[tokio::test(start_paused = true)]
async fn an_idle_ready_service_loses_its_probe_slot_to_a_waiter() {
    let (_, breaker, mut idle) = open().await;
    tokio::time::advance(OPEN).await;
    let mut waiting = task::spawn(idle.clone());
    idle.ready().await.unwrap();
    assert_pending!(poll_ready(&mut waiting));
    tokio::time::advance(BOUND).await;
    assert!(waiting.is_woken());
    assert!(assert_ready!(poll_ready(&mut waiting)).is_ok());
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
    assert!(idle.call("late").await.unwrap_err().as_rejection().is_some(), "its slot now belongs to another service");
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
    assert!(waiting.enter(|_, mut service| service.call("probe")).await.is_ok());
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// G3, G31
#[tokio::test(start_paused = true)]
async fn a_probe_slot_is_kept_while_no_other_caller_needs_it_or_its_service_is_polled() {
    let (_, breaker, mut ready) = open().await;
    tokio::time::advance(OPEN).await;
    let mut waiting = task::spawn(ready.clone());
    ready.ready().await.unwrap();
    tokio::time::advance(Duration::from_secs(20)).await;
    for _ in 0..50 {
        assert!(ready.ready().await.is_ok());
        assert_pending!(poll_ready(&mut waiting));
        assert!(breaker.try_acquire().is_err());
        tokio::time::advance(Duration::from_millis(4)).await;
    }
    assert!(ready.call("probe").await.is_ok());
    assert_eq!(breaker.state(), CircuitState::Closed);
    assert!(waiting.is_woken());
}

// B24, G31
#[tokio::test(start_paused = true)]
async fn callers_in_other_modes_take_the_probe_slot_of_an_idle_service() {
    for by_handle in [true, false] {
        let (script, breaker, mut idle) = open().await;
        tokio::time::advance(OPEN).await;
        idle.ready().await.unwrap();
        let mut rejecting = breaker.layer().layer(idle.get_ref().clone());
        assert!(call(&mut rejecting).await.unwrap_err().as_rejection().is_some(), "it is kept for 5 ms");
        tokio::time::advance(BOUND).await;
        if by_handle {
            breaker.try_acquire().unwrap().success();
        } else {
            assert!(call(&mut rejecting).await.is_ok());
        }
        assert_eq!((breaker.state(), script.requests().len()), (CircuitState::Closed, 2 - usize::from(by_handle)));
        assert!(idle.call("late").await.is_ok(), "the circuit is closed");
    }
}

// B20, G31: of a slot that was taken over, the first owner releases nothing.
#[tokio::test(start_paused = true)]
async fn dropping_an_idle_service_does_not_release_the_probe_slot_of_another() {
    let (_, breaker, mut idle) = open().await;
    tokio::time::advance(OPEN).await;
    let mut other = idle.clone();
    idle.ready().await.unwrap();
    tokio::time::advance(BOUND).await;
    other.ready().await.unwrap();
    drop(idle);
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
    assert!(breaker.try_acquire().is_err());
    drop(other);
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
}

// B31, G31: reservations of an earlier half-open state neither admit a call nor delay a rejection.
#[tokio::test(start_paused = true)]
async fn a_reservation_of_an_earlier_state_is_void() {
    let (script, breaker, mut idle) = open().await;
    tokio::time::advance(OPEN).await;
    idle.ready().await.unwrap();
    breaker.force_open();
    tokio::time::advance(BOUND).await;
    script.set_ready(Ready::No);
    let mut rejecting = breaker.layer().layer(idle.get_ref().clone());
    for _ in 0..3 {
        assert!(call(&mut rejecting).await.unwrap_err().as_rejection().is_some(), "immediately");
    }
    breaker.half_open();
    let probe = breaker.try_acquire().unwrap();
    assert!(idle.call("late").await.unwrap_err().as_rejection().is_some());
    assert_eq!(breaker.snapshot().probes_in_flight, 1);
    probe.success();
}

// G31: one of the clones is ready and the others wait; none is polled any more.
#[tokio::test(start_paused = true)]
async fn idle_clones_under_load_shed_do_not_keep_the_circuit_half_open() {
    let (_, breaker, service) = open().await;
    tokio::time::advance(OPEN).await;
    let mut clones: Vec<_> = (0..20).map(|_| tower::load_shed::LoadShed::new(service.clone())).collect();
    for clone in &mut clones {
        clone.ready().await.unwrap();
    }
    let mut succeeded = 0;
    for round in 0..1_000 {
        let clone = &mut clones[10 + round % 10];
        succeeded += usize::from(clone.ready().await.unwrap().call("request").await.is_ok());
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    assert!(succeeded >= 990, "{succeeded}");
    assert_eq!(breaker.state(), CircuitState::Closed);
}

// B34: one of five endpoints is broken.
#[tokio::test(start_paused = true)]
async fn a_balancer_sends_nothing_to_an_open_circuit() {
    use tower::{balance::p2c::Balance, discover::ServiceList, load::Constant};

    let endpoints: Vec<_> = (0..5)
        .map(|_| {
            let (script, probe) = Script::new();
            let breaker = consecutive(1).build().unwrap();
            (script, breaker.clone(), breaker.layer().backpressure().layer(probe))
        })
        .collect();
    let broken = endpoints[0].1.clone();
    broken.force_open();
    let scripts: Vec<_> = endpoints.iter().map(|(script, ..)| script.clone()).collect();
    let services = endpoints.into_iter().map(|(_, _, service)| Constant::new(service, 1_usize));
    let mut balance = Balance::new(ServiceList::new::<&'static str>(services));
    for _ in 0..200 {
        assert!(balance.ready().await.unwrap().call("request").await.is_ok());
    }
    assert_eq!(scripts[0].calls(), 0);
    assert!(scripts[1..].iter().all(|script| script.calls() > 20));
    broken.close();
    for _ in 0..200 {
        assert!(balance.ready().await.unwrap().call("request").await.is_ok());
    }
    assert!(scripts[0].calls() > 10, "it gets traffic again once closed");
}

// G26
#[test]
fn every_waiter_is_woken_under_concurrency() {
    let (script, probe) = Script::new();
    let breaker = consecutive(1).open_duration(Duration::from_millis(1)).open_growth(1.0, Duration::from_millis(1));
    let breaker = breaker.build().unwrap();
    on_threads(8, |thread| {
        let (script, probe, breaker) = (script.clone(), probe.clone(), breaker.clone());
        async move {
            let services = (0..25).map(|_| breaker.layer().backpressure().layer(probe.clone()));
            let calls = services.map(|mut service| {
                let script = script.clone();
                async move {
                    for round in 0..5 {
                        if (round + thread) % 4 == 0 {
                            script.reply(Reply::Err("boom".into()));
                        }
                        let _ = call(&mut service).await;
                    }
                }
            });
            // Completes only if every waiter is woken.
            futures_util::future::join_all(calls).await;
        }
    });
    assert_eq!(breaker.snapshot().probes_in_flight, 0);
}
