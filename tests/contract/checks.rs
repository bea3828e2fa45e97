//! What is asked of a layer around a service that is `Clone`.

use std::{
    fmt::Debug,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::Poll,
};

use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    buffer::Buffer,
    load_shed::LoadShed,
    service_fn,
    util::{BoxCloneService, BoxService, Either, option_layer},
};
use tower_rampart::{AsRejection, BoxError};
use tower_test::{assert_request_eq, mock};

use super::support::{
    on_threads, poll_once,
    probe::{Probe, Ready, Reply, Script},
};

pub(crate) type Mock = mock::Mock<&'static str, &'static str>;

/// A service as the checks need it.
pub(crate) trait Checked:
    Service<&'static str, Response = &'static str, Error = BoxError, Future: Send + Debug> + Clone + Debug + Send + 'static
{
}

impl<S> Checked for S where
    S: Service<&'static str, Response = &'static str, Error = BoxError, Future: Send + Debug>
        + Clone
        + Debug
        + Send
        + 'static
{
}

pub(crate) async fn answers<S: Checked>(service: &mut S) {
    assert_eq!(service.ready().await.unwrap().call("again").await.unwrap(), "ok");
}

/// G1, G2, G3: unready as the service within is, woken when it becomes ready, and ready until the call.
pub(crate) async fn readiness<L>(layer: L)
where
    L: Layer<Mock>,
    L::Service: Checked,
{
    let (mut service, mut handle) = mock::spawn_layer(layer);
    handle.allow(0);
    tokio_test::assert_pending!(service.poll_ready());
    assert!(!service.is_woken());
    handle.allow(1);
    assert!(service.is_woken(), "the wake-up is lost");
    tokio_test::assert_ready_ok!(service.poll_ready());
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut response = tokio_test::task::spawn(service.call("one"));
    tokio_test::assert_pending!(response.poll());
    assert_request_eq!(handle, "one").send_response("answer");
    assert!(response.is_woken());
    assert_eq!(tokio_test::assert_ready_ok!(response.poll()), "answer");
    // Readiness is for one call.
    tokio_test::assert_pending!(service.poll_ready());
}

/// G14, G15: an error of readiness passes, and is none of ours.
pub(crate) fn readiness_errors<L>(layer: L)
where
    L: Layer<Mock>,
    L::Service: Checked,
{
    let (mut service, mut handle) = mock::spawn_layer(layer);
    handle.send_error("broken");
    let Poll::Ready(Err(error)) = service.poll_ready() else { panic!("it is not ready") };
    assert!(error.as_rejection().is_none());
    assert_eq!(error.to_string(), "broken");
}

/// G5, G6, G7: the instance that was polled makes the call; a clone has no readiness and takes none away.
pub(crate) async fn clones<S: Checked>(mut service: S, script: &Script) {
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert_eq!(service.call("one").await.unwrap(), "ok");
    answers(&mut clone).await;
    assert_eq!(script.requests(), ["one", "again"]);
}

/// G8: a readiness that is never used is given back.
pub(crate) async fn unused_readiness<S: Checked>(service: S) {
    for _ in 0..20 {
        service.clone().ready().await.unwrap();
    }
    answers(&mut service.clone()).await;
}

/// G9, G10: a call that is dropped, unpolled or under way, gives back what it held and leaves nothing running.
pub(crate) async fn dropped_calls<S: Checked>(mut service: S, script: &Script) {
    for polled in [false, true] {
        script.reply(Reply::Later);
        let mut response = Box::pin(service.ready().await.unwrap().call("dropped"));
        if polled {
            assert!(poll_once(response.as_mut()).is_pending());
        }
        drop(response);
        assert_eq!(script.live(), 0);
    }
    // A layer that calls when it is polled has not called the first time.
    script.forget_replies();
    answers(&mut service).await;
}

/// G11: what a call held is free when it ends, however long its future is kept.
pub(crate) async fn kept_futures<S: Checked>(mut service: S) {
    let mut response = Box::pin(service.ready().await.unwrap().call("one"));
    assert_eq!(response.as_mut().await.unwrap(), "ok");
    answers(&mut service).await;
    drop(response);
    answers(&mut service).await;
}

/// G12, G13: results pass by value; the error is the very same.
pub(crate) async fn results<S: Checked>(mut service: S, script: &Script) {
    assert_eq!(service.ready().await.unwrap().call("one").await.unwrap(), "ok");
    let error: BoxError = "broken".into();
    let address = &raw const *error as *const ();
    script.reply(Reply::Err(error));
    let error = service.ready().await.unwrap().call("two").await.unwrap_err();
    assert_eq!(&raw const *error as *const (), address);
}

/// A panic of the service, in `call` or in its future, costs its own call and nothing else.
pub(crate) async fn panics<S: Checked>(mut service: S, script: &Script) {
    for reply in [Reply::PanicInCall, Reply::PanicInPoll] {
        script.reply(reply);
        service.ready().await.unwrap();
        let call = AssertUnwindSafe(|| drop(poll_once(Box::pin(service.call("one")))));
        assert!(catch_unwind(call).is_err());
        assert_eq!(script.live(), 0);
    }
    answers(&mut service).await;
}

/// Outside of a runtime a layer and its service are made, made ready and called (G22).
pub(crate) fn no_runtime<S: Checked>(mut service: S) {
    assert!(poll_once(std::future::poll_fn(|cx| service.poll_ready(cx))).is_ready());
    assert_eq!(poll_once(service.call("one")).map(Result::unwrap), Poll::Ready("ok"));
}

/// G20: the layer itself can be cloned, sent and shared; its clones make services that work.
pub(crate) fn is_shared<L: Clone + Send + Sync + 'static>(layer: L) -> L {
    layer.clone()
}

/// G16, G17, G18: within and around what tower has.
pub(crate) async fn company<S: Checked>(mut service: S) {
    let by_reference = &mut service;
    assert_eq!(by_reference.ready().await.unwrap().call("one").await.unwrap(), "ok");
    let mut boxed: Box<dyn Service<_, Response = _, Error = _, Future = _> + Send> = Box::new(service.clone());
    assert_eq!(boxed.ready().await.unwrap().call("one").await.unwrap(), "ok");
    assert_eq!(BoxService::new(service.clone()).oneshot("one").await.unwrap(), "ok");
    assert_eq!(BoxCloneService::new(service.clone()).oneshot("one").await.unwrap(), "ok");
    assert_eq!(LoadShed::new(service.clone()).oneshot("one").await.unwrap(), "ok");
    let buffered: Buffer<&'static str, S::Future> = Buffer::new(service.clone(), 4);
    assert_eq!(buffered.oneshot("one").await.unwrap(), "ok");
    let either: Either<S, S> = Either::Right(service.clone());
    assert_eq!(either.oneshot("one").await.unwrap(), "ok");
}

/// G18: present or absent.
pub(crate) async fn optional<L>(layer: L)
where
    L: Layer<Probe, Service: Checked>,
{
    for layer in [Some(layer), None] {
        let (_, probe) = Script::new();
        let service = ServiceBuilder::new().layer(option_layer(layer)).service(probe);
        assert_eq!(service.oneshot("one").await.unwrap(), "ok");
    }
}

/// G20, G21: a future that is `Send` and `'static`; and `Debug` that keeps requests to itself.
pub(crate) async fn auto_traits<S: Checked>(mut service: S, script: &Script) {
    fn send<T: Send + 'static>(value: T) -> T {
        value
    }
    script.reply(Reply::Later);
    let response = send(service.ready().await.unwrap().call("secret"));
    assert!(!format!("{response:?}{service:?}").contains("secret"));
}

/// A future that must not be moved once it is polled.
pub(crate) async fn pinned<L, F>(layer: L, service: fn() -> F)
where
    F: Service<&'static str, Response = &'static str, Error = BoxError, Future: Send> + Clone,
    L: Layer<F>,
    L::Service: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    assert_eq!(layer.layer(service()).oneshot("one").await.unwrap(), "one");
}

pub(crate) fn unmovable()
-> impl Service<&'static str, Response = &'static str, Error = BoxError, Future: Future + Send> + Clone + Debug + Send {
    service_fn(|request: &'static str| {
        let answer: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(request)
        });
        answer
    })
}

/// G26: a thousand calls on eight threads, each by a clone of its own; all end, and nothing is held afterwards.
pub(crate) fn crowd<S: Checked + Sync>(service: S) {
    on_threads(8, |_| {
        let service = service.clone();
        async move {
            for _ in 0..125 {
                // A bulkhead of one may refuse.
                match service.clone().oneshot("one").await {
                    Ok(answer) => assert_eq!(answer, "ok"),
                    Err(error) => assert!(error.as_rejection().is_some(), "{error}"),
                }
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(answers(&mut service.clone()));
}

/// G14 once more, of a probe that sees each instance.
pub(crate) async fn broken<S: Checked>(mut service: S, script: &Script) {
    script.set_ready(Ready::Err("broken"));
    assert_eq!(service.ready().await.unwrap_err().to_string(), "broken");
    assert_eq!(script.calls(), 0);
}

/// All of the above for a layer.
macro_rules! all {
    ($layer:expr) => {
        use crate::{checks, support::probe::Script};

        #[tokio::test(start_paused = true)]
        async fn g01_g02_g03_it_is_ready_as_the_service_is() {
            checks::readiness($layer).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g14_g15_errors_of_readiness_pass() {
            checks::readiness_errors($layer);
            let (script, probe) = Script::new();
            checks::broken(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g05_g06_g07_a_clone_has_no_readiness_and_takes_none() {
            let (script, probe) = Script::new();
            checks::clones(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g08_a_readiness_that_is_not_used_is_given_back() {
            checks::unused_readiness(tower::Layer::layer(&$layer, Script::new().1)).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g09_g10_a_dropped_call_gives_back_what_it_held() {
            let (script, probe) = Script::new();
            checks::dropped_calls(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g11_a_future_that_is_kept_keeps_nothing_else() {
            checks::kept_futures(tower::Layer::layer(&$layer, Script::new().1)).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g12_g13_results_pass_by_value() {
            let (script, probe) = Script::new();
            checks::results(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_panic_costs_its_own_call_only() {
            let (script, probe) = Script::new();
            checks::panics(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g16_g17_g18_it_gets_on_with_towers_own() {
            checks::company(tower::Layer::layer(&$layer, Script::new().1)).await;
            checks::optional($layer).await;
        }

        #[tokio::test(start_paused = true)]
        async fn g20_g21_futures_are_send_and_debug_shows_no_request() {
            let (script, probe) = Script::new();
            checks::auto_traits(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_future_that_is_not_unpin_is_no_trouble() {
            checks::pinned($layer, checks::unmovable).await;
        }

        #[test]
        fn g20_g22_made_and_used_outside_of_a_runtime() {
            checks::no_runtime(tower::Layer::layer(&checks::is_shared($layer), Script::new().1));
        }

        #[test]
        fn g26_used_by_a_crowd() {
            checks::crowd(tower::Layer::layer(&$layer, Script::new().1));
        }
    };
}

pub(crate) use all;
