//! Generic checks for a layer around a `Clone` service.

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
    address, on_threads, poll_once,
    probe::{Probe, Ready, Reply, Script},
};

pub(crate) type Mock = mock::Mock<&'static str, &'static str>;

/// The bounds that the checks need.
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

pub(crate) async fn assert_responds<S: Checked>(service: &mut S) {
    assert_eq!(service.ready().await.unwrap().call("again").await.unwrap(), "ok");
}

/// G1 to G4: pending while the inner service is, woken when it becomes ready, and ready until the
/// call.
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
    assert!(service.is_woken(), "the wakeup is lost");
    tokio_test::assert_ready_ok!(service.poll_ready());
    tokio_test::assert_ready_ok!(service.poll_ready());
    let mut response = tokio_test::task::spawn(service.call("one"));
    tokio_test::assert_pending!(response.poll());
    assert_request_eq!(handle, "one").send_response("response");
    assert!(response.is_woken());
    assert_eq!(tokio_test::assert_ready_ok!(response.poll()), "response");
    // One readiness pays for one call.
    tokio_test::assert_pending!(service.poll_ready());
}

/// G14, G15: an inner readiness error passes unchanged and is not a rejection.
pub(crate) fn readiness_errors<L>(layer: L)
where
    L: Layer<Mock>,
    L::Service: Checked,
{
    let (mut service, mut handle) = mock::spawn_layer(layer);
    handle.send_error("broken");
    let Poll::Ready(Err(error)) = service.poll_ready() else { panic!("readiness did not fail") };
    assert!(error.as_rejection().is_none());
    assert_eq!(error.to_string(), "broken");
}

/// G5, G6, G7: the polled instance makes the call; a clone starts unready and does not take the
/// readiness.
pub(crate) async fn clones<S: Checked>(mut service: S, script: &Script) {
    service.ready().await.unwrap();
    let mut clone = service.clone();
    assert_eq!(service.call("one").await.unwrap(), "ok");
    assert_responds(&mut clone).await;
    assert_eq!(script.requests(), ["one", "again"]);
}

/// G8: dropping a ready service releases its reservation.
pub(crate) async fn unused_readiness<S: Checked>(service: S) {
    for _ in 0..20 {
        service.clone().ready().await.unwrap();
    }
    assert_responds(&mut service.clone()).await;
}

/// G9, G10: dropping a call, unpolled or in flight, releases its resources and cancels the inner
/// call.
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
    // A layer that makes the call at the first poll has not taken the first reply.
    script.forget_replies();
    assert_responds(&mut service).await;
}

/// G11: completion releases a call's resources even while its future is kept.
pub(crate) async fn kept_futures<S: Checked>(mut service: S) {
    let mut response = Box::pin(service.ready().await.unwrap().call("one"));
    assert_eq!(response.as_mut().await.unwrap(), "ok");
    assert_responds(&mut service).await;
    drop(response);
    assert_responds(&mut service).await;
}

/// G12, G13: results pass by value; the error is the same object.
pub(crate) async fn results<S: Checked>(mut service: S, script: &Script) {
    assert_eq!(service.ready().await.unwrap().call("one").await.unwrap(), "ok");
    let error: BoxError = "broken".into();
    let original = address(&error);
    script.reply(Reply::Err(error));
    let error = service.ready().await.unwrap().call("two").await.unwrap_err();
    assert_eq!(address(&error), original);
}

/// A panic of the inner service, in `call` or in its future, affects only its own call.
pub(crate) async fn panics<S: Checked>(mut service: S, script: &Script) {
    for reply in [Reply::PanicInCall, Reply::PanicInPoll] {
        script.reply(reply);
        service.ready().await.unwrap();
        let call = AssertUnwindSafe(|| drop(poll_once(Box::pin(service.call("one")))));
        assert!(catch_unwind(call).is_err());
        assert_eq!(script.live(), 0);
    }
    assert_responds(&mut service).await;
}

/// G22: a layer and its service are constructed, polled ready and called outside a runtime.
pub(crate) fn no_runtime<S: Checked>(mut service: S) {
    assert!(poll_once(std::future::poll_fn(|cx| service.poll_ready(cx))).is_ready());
    assert_eq!(poll_once(service.call("one")).map(Result::unwrap), Poll::Ready("ok"));
}

/// G20: the layer is `Clone + Send + Sync`, and its clones build working services.
pub(crate) fn is_shareable<L: Clone + Send + Sync + 'static>(layer: L) -> L {
    layer.clone()
}

/// G16, G17, G18: works by reference, boxed, and with Tower's own middleware.
pub(crate) async fn composes<S: Checked>(mut service: S) {
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

/// G18: works through `option_layer`, present or absent.
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

/// G20, G21: the future is `Send` and `'static`, and `Debug` does not print the request.
pub(crate) async fn auto_traits<S: Checked>(mut service: S, script: &Script) {
    fn send<T: Send + 'static>(value: T) -> T {
        value
    }
    script.reply(Reply::Later);
    let response = send(service.ready().await.unwrap().call("secret"));
    assert!(!format!("{response:?}{service:?}").contains("secret"));
}

/// Works with an inner future that is not `Unpin`.
pub(crate) async fn pinned<L, F>(layer: L, service: fn() -> F)
where
    F: Service<&'static str, Response = &'static str, Error = BoxError, Future: Send> + Clone,
    L: Layer<F>,
    L::Service: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    assert_eq!(layer.layer(service()).oneshot("one").await.unwrap(), "one");
}

pub(crate) fn not_unpin()
-> impl Service<&'static str, Response = &'static str, Error = BoxError, Future: Future + Send> + Clone + Debug + Send {
    service_fn(|request: &'static str| {
        let response: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(async move {
            tokio::task::yield_now().await;
            Ok::<_, BoxError>(request)
        });
        response
    })
}

/// G26: a thousand calls on eight threads, each on its own clone; all complete, and nothing is held
/// afterwards.
pub(crate) fn concurrent_clones<S: Checked + Sync>(service: S) {
    on_threads(8, |_| {
        let service = service.clone();
        async move {
            for _ in 0..125 {
                // A bulkhead with one permit may reject.
                match service.clone().oneshot("one").await {
                    Ok(response) => assert_eq!(response, "ok"),
                    Err(error) => assert!(error.as_rejection().is_some(), "{error}"),
                }
            }
        }
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(assert_responds(&mut service.clone()));
}

/// G14 again, with a probe that tracks each instance's readiness.
pub(crate) async fn failing_readiness<S: Checked>(mut service: S, script: &Script) {
    script.set_ready(Ready::Err("broken"));
    assert_eq!(service.ready().await.unwrap_err().to_string(), "broken");
    assert_eq!(script.calls(), 0);
}

/// Generates the tests for a layer.
macro_rules! all {
    ($layer:expr) => {
        use crate::{checks, support::probe::Script};

        #[tokio::test(start_paused = true)]
        async fn readiness_follows_the_inner_service() {
            checks::readiness($layer).await;
        }

        #[tokio::test(start_paused = true)]
        async fn readiness_errors_pass_unchanged() {
            checks::readiness_errors($layer);
            let (script, probe) = Script::new();
            checks::failing_readiness(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_clone_starts_unready_and_takes_no_readiness() {
            let (script, probe) = Script::new();
            checks::clones(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn dropping_a_ready_service_releases_its_reservation() {
            checks::unused_readiness(tower::Layer::layer(&$layer, Script::new().1)).await;
        }

        #[tokio::test(start_paused = true)]
        async fn dropping_a_call_releases_its_resources() {
            let (script, probe) = Script::new();
            checks::dropped_calls(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn completion_releases_resources_while_the_future_is_kept() {
            checks::kept_futures(tower::Layer::layer(&$layer, Script::new().1)).await;
        }

        #[tokio::test(start_paused = true)]
        async fn results_pass_by_value() {
            let (script, probe) = Script::new();
            checks::results(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn a_panic_of_the_inner_service_affects_only_its_own_call() {
            let (script, probe) = Script::new();
            checks::panics(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn it_composes_with_towers_own_middleware() {
            checks::composes(tower::Layer::layer(&$layer, Script::new().1)).await;
            checks::optional($layer).await;
        }

        #[tokio::test(start_paused = true)]
        async fn futures_are_send_and_debug_hides_the_request() {
            let (script, probe) = Script::new();
            checks::auto_traits(tower::Layer::layer(&$layer, probe), &script).await;
        }

        #[tokio::test(start_paused = true)]
        async fn the_inner_future_need_not_be_unpin() {
            checks::pinned($layer, checks::not_unpin).await;
        }

        #[test]
        fn it_is_constructed_and_called_outside_a_runtime() {
            checks::no_runtime(tower::Layer::layer(&checks::is_shareable($layer), Script::new().1));
        }

        #[test]
        fn a_thousand_calls_on_eight_threads_all_complete() {
            checks::concurrent_clones(tower::Layer::layer(&$layer, Script::new().1));
        }
    };
}

pub(crate) use all;
