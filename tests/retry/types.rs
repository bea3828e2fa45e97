//! Types: errors of all kinds, Tower's generic middleware, auto traits, and construction without a
//! runtime.

use std::{convert::Infallible, task::Poll};

use tower::{
    Layer, Service, ServiceBuilder, ServiceExt,
    buffer::Buffer,
    service_fn,
    util::{BoxCloneService, BoxService, option_layer},
};
use tower_rampart::{
    AsRejection, Error, Rejection,
    request::{Cloned, Repeat},
    retry::{Delays, Retry, RetryBudget, RetryBudgetBuilder, RetryBuilder, RetryLayer, RetryService},
};

use crate::{
    builder, failing,
    support::{
        BoxError, OwnError, poll_once,
        probe::{Probe, Reply, Script},
    },
};

// G19
#[tokio::test(start_paused = true)]
async fn it_accepts_services_with_errors_of_all_kinds() {
    async fn call<E: AsRejection + Send + 'static>(fail: fn() -> E) -> u32 {
        let calls = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let counted = calls.clone();
        let service = service_fn(move |()| {
            counted.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            async move { Err::<(), E>(fail()) }
        });
        assert!(builder().build().unwrap().layer().layer(service).oneshot(()).await.is_err());
        calls.load(std::sync::atomic::Ordering::SeqCst)
    }
    assert_eq!(call(|| BoxError::from("down")).await, 3);
    assert_eq!(call(|| std::io::Error::other("down")).await, 3);
    assert_eq!(call(|| OwnError::Failed).await, 3);
    assert_eq!(call(|| OwnError::from(Rejection::bulkhead_full("inner", 1))).await, 1);
    assert_eq!(call(|| Rejection::queue_timeout("inner", crate::ms(1))).await, 1);
    assert_eq!(call(|| Error::Service("12x".parse::<u8>().unwrap_err())).await, 3);
    assert_eq!(call(|| Error::<Infallible>::Rejected(Rejection::circuit_open("inner", None))).await, 1);
    #[cfg(feature = "anyhow")]
    assert_eq!(call(|| anyhow::anyhow!("down")).await, 3);

    fn is_supported<E: AsRejection>() {}
    is_supported::<Error<reqwest::Error>>();
    is_supported::<reqwest::Error>();
    is_supported::<hyper_util::client::legacy::Error>();
    is_supported::<Error<tonic::transport::Error>>();
    // A service that cannot fail is never retried, but can be wrapped.
    let infallible = service_fn(|()| async { Ok::<_, Infallible>(()) });
    assert!(builder().build().unwrap().layer().layer(infallible).oneshot(()).await.is_ok());
}

// G19
#[tokio::test(start_paused = true)]
async fn the_error_need_not_be_made_from_a_rejection() {
    struct Foreign;

    impl AsRejection for Foreign {
        fn as_rejection(&self) -> Option<&Rejection> {
            None
        }
    }

    let service = service_fn(|()| async { Err::<(), Foreign>(Foreign) });
    let verdict = |result: Result<&(), &Foreign>| match result {
        Ok(()) => tower_rampart::Verdict::Success,
        Err(_) => tower_rampart::Verdict::Failure,
    };
    let service = builder().build().unwrap().layer().classify(verdict).layer(service);
    assert!(service.oneshot(()).await.is_err());
}

// G16
#[tokio::test(start_paused = true)]
async fn it_works_by_reference_and_boxed() {
    let (script, probe) = failing(2);
    let mut service = builder().build().unwrap().layer().layer(BoxCloneService::new(probe));
    let by_reference = &mut service;
    assert_eq!(by_reference.ready().await.unwrap().call("a").await.unwrap(), "ok");
    let mut boxed: Box<dyn Service<_, Response = _, Error = BoxError, Future = _> + Send> = Box::new(service);
    assert_eq!(boxed.ready().await.unwrap().call("b").await.unwrap(), "ok");
    assert_eq!(script.requests(), ["a", "a", "a", "b"]);
    let (_, probe) = failing(2);
    let mut opaque = BoxService::new(builder().build().unwrap().layer().layer(probe));
    assert_eq!(opaque.ready().await.unwrap().call("c").await.unwrap(), "ok");
}

// G17
#[tokio::test(start_paused = true)]
async fn it_works_through_a_buffer_and_a_rejection_is_still_found() {
    let (script, probe) = failing(2);
    // A buffer around the retry, so that its worker makes the attempts, and one inside.
    let outside = Buffer::new(builder().build().unwrap().layer().layer(probe.clone()), 4);
    assert_eq!(outside.oneshot("a").await.unwrap(), "ok");
    script.reply(Reply::Err("down".into()));
    script.reply(Reply::Err(Rejection::circuit_open("inner", None).into()));
    let inside = builder().build().unwrap().layer().layer(Buffer::new(probe, 4));
    let error = inside.oneshot("b").await.unwrap_err();
    assert!(matches!(error.as_rejection(), Some(Rejection::CircuitOpen { .. })));
    assert_eq!(script.requests(), ["a", "a", "a", "b", "b"]);
}

// G18
#[tokio::test(start_paused = true)]
async fn it_works_through_option_layer() {
    for retry in [None, Some(builder().build().unwrap())] {
        let (script, probe) = failing(1);
        let with = retry.is_some();
        let service = ServiceBuilder::new().layer(option_layer(retry.map(|retry| retry.layer()))).service(probe);
        assert_eq!(service.oneshot("a").await.is_ok(), with);
        assert_eq!(script.calls(), 1 + usize::from(with));
    }
}

// G20
#[test]
fn auto_traits_follow_the_parts() {
    fn send<T: Send + 'static>(_: &T) {}
    fn shared<T: Clone + Send + Sync + 'static>() {}
    shared::<Retry>();
    shared::<RetryBudget>();
    shared::<RetryLayer>();
    shared::<RetryService<Probe>>();
    fn plain<T: Send + Sync + std::fmt::Debug>() {}
    plain::<RetryBuilder>();
    plain::<RetryBudgetBuilder>();
    plain::<Delays>();
    let (_, probe) = Script::new();
    let mut service = builder().build().unwrap().layer().layer(probe);
    assert!(poll_once(service.ready()).is_ready());
    send(&service.call("a"));
    fn run(retry: &Retry) -> impl Future<Output = Result<(), BoxError>> + Send {
        retry.run(|_| async { Ok(()) })
    }
    assert!(matches!(poll_once(run(&builder().build().unwrap())), Poll::Ready(Ok(()))));
}

// A request that is not `Send` only makes the future not `Send`.
#[test]
fn the_request_need_not_be_send() {
    let service = service_fn(|request: std::rc::Rc<()>| async move { Ok::<_, BoxError>(request) });
    let mut service = builder().build().unwrap().layer().layer(service);
    let called = poll_once(service.ready()).map(|ready| poll_once(ready.unwrap().call(std::rc::Rc::new(()))));
    assert!(matches!(called, Poll::Ready(Poll::Ready(Ok(_)))));
}

// G21
#[tokio::test]
async fn debug_shows_the_settings_and_never_the_request() {
    let retry = Retry::attempts("inventory", 3).unwrap();
    let secret = |_: &&'static str| Some("secret");
    let layer = retry.layer().clone_with(secret).idempotent_if(|_: &&'static str| true).prepare_with(|_, _: &mut _| ());
    let (_, probe) = Script::new();
    let mut service = layer.layer(probe);
    for debug in [format!("{retry:?}"), format!("{layer:?}"), format!("{service:?}")] {
        assert!(
            debug.contains("inventory") && debug.contains("max_attempts: 3") && !debug.contains("secret"),
            "{debug}"
        );
    }
    assert!(format!("{:?}", Retry::builder("inventory")).contains("inventory"));
    let call = service.ready().await.unwrap().call("secret");
    assert_eq!(format!("{call:?}"), "ResponseFuture { .. }");
}

// G22, G25
#[test]
fn construction_and_calls_without_delay_need_no_runtime() {
    let retry = builder().build().unwrap();
    let (script, probe) = Script::new();
    for layer in [retry.layer(), RetryLayer::new(&retry)] {
        let mut service = layer.layer(probe.clone());
        assert!(poll_once(service.ready()).is_ready());
        assert!(poll_once(service.call("a")).is_ready());
        assert_eq!(service.retry().name(), "test");
        let _: (&Probe, Probe) = (&service.get_ref().clone(), service.into_inner());
    }
    assert!(poll_once(RetryService::new(probe, &retry).ready()).is_ready());
    assert_eq!(script.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn repeat_can_be_implemented_for_a_custom_type() {
    #[derive(Clone)]
    struct Numbered;
    impl Repeat<u32> for Numbered {
        /// The hundreds and the rest.
        type Saved = (u32, u32);

        fn save(&self, request: &u32) -> Option<(u32, u32)> {
            Some((*request / 100, *request % 100))
        }

        fn restore(&self, (hundreds, rest): (u32, u32)) -> u32 {
            100 * hundreds + rest
        }

        fn prepare(&self, attempt: u32, request: &mut u32) {
            *request += attempt;
        }
    }
    let service =
        service_fn(|request: u32| async move { if request < 211 { Err(BoxError::from("down")) } else { Ok(request) } });
    let service = builder().build().unwrap().layer().repeat(Numbered).layer(service);
    assert_eq!(service.oneshot(208).await.unwrap(), 211);
    let cloned: Cloned = Default::default();
    assert_eq!(Repeat::<u32>::is_idempotent(&cloned, &1), None);
}
