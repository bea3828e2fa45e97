//! Owners of permits that are not polled any more: queue slots, grants and readiness that idle
//! services keep.

use std::{pin::pin, task::Poll, time::Duration};

use futures_util::future::join_all;
use tokio::time::{advance, sleep};
use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower::{Layer, Service, ServiceExt, load_shed::LoadShed, service_fn};
use tower_rampart::{
    BoxError, Rejection,
    bulkhead::{Bulkhead, BulkheadService},
    readiness::Backpressure,
};

use crate::support::{call, poll_ready, probe::Script, rejection_of};

const TICK: Duration = Duration::from_millis(1);
/// The time in which an idle reservation is certain to lapse.
const BOUND: Duration = Duration::from_millis(11);

fn in_use(bulkhead: &Bulkhead) -> (u32, u32, u32) {
    let snapshot = bulkhead.snapshot();
    (snapshot.in_flight, snapshot.reserved, snapshot.waiting)
}

/// `clones` services are called at once, then `active` of them make 1,000 calls in all. Returns how
/// many of these succeed.
async fn calls_beside_idle_clones(clones: usize, active: usize, work: Duration) -> usize {
    let bulkhead = Bulkhead::new("db", 10).unwrap();
    let layer = bulkhead.layer().backpressure();
    let service = layer.layer(service_fn(move |()| async move {
        sleep(work).await;
        Ok::<_, BoxError>(())
    }));
    let shed = LoadShed::new(service);
    let mut clones: Vec<_> = (0..clones).map(|_| shed.clone()).collect();
    let burst = clones.iter_mut().map(async |service| service.ready().await.unwrap().call(()).await.is_ok());
    assert_eq!(join_all(burst).await.into_iter().filter(|ok| *ok).count(), 10);
    let calls = clones[..active].iter_mut().map(async |service| {
        let mut succeeded = 0;
        for _ in 0..1_000 / active {
            match service.ready().await.unwrap().call(()).await {
                Ok(()) => succeeded += 1,
                Err(_) => sleep(work).await,
            }
        }
        succeeded
    });
    let succeeded = join_all(calls).await.into_iter().sum();
    assert_eq!(bulkhead.snapshot().in_flight - bulkhead.snapshot().reserved, 0, "nothing is running");
    succeeded
}

// G31, K35
#[tokio::test(start_paused = true)]
async fn idle_clones_under_load_shed_cost_the_others_little() {
    for (clones, work) in [(20, 5), (20, 2), (20, 10), (30, 5), (50, 3), (200, 5), (2_000, 5)] {
        let succeeded = calls_beside_idle_clones(clones, 10, TICK * work).await;
        assert!(succeeded >= 950, "{clones} clones, {work} ms: {succeeded}");
    }
}

// K35
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_clones_on_several_threads_cost_the_others_little() {
    for clones in [20, 200] {
        let succeeded = tokio::spawn(calls_beside_idle_clones(clones, 10, TICK * 5)).await.unwrap();
        assert!(succeeded >= 950, "{clones} clones: {succeeded}");
    }
}

type Service_ = BulkheadService<crate::support::probe::Probe, Backpressure>;

fn full_of_idle_services(limit: u32) -> (Script, Bulkhead, Vec<Service_>, Service_) {
    let (script, probe) = Script::new();
    let bulkhead = Bulkhead::new("db", limit).unwrap();
    let service = bulkhead.layer().backpressure().layer(probe);
    let mut idle: Vec<_> = (0..limit).map(|_| task::spawn(service.clone())).collect();
    idle.iter_mut().for_each(|idle| assert_ready_ok!(poll_ready(idle)));
    (script, bulkhead, idle.into_iter().map(task::Spawn::into_inner).collect(), service)
}

// G31, K35
#[tokio::test(start_paused = true)]
async fn a_waiter_gets_the_permit_of_an_idle_ready_service() {
    let (_, bulkhead, mut idle, mut other) = full_of_idle_services(2);
    let waited = tokio::time::timeout(BOUND, call(&mut other)).await.expect("it waits no longer");
    assert!(waited.is_ok());
    assert_eq!(in_use(&bulkhead), (1, 1, 0), "one of the idle services has lost its permit");
    // Both can be called: a permit is free.
    for idle in &mut idle {
        assert!(idle.call("late").await.is_ok());
    }
    assert_eq!(in_use(&bulkhead), (0, 0, 0));
}

// K18, K35
#[tokio::test(start_paused = true)]
async fn readiness_is_kept_while_no_other_caller_needs_the_permit() {
    let (script, bulkhead, mut idle, _) = full_of_idle_services(1);
    advance(Duration::from_secs(3600)).await;
    assert!(idle[0].call("late").await.is_ok());
    assert_eq!((script.calls(), in_use(&bulkhead)), (1, (0, 0, 0)));
}

// K35
#[tokio::test(start_paused = true)]
async fn a_service_that_lost_its_permit_is_rejected_if_no_other_is_free_and_pending_if_it_is_polled() {
    let (script, bulkhead, mut idle, _) = full_of_idle_services(1);
    assert!(bulkhead.try_acquire().is_err(), "it begins to lapse");
    advance(TICK * 4).await;
    assert!(bulkhead.try_acquire().is_err(), "it is kept for 5 ms");
    advance(TICK).await;
    let permit = bulkhead.try_acquire().unwrap();
    let mut idle = task::spawn(idle.remove(0));
    let rejected = idle.enter(|_, mut service| service.call("late")).await;
    assert!(matches!(rejection_of(&rejected), Some(Rejection::BulkheadFull { .. })));
    assert_pending!(poll_ready(&mut idle));
    assert_eq!((script.calls(), in_use(&bulkhead)), (0, (1, 0, 1)));
    drop(permit);
    assert!(idle.is_woken());
    assert_ready_ok!(poll_ready(&mut idle));
    assert!(idle.enter(|_, mut service| service.call("again")).await.is_ok());
    drop(idle);
    assert_eq!(in_use(&bulkhead), (0, 0, 0));
}

// K18
#[tokio::test(start_paused = true)]
async fn polling_a_ready_service_keeps_its_permit() {
    let (_, bulkhead, mut idle, _) = full_of_idle_services(1);
    let mut idle = task::spawn(idle.remove(0));
    for _ in 0..100 {
        advance(TICK).await;
        assert!(bulkhead.try_acquire().is_err());
        assert_ready_ok!(poll_ready(&mut idle));
    }
    assert!(idle.enter(|_, mut service| service.call("a")).await.is_ok());
}

// K35
#[tokio::test(start_paused = true)]
async fn a_grant_that_is_not_taken_up_goes_to_the_next_waiter_and_its_owner_rejoins_in_front() {
    let bulkhead =
        Bulkhead::builder("db").max_concurrent(1).max_wait(Duration::from_secs(1)).max_queue(9).build().unwrap();
    let first = bulkhead.try_acquire().unwrap();
    let [mut stuck, mut next, mut last] = [(); 3].map(|()| task::spawn(bulkhead.acquire()));
    assert_pending!(stuck.poll());
    assert_pending!(next.poll());
    assert_pending!(last.poll());
    drop(first);
    assert!(stuck.is_woken());
    let mut waited = Duration::ZERO;
    let taken = loop {
        if let Poll::Ready(taken) = next.poll() {
            break taken.unwrap();
        }
        advance(TICK).await;
        waited += TICK;
        assert!(waited <= BOUND, "it takes the permit of the waiter that is stuck");
    };
    // `stuck` is polled at last. It has lost its permit, but not its place.
    assert_pending!(stuck.poll());
    drop(taken);
    assert!(stuck.is_woken());
    assert!(bulkhead.try_acquire().is_err() && last.poll().is_pending(), "its second grant is exclusive");
    drop(assert_ready!(stuck.poll()).unwrap());
    drop(assert_ready!(last.poll()).unwrap());
    assert_eq!(in_use(&bulkhead), (0, 0, 0));
}

// K35: with no other caller to notice it, the waiter's own timer does.
#[tokio::test(start_paused = true)]
async fn a_parked_waiter_notices_idle_waiters_before_it_without_other_traffic() {
    for idle in [1_usize, 5, 30] {
        let bulkhead = Bulkhead::new("db", 2).unwrap();
        let permits = [bulkhead.try_acquire().unwrap(), bulkhead.try_acquire().unwrap()];
        let service = bulkhead.layer().backpressure().layer(Script::new().1);
        let mut idle: Vec<_> = (0..idle).map(|_| task::spawn(service.clone())).collect();
        idle.iter_mut().for_each(|idle| assert_pending!(poll_ready(idle)));
        let mut parked = service.clone();
        let mut parked = pin!(call(&mut parked));
        assert!(futures_util::poll!(parked.as_mut()).is_pending());
        drop(permits);
        let bound = BOUND * (1 + idle.len() as u32 / 2);
        assert!(tokio::time::timeout(bound, parked).await.expect("it is not stuck").is_ok());
    }
}

// K11, K35
#[tokio::test(start_paused = true)]
async fn waiters_that_take_up_their_grants_are_served_in_order_beside_callers_that_ask_all_the_time() {
    let bulkhead = Bulkhead::builder("db").max_concurrent(1).max_wait(Duration::MAX).max_queue(1_000).build().unwrap();
    let permit = bulkhead.try_acquire().unwrap();
    let mut served = Vec::new();
    let mut waiters: Vec<_> = (0..50).map(|_| task::spawn(bulkhead.acquire())).collect();
    waiters.iter_mut().for_each(|waiter| assert_pending!(waiter.poll()));
    drop(permit);
    while served.len() < waiters.len() {
        advance(TICK).await;
        assert!(bulkhead.try_acquire().is_err(), "it does not overtake");
        for (number, waiter) in waiters.iter_mut().enumerate() {
            if waiter.is_woken()
                && let Poll::Ready(permit) = waiter.poll()
            {
                served.push(number);
                drop(permit);
                break;
            }
        }
    }
    assert!(served.is_sorted());
}

// K35
#[tokio::test(start_paused = true)]
async fn an_idle_balancer_does_not_keep_the_permits_of_its_endpoints() {
    use tower::{balance::p2c::Balance, discover::ServiceList, load::Constant};

    let bulkheads = [(); 3].map(|()| Bulkhead::new("db", 1).unwrap());
    let balancer = || {
        let endpoints = bulkheads.iter().map(|bulkhead| bulkhead.layer().backpressure().layer(Script::new().1));
        Balance::new(ServiceList::new::<&'static str>(endpoints.map(|service| Constant::new(service, 1_usize))))
    };
    let (mut idle, mut other) = (balancer(), balancer());
    assert!(call(&mut idle).await.is_ok());
    assert!(idle.ready().await.is_ok());
    assert!(bulkheads.iter().any(|bulkhead| bulkhead.snapshot().in_flight == 1));
    for _ in 0..100 {
        assert!(tokio::time::timeout(BOUND, call(&mut other)).await.expect("it is not stuck").is_ok());
    }
    assert!(call(&mut idle).await.is_ok(), "an idle client goes on as before");
}

// K12, K35: a permit that lapses after the maximum wait does not admit the call.
#[tokio::test(start_paused = true)]
async fn a_waiter_whose_grant_lapsed_is_rejected_at_the_end_of_its_wait() {
    let bulkhead = Bulkhead::queued("db", 1, TICK * 100).unwrap();
    let permit = bulkhead.try_acquire().unwrap();
    let mut stuck = task::spawn(bulkhead.acquire());
    assert_pending!(stuck.poll());
    drop(permit);
    assert!(bulkhead.try_acquire().is_err());
    advance(TICK * 5).await;
    let taken = bulkhead.try_acquire().unwrap();
    assert_pending!(stuck.poll());
    assert_eq!(in_use(&bulkhead), (1, 0, 1));
    advance(TICK * 100).await;
    assert!(matches!(assert_ready!(stuck.poll()).map(drop), Err(Rejection::QueueTimeout { .. })));
    drop(taken);
    assert_eq!(in_use(&bulkhead), (0, 0, 0));
}

// G26, K35
#[test]
fn grants_and_readiness_that_lapse_under_concurrency_leave_no_permit_behind() {
    let bulkhead =
        Bulkhead::builder("db").max_concurrent(3).max_wait(Duration::from_millis(20)).max_queue(50).build().unwrap();
    let probe = Script::new().1;
    crate::support::on_threads(4, |thread| {
        let (bulkhead, probe) = (bulkhead.clone(), probe.clone());
        async move {
            let service = bulkhead.layer().backpressure().layer(probe);
            let mut idle = Vec::new();
            for round in 0..60_usize {
                let mut service = service.clone();
                match (round + thread) % 3 {
                    // Ready or queued, and idle from now on.
                    0 => {
                        let _ = futures_util::poll!(service.ready());
                        idle.push(service);
                    }
                    1 => drop(tokio::time::timeout(Duration::from_millis(30), call(&mut service)).await),
                    _ => drop(bulkhead.acquire().await),
                }
                if round % 7 == 0 && !idle.is_empty() {
                    let mut late = idle.swap_remove(round % idle.len());
                    let ready = futures_util::poll!(late.ready()).is_ready();
                    if ready {
                        drop(late.call("late").await);
                    }
                }
            }
        }
    });
    assert_eq!(in_use(&bulkhead), (0, 0, 0));
    assert_eq!((0..3).filter_map(|_| bulkhead.try_acquire_owned().ok().map(std::mem::forget)).count(), 3);
}
