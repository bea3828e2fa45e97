//! What is asked of a layer whose pattern lets nobody in just now: an open circuit, a full bulkhead, a limiter without
//! tokens. Each comes with what relieves it.

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

/// The saturated layer, the healthy one, and what relieves the first.
pub(crate) fn with_layers<H, L, R>((handle, relieve): (H, R), healthy: H, layer: impl Fn(&H) -> L) -> (L, L, R) {
    (layer(&handle), layer(&healthy), relieve)
}

/// Ready, whatever the pattern thinks (G15): what the call comes to.
async fn call<S>(service: &mut S) -> Result<&'static str, BoxError>
where
    S: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    service.ready().await.expect("readiness never fails").call("request").await
}

/// G15, G17: it is ready and answers with its rejection, which is found through whatever is around it; and a refused call
/// leaves nothing behind that stands in another's way.
pub(crate) async fn refuses<L>(layer: L, relieve: impl AsyncFn())
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
    assert_eq!(script.calls(), 0, "the service hears nothing of it");
    for service in &mut around {
        relieve().await;
        assert_eq!(call(service).await.unwrap(), "ok");
    }
}

/// G2, G6 to G8, rules 4 and 5: pending, and woken when there is room.
pub(crate) async fn holds_back<L>(layer: L, relieve: impl AsyncFn())
where
    L: Layer<Probe, Service: Checked>,
{
    let (script, probe) = Script::new();
    let service = layer.layer(probe);
    let mut first = Spawn::new(service.clone());
    let mut second = Spawn::new(service.clone());
    assert_pending!(first.poll_ready());
    assert_pending!(second.poll_ready());
    // A clone of one that waits does not wait, and takes no place when it is dropped.
    drop(first.clone());
    assert!(!first.is_woken() && !second.is_woken());
    relieve().await;
    assert!(first.is_woken(), "the wake-up is lost");
    // One that is woken and gives up must not keep the room.
    drop(first);
    if !second.is_woken() {
        // A limiter's waiters have places of their own, one after the other.
        super::a_second().await;
    }
    assert!(second.is_woken(), "the wake-up is lost");
    assert_ready_ok!(second.poll_ready());
    assert_eq!(second.call("request").await.unwrap(), "ok");
    assert_eq!(script.calls(), 1);
    // Room that one has in hand is not another's to lose: what is ready and goes away leaves it.
    relieve().await;
    let mut ready = Spawn::new(service.clone());
    assert_ready_ok!(ready.poll_ready());
    drop(ready);
    assert_eq!(call(&mut service.clone()).await.unwrap(), "ok");
    // A service within that fails its readiness gives it back, and is heard.
    relieve().await;
    script.set_ready(Ready::Err("broken"));
    assert_eq!(service.clone().ready().await.unwrap_err().to_string(), "broken");
    script.set_ready(Ready::Yes);
    assert_eq!(call(&mut service.clone()).await.unwrap(), "ok");
}

/// G17: those who mind readiness see the truth. `LoadShed` sheds and leaves nobody in the queue, `Buffer` waits, and a
/// balancer goes elsewhere.
pub(crate) async fn is_seen_by_others<L>(layer: L, relieve: impl AsyncFn())
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

/// G17, B34: two endpoints, one of them saturated.
pub(crate) async fn is_balanced<L>(layer: L, healthy: L, relieve: impl AsyncFn())
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
    assert!(script.calls() > 0, "it is back when it is relieved");
}

/// G9, G12: ready, and the call waits, unsent until there is room.
pub(crate) async fn waits<L>(layer: L, relieve: impl AsyncFn())
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
    // Those that give up, polled or not, are never sent, and leave their places to others.
    drop(call_of(&mut service));
    let mut first = call_of(&mut service);
    assert_pending!(first.poll());
    drop(first);
    let mut second = call_of(&mut service);
    assert_pending!(second.poll());
    relieve().await;
    assert!(second.is_woken(), "the wake-up is lost");
    assert_eq!(assert_ready!(second.poll()).unwrap(), "ok");
    drop(second);
    assert_eq!((script.calls(), script.live()), (1, 0));
    // The instance that was ready makes the call, however late; what it answers passes.
    relieve().await;
    script.reply(Reply::Err("boom".into()));
    assert_eq!(call(&mut service).await.unwrap_err().to_string(), "boom");
}

/// The tests of a row.
macro_rules! when_saturated {
    (refuses, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn it_refuses_in_the_call_and_is_understood_by_all_around() {
            let (layer, _, relieve) = $make;
            crate::saturated::refuses(layer, relieve).await;
        }
    };
    (holds_back, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn it_is_pending_and_wakes_who_waits() {
            let (layer, _, relieve) = $make;
            crate::saturated::holds_back(layer, relieve).await;
        }

        #[tokio::test(start_paused = true)]
        async fn load_shed_sheds_and_a_buffer_waits() {
            let (layer, _, relieve) = $make;
            crate::saturated::is_seen_by_others(layer, relieve).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_balancer_goes_elsewhere() {
            let (layer, healthy, relieve) = $make;
            crate::saturated::is_balanced(layer, healthy, relieve).await;
        }
    };
    (waits, $make:expr) => {
        #[tokio::test(start_paused = true)]
        async fn the_call_waits_and_is_sent_when_there_is_room() {
            let (layer, _, relieve) = $make;
            crate::saturated::waits(layer, relieve).await;
        }
    };
}

pub(crate) use when_saturated;
