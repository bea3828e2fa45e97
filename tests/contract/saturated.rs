//! Checks for saturated layers: an open circuit, a full bulkhead, a limiter without tokens. Each
//! comes with an action that relieves it.

use std::time::Duration;

use tokio_test::{assert_pending, assert_ready, assert_ready_ok, task};
use tower::{
    Layer, Service, ServiceExt, balance::p2c::Balance, buffer::Buffer, discover::ServiceList, load::Constant,
    load_shed::LoadShed, load_shed::error::Overloaded, util::BoxCloneService,
};
use tower_rampart::{AsRejection, BoxError};
use tower_test::mock::Spawn;

use super::{
    checks::Checked,
    support::probe::{Probe, Ready, Reply, Script},
};

type Boxed = BoxCloneService<&'static str, &'static str, BoxError>;

fn buffered<S: Checked>(service: S) -> Boxed {
    BoxCloneService::new(Buffer::new(service, 8))
}

/// Returns the saturated layer, a healthy one, and the action that relieves the first.
pub(crate) fn with_layers<H, L, R>((handle, relieve): (H, R), healthy: H, layer: impl Fn(&H) -> L) -> (L, L, R) {
    (layer(&handle), layer(&healthy), relieve)
}

/// Calls the service. Readiness never fails, even when saturated (G15).
async fn call<S>(service: &mut S) -> Result<&'static str, BoxError>
where
    S: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    service.ready().await.expect("readiness never fails").call("request").await
}

/// G15, G17: the layer is ready and the call returns a rejection, which callers find through other
/// middleware; a rejected call leaves nothing behind that blocks other calls.
pub(crate) async fn rejects<L>(layer: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let (script, probe) = Script::new();
    let service = layer.layer(probe);
    let mut around: [Boxed; 3] = [
        BoxCloneService::new(service.clone()),
        buffered(service.clone()),
        BoxCloneService::new(LoadShed::new(service)),
    ];
    for service in &mut around {
        for _ in 0..3 {
            let error = call(service).await.unwrap_err();
            assert!(error.as_rejection().is_some(), "{error}");
        }
    }
    assert_eq!(script.calls(), 0, "rejected calls do not reach the inner service");
    for service in &mut around {
        relieve().await;
        assert_eq!(call(service).await.unwrap(), "ok");
    }
}

/// G2, G6 to G8: pending while saturated, and woken when capacity is available.
pub(crate) async fn is_pending<L>(layer: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let (script, probe) = Script::new();
    let service = layer.layer(probe);
    let mut first = Spawn::new(service.clone());
    let mut second = Spawn::new(service.clone());
    assert_pending!(first.poll_ready());
    assert_pending!(second.poll_ready());
    // A clone of a waiting service does not wait; dropping it changes nothing.
    drop(first.clone());
    assert!(!first.is_woken() && !second.is_woken());
    relieve().await;
    assert!(first.is_woken(), "the wakeup is lost");
    // A woken waiter that is dropped must pass its capacity on.
    drop(first);
    if !second.is_woken() {
        // A limiter's waiters have slots one period apart.
        super::advance_one_second().await;
    }
    assert!(second.is_woken(), "the wakeup is lost");
    assert_ready_ok!(second.poll_ready());
    assert_eq!(second.call("request").await.unwrap(), "ok");
    assert_eq!(script.calls(), 1);
    // Dropping a ready service releases its reservation.
    relieve().await;
    let mut ready = Spawn::new(service.clone());
    assert_ready_ok!(ready.poll_ready());
    drop(ready);
    assert_eq!(call(&mut service.clone()).await.unwrap(), "ok");
    // An inner readiness error releases the reservation and passes through.
    relieve().await;
    script.set_ready(Ready::Err("broken"));
    assert_eq!(service.clone().ready().await.unwrap_err().to_string(), "broken");
    script.set_ready(Ready::Yes);
    assert_eq!(call(&mut service.clone()).await.unwrap(), "ok");
}

/// G17: middleware that polls readiness sees the saturation. `LoadShed` sheds and leaves no waiter
/// in the queue; `Buffer` waits.
pub(crate) async fn pending_is_visible<L>(layer: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let (script, probe) = Script::new();
    let service = layer.layer(probe);
    let shed = LoadShed::new(service.clone());
    for _ in 0..20 {
        let error = shed.clone().oneshot("request").await.unwrap_err();
        assert!(error.is::<Overloaded>() && error.as_rejection().is_none(), "{error}");
    }
    let mut buffered = buffered(service.clone());
    let mut queued = task::spawn(async move { call(&mut buffered).await });
    assert_pending!(queued.poll());
    tokio::task::yield_now().await;
    assert_pending!(queued.poll());
    relieve().await;
    assert_eq!(queued.await.unwrap(), "ok");
    assert_eq!(script.calls(), 1);
    relieve().await;
    assert_eq!(shed.oneshot("request").await.unwrap(), "ok");
}

/// G17, B34: a balancer over two endpoints avoids the saturated one.
pub(crate) async fn is_avoided<L>(layer: L, healthy: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let ((script, probe), (other, other_probe)) = (Script::new(), Script::new());
    let endpoints = [layer.layer(probe), healthy.layer(other_probe)].map(|service| Constant::new(service, 1_usize));
    let mut balance = Balance::new(ServiceList::new::<&'static str>(Vec::from(endpoints)));
    for _ in 0..50 {
        assert_eq!(call(&mut balance).await.unwrap(), "ok");
    }
    assert_eq!((script.calls(), other.calls()), (0, 50));
    for _ in 0..50 {
        relieve().await;
        assert_eq!(call(&mut balance).await.unwrap(), "ok");
    }
    assert!(script.calls() > 0, "it gets traffic again once relieved");
}

/// The time in which idle owners of a reservation are certain to lose it to another caller.
const BOUND: Duration = Duration::from_millis(11);

/// G31: 20 services have waited, one of them is ready, and none is polled any more. Another one is
/// ready within the bound.
pub(crate) async fn idle_services_delay_others_little<L>(layer: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let (script, probe) = Script::new();
    let service = layer.layer(probe);
    let mut idle: Vec<_> = (0..20).map(|_| Spawn::new(service.clone())).collect();
    idle.iter_mut().for_each(|idle| assert_pending!(idle.poll_ready()));
    relieve().await;
    assert_ready_ok!(idle[0].poll_ready());
    let mut other = service.clone();
    let called = tokio::time::timeout(BOUND, call(&mut other)).await.expect("it does not wait for idle services");
    assert_eq!(called.unwrap(), "ok");
    // The ready one has lost its reservation. Its call is made or rejected; the next one is made.
    if let Err(error) = idle[0].call("request").await {
        assert!(error.as_rejection().is_some(), "{error}");
    }
    let calls = script.calls();
    assert_eq!(tokio::time::timeout(BOUND, call(&mut other)).await.unwrap().unwrap(), "ok");
    assert_eq!((script.calls(), script.live()), (calls + 1, 0));
}

/// G31: 20 calls have waited, and none is polled any more. Another one is made within the bound.
pub(crate) async fn idle_calls_delay_others_little<L>(layer: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let (script, probe) = Script::new();
    let mut service = layer.layer(probe);
    let mut idle = Vec::new();
    for _ in 0..20 {
        let mut call = task::spawn(service.ready().await.unwrap().call("idle"));
        assert_pending!(call.poll());
        idle.push(call);
    }
    relieve().await;
    let called = tokio::time::timeout(BOUND, call(&mut service)).await.expect("it does not wait for idle calls");
    assert_eq!(called.unwrap(), "ok");
    assert_eq!(script.requests(), ["request"]);
    // They are made when they are polled again.
    assert!(futures_util::future::join_all(idle).await.into_iter().all(|result| result.is_ok()));
    assert_eq!(script.calls(), 21);
}

/// G9, G12: the layer is ready, and the call waits unsent until capacity is available.
pub(crate) async fn queues<L>(layer: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let (script, probe) = Script::new();
    let mut service = layer.layer(probe);
    let call_of = |service: &mut L::Service| {
        let mut ready = Spawn::new(service.clone());
        assert_ready_ok!(ready.poll_ready());
        task::spawn(ready.call("request"))
    };
    // Dropped calls, polled or not, are never sent and leave their queue slots to others.
    drop(call_of(&mut service));
    let mut first = call_of(&mut service);
    assert_pending!(first.poll());
    drop(first);
    let mut second = call_of(&mut service);
    assert_pending!(second.poll());
    relieve().await;
    assert!(second.is_woken(), "the wakeup is lost");
    assert_eq!(assert_ready!(second.poll()).unwrap(), "ok");
    drop(second);
    assert_eq!((script.calls(), script.live()), (1, 0));
    // The instance that was polled ready makes the delayed call, and its result passes through.
    relieve().await;
    script.reply(Reply::Err("boom".into()));
    assert_eq!(call(&mut service).await.unwrap_err().to_string(), "boom");
}

/// Generates the tests for a row of the table.
macro_rules! when_saturated {
    (rejects, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn the_call_returns_a_rejection_that_is_found_through_other_middleware() {
            let (layer, _, relieve) = $make;
            crate::saturated::rejects(layer, relieve).await;
        }
    };
    (is_pending, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn readiness_is_pending_and_its_waiters_are_woken() {
            let (layer, _, relieve) = $make;
            crate::saturated::is_pending(layer, relieve).await;
        }

        #[tokio::test(start_paused = true)]
        async fn load_shed_sheds_and_buffer_waits() {
            let (layer, _, relieve) = $make;
            crate::saturated::pending_is_visible(layer, relieve).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_balancer_avoids_the_saturated_endpoint() {
            let (layer, healthy, relieve) = $make;
            crate::saturated::is_avoided(layer, healthy, relieve).await;
        }
    };
    (idle_services_delay_others_little, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn idle_services_delay_others_by_at_most_the_bound() {
            let (layer, _, relieve) = $make;
            crate::saturated::idle_services_delay_others_little(layer, relieve).await;
        }
    };
    (idle_calls_delay_others_little, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn idle_calls_delay_others_by_at_most_the_bound() {
            let (layer, _, relieve) = $make;
            crate::saturated::idle_calls_delay_others_little(layer, relieve).await;
        }
    };
    (queues, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn the_call_waits_and_is_sent_when_capacity_is_available() {
            let (layer, _, relieve) = $make;
            crate::saturated::queues(layer, relieve).await;
        }
    };
}

pub(crate) use when_saturated;
