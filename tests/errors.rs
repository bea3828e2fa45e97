//! The error taxonomy: one flat error in three forms.

mod support;

use std::{error::Error as _, time::Duration};

use support::{
    BoxError, address, assert_shareable, poll_once, poll_ready,
    probe::{Ready, Reply, Script},
};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, layer::util::Identity};
use tower_rampart::{AdaptErrorLayer, AsRejection, Error, Rejection, RespondLayer, error::find_rejection};

fn open() -> Rejection {
    Rejection::circuit_open("db", Some(Duration::from_secs(1)))
}

#[derive(Debug, thiserror::Error)]
#[error("outermost")]
struct Wrapped(#[source] BoxError);

#[test]
fn a_rejection_tells_its_pattern_name_retry_time_and_whether_it_was_attempted() {
    let rejection = open();
    assert_eq!(rejection.kind().as_str(), "circuit_breaker");
    assert_eq!(rejection.name(), "db");
    assert_eq!(rejection.retry_after(), Some(Duration::from_secs(1)));
    assert!(!rejection.was_attempted());
    assert!(Rejection::timed_out("t", Duration::from_secs(1), true).was_attempted());
    assert!(!Rejection::timed_out("t", Duration::from_secs(1), false).was_attempted());
    assert_eq!(Rejection::rate_limited("l", None, 5).retry_after(), None);
}

#[test]
fn a_rejection_is_found_at_any_depth_of_boxed_errors() {
    let boxed: BoxError = open().into();
    assert_eq!(boxed.as_rejection(), Some(&open()));
    let wrapped: BoxError = Wrapped(Wrapped(open().into()).into()).into();
    assert_eq!(wrapped.as_rejection(), Some(&open()));
    let foreign: BoxError = "connection refused".into();
    assert_eq!(foreign.as_rejection(), None);
}

#[test]
fn a_rejection_is_found_in_io_errors_whose_source_skips_it() {
    let io = std::io::Error::from(open());
    assert!(io.source().is_none(), "if this fails, the walk of the source chain can be simplified");
    assert_eq!(io.as_rejection(), Some(&open()));
    let boxed: BoxError = Wrapped(io.into()).into();
    assert_eq!(boxed.as_rejection(), Some(&open()));
    let timed_out = std::io::Error::from(Rejection::timed_out("t", Duration::ZERO, true));
    assert_eq!(timed_out.kind(), std::io::ErrorKind::TimedOut);
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Transparent(BoxError);

#[test]
fn a_rejection_is_found_in_transparent_wrappers() {
    let transparent: BoxError = Transparent(open().into()).into();
    assert_eq!(transparent.as_rejection(), Some(&open()));
    let deep: BoxError = Wrapped(Transparent(Transparent(open().into()).into()).into()).into();
    assert_eq!(deep.as_rejection(), Some(&open()));
    assert_eq!(find_rejection(&Transparent("refused".into())), None);
    assert!(transparent.source().is_none() && open().source().is_none());
    assert_eq!(Box::<dyn std::error::Error>::from(open()).as_rejection(), Some(&open()));
}

// The compiler no longer knows that the boxed error is `'static` when it checks whether these
// blocks are `Send`.
#[tokio::test]
async fn stacks_with_boxed_errors_can_be_called_in_spawned_tasks() {
    let echo = tower::service_fn(|request: u32| async move { Ok::<_, BoxError>(request) });
    let retry = tower_rampart::retry::Retry::attempts("test", 2).unwrap();
    let breaker = tower_rampart::circuit_breaker::CircuitBreaker::new("test");
    let service = retry.layer().layer(breaker.layer().layer(echo));
    assert_eq!(tokio::spawn(async move { service.oneshot(1).await }).await.unwrap().unwrap(), 1);
}

#[cfg(feature = "anyhow")]
#[test]
fn a_rejection_is_found_in_anyhow_errors_under_context() {
    let error = anyhow::Error::from(open()).context("loading the basket");
    assert_eq!(error.as_rejection(), Some(&open()));
}

#[test]
fn a_unified_error_is_transparent() {
    let rejected: Error<Wrapped> = open().into();
    assert_eq!((rejected.to_string(), rejected.source().is_none()), (open().to_string(), true));
    let failed = Error::Service(Wrapped("disk".into()));
    assert_eq!((failed.to_string(), failed.source().unwrap().to_string()), ("outermost".into(), "disk".into()));
    let nested = Error::Service(failed);
    assert_eq!((nested.to_string(), nested.source().unwrap().to_string()), ("outermost".into(), "disk".into()));
    // A report of the whole chain has every text once.
    #[cfg(feature = "anyhow")]
    assert_eq!(format!("{:#}", anyhow::Error::from(nested)), "outermost: disk");
}

// The type of the service's error need not be known: here it is private to this test.
#[test]
fn what_a_unified_error_holds_is_found_boxed_and_nested() {
    fn check(error: impl std::error::Error + Send + Sync + 'static) {
        assert_eq!(find_rejection(&error), Some(&open()));
        let boxed: BoxError = error.into();
        assert_eq!(boxed.as_rejection(), Some(&open()));
        let io = std::io::Error::other(Wrapped(Transparent(boxed).into()));
        assert_eq!(io.as_rejection(), Some(&open()));
    }
    check(Error::<Wrapped>::Rejected(open()));
    check(Error::Service(Error::<Wrapped>::Rejected(open())));
    check(Error::Service(Wrapped(open().into())));
    check(Error::Service(open()));
    check(Error::Service(Error::Service(open())));
    check(Error::Service(std::io::Error::from(open())));
    check(Error::Service(Wrapped(Box::new(Error::Service(Error::Service(open()))))));
    let own: Error<std::io::Error> = Error::Service(std::io::Error::from(open()));
    assert_eq!(own.as_rejection(), None, "typed, it is the service's own failure");
}

#[test]
fn a_rejection_in_the_services_own_error_is_not_this_stacks_rejection() {
    let inner: Error<BoxError> = Error::Service(open().into());
    assert_eq!(inner.as_rejection(), None);
    let nested: Error<Error<BoxError>> = Error::Service(Error::Rejected(open()));
    assert_eq!(nested.as_rejection(), None);
    assert!(matches!(nested.flatten(), Error::Rejected(_)));
}

// G12, G13: results pass by value; the error is the same object.
#[tokio::test]
async fn the_adapter_passes_the_services_error_by_value() {
    let (script, probe) = Script::new();
    let error: BoxError = "boom".into();
    let original = address(&error);
    script.reply(Reply::Err(error));
    let mut service = AdaptErrorLayer::new().layer(probe);
    let Err(Error::Service(error)) = service.ready().await.unwrap().call("a").await else {
        panic!("the error has changed")
    };
    assert_eq!(address(&error), original);
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap(), "ok");
}

#[tokio::test]
async fn respond_turns_rejections_into_responses_and_passes_other_errors() {
    /// Rejects every second call.
    #[derive(Clone)]
    struct RejectAlternate<S>(S, bool);

    impl<S: Service<&'static str>> Service<&'static str> for RejectAlternate<S>
    where
        S::Error: From<Rejection>,
    {
        type Response = S::Response;
        type Error = S::Error;
        type Future = futures_util::future::Either<std::future::Ready<Result<S::Response, S::Error>>, S::Future>;

        fn poll_ready(&mut self, cx: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
            self.0.poll_ready(cx)
        }

        fn call(&mut self, request: &'static str) -> Self::Future {
            self.1 = !self.1;
            if self.1 {
                futures_util::future::Either::Left(std::future::ready(Err(open().into())))
            } else {
                futures_util::future::Either::Right(self.0.call(request))
            }
        }
    }

    let (script, probe) = Script::new();
    let layers = tower::layer::layer_fn(|inner| RejectAlternate(inner, false));
    let mut service = RespondLayer::new(layers, |rejection: Rejection| rejection.reason()).layer(probe);
    assert_eq!(service.ready().await.unwrap().call("a").await.unwrap(), "circuit_open");
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap(), "ok");
    script.reply(Reply::Err("boom".into()));
    assert_eq!(service.ready().await.unwrap().call("c").await.unwrap(), "circuit_open");
    let error: BoxError = service.ready().await.unwrap().call("d").await.unwrap_err();
    assert_eq!(error.to_string(), "boom");
}

fn reason(rejection: Rejection) -> &'static str {
    rejection.reason()
}

// G1, G2, G3, G5, G6, G14
#[tokio::test]
async fn adapt_and_respond_pass_the_inner_readiness_through() {
    let (script, probe) = Script::new();
    let mut adapted = task::spawn(AdaptErrorLayer::new().layer(probe.clone()));
    let mut wrapped = task::spawn(RespondLayer::new(Identity::new(), reason).layer(probe));
    macro_rules! check {
        ($service:ident, $dead:pat) => {
            script.set_ready(Ready::No);
            assert_pending!(poll_ready(&mut $service));
            script.set_ready(Ready::Yes);
            assert!($service.is_woken());
            for _ in 0..2 {
                assert!(assert_ready!(poll_ready(&mut $service)).is_ok());
            }
            let mut clone = $service.enter(|_, service| service.clone());
            assert_eq!($service.enter(|_, mut service| service.call("a")).await.unwrap(), "ok");
            assert_eq!(clone.ready().await.unwrap().call("b").await.unwrap(), "ok");
            script.set_ready(Ready::Err("dead"));
            let dead = assert_ready!(poll_ready(&mut $service)).unwrap_err();
            assert!(matches!(dead, $dead), "{dead:?}");
            script.set_ready(Ready::Yes);
        };
    }
    check!(adapted, Error::Service(_));
    check!(wrapped, _);
}

// G9, G10, G16, G20, G21, G22
#[test]
fn dropping_adapted_and_responded_calls_cancels_the_inner_call() {
    fn check<S>(script: &Script, mut service: S)
    where
        S: Service<&'static str, Response = &'static str> + Clone + Send + std::fmt::Debug,
        S::Error: std::fmt::Debug,
        S::Future: Send + std::fmt::Debug,
    {
        script.reply(Reply::Later).reply(Reply::Later);
        assert!(poll_once(service.ready()).is_ready());
        let call = service.call("secret");
        assert!(!format!("{service:?} {call:?}").contains("secret"));
        drop(call);
        assert!(poll_once((&mut service).oneshot("pending")).is_pending());
        assert_eq!(script.live(), 0);
        let boxed: Box<dyn Service<_, Response = _, Error = _, Future = _>> = Box::new(service.clone());
        assert!(poll_once(boxed.oneshot("a")).is_ready());
    }

    let (script, probe) = Script::new();
    let (adapt, respond) = (AdaptErrorLayer::new(), RespondLayer::new(Identity::new(), reason));
    assert_shareable(&adapt);
    assert_shareable(&respond);
    check(&script, adapt.layer(probe.clone()));
    check(&script, respond.layer(probe));
}

/// A foreign layer whose readiness fails with a rejection, which no layer of this crate does.
#[derive(Clone)]
struct ForeignLayer;

impl<S> Layer<S> for ForeignLayer {
    type Service = FailingReadiness<S>;

    fn layer(&self, inner: S) -> FailingReadiness<S> {
        FailingReadiness { inner, failed: false }
    }
}

#[derive(Clone)]
struct FailingReadiness<S> {
    inner: S,
    failed: bool,
}

impl<S, Req> Service<Req> for FailingReadiness<S>
where
    S: Service<Req>,
    S::Error: From<Rejection>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), S::Error>> {
        assert!(!self.failed, "polled again after its readiness failed");
        self.failed = true;
        std::task::Poll::Ready(Err(open().into()))
    }

    fn call(&mut self, request: Req) -> S::Future {
        self.inner.call(request)
    }
}

// G3, G6, G15
#[tokio::test]
async fn respond_turns_a_rejection_in_a_foreign_layers_readiness_into_a_response() {
    let (script, probe) = Script::new();
    let service = RespondLayer::new(ForeignLayer, reason).layer(probe);
    let mut wrapped = service.clone();
    wrapped.ready().await.unwrap();
    assert_eq!(wrapped.ready().await.unwrap().call("a").await.unwrap(), "circuit_open", "readiness is stable");
    assert_eq!(service.oneshot("b").await.unwrap(), "circuit_open");
    assert_eq!(script.calls(), 0, "the inner service was not ready");
}

#[test]
fn a_unified_error_can_be_inspected_converted_and_mapped() {
    let (rejected, own) = (Error::<u8>::Rejected(open()), Error::Service(7_u8));
    assert_eq!((rejected.as_service(), own.as_service()), (None, Some(&7)));
    assert_eq!((rejected.clone().into_rejection(), own.clone().into_rejection()), (Some(open()), None));
    assert_eq!((rejected.clone().into_service(), own.clone().into_service()), (None, Some(7)));
    assert_eq!(rejected.map_service(u32::from), Error::Rejected(open()));
    assert_eq!(own.map_service(u32::from), Error::Service(7_u32));
}

#[test]
fn the_text_of_a_rejection_names_the_pattern_the_instance_and_the_number() {
    let second = Duration::from_secs(1);
    let texts = [
        (open(), "circuit breaker `db` is open, retry after 1s"),
        (Rejection::circuit_open("db", None), "circuit breaker `db` is open"),
        (Rejection::circuit_recovering("db", 37), "circuit breaker `db` is recovering and admits 37% of the calls"),
        (Rejection::bulkhead_full("db", 8), "bulkhead `db` is full at its limit of 8"),
        (Rejection::queue_timeout("db", second), "bulkhead `db` had no permit within 1s"),
        (Rejection::rate_limited("db", Some(second), 5), "rate limiter `db` rejected the call, retry after 1s"),
        (
            Rejection::rate_limited("db", None, 5),
            "rate limiter `db` rejected the call: its cost exceeds the burst of 5",
        ),
        (Rejection::timed_out("db", second, true), "timeout `db` fired after 1s"),
        (Rejection::timed_out("db", second, false), "timeout `db` of 1s had no time left to call the service"),
    ];
    for (rejection, text) in texts {
        assert_eq!(rejection.to_string(), text);
    }
}
