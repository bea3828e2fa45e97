//! The error taxonomy: one flat error, three ways to have it.

mod support;

use std::{error::Error as _, time::Duration};

use support::{
    BoxError,
    probe::{Reply, Script},
};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{AdaptErrorLayer, AsRejection, Error, Rejection, RespondLayer, error::find_rejection};

fn open() -> Rejection {
    Rejection::circuit_open("db", Some(Duration::from_secs(1)))
}

#[derive(Debug, thiserror::Error)]
#[error("outermost")]
struct Wrapped(#[source] BoxError);

#[test]
fn a_rejection_answers_which_when_and_whether() {
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
fn a_rejection_is_found_in_boxed_errors_however_deep() {
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
    assert!(io.source().is_none(), "if this changes, the walk can be simplified");
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
fn a_rejection_is_found_in_transparent_wrappers_and_shows_no_source_to_others() {
    let transparent: BoxError = Transparent(open().into()).into();
    assert_eq!(transparent.as_rejection(), Some(&open()));
    let deep: BoxError = Wrapped(Transparent(Transparent(open().into()).into()).into()).into();
    assert_eq!(deep.as_rejection(), Some(&open()));
    assert_eq!(find_rejection(&Transparent("refused".into())), None);
    assert!(transparent.source().is_none() && open().source().is_none());
    assert_eq!(Box::<dyn std::error::Error>::from(open()).as_rejection(), Some(&open()));
}

// The compiler has forgotten that the boxed error is `'static` when it asks whether these blocks are `Send`.
#[tokio::test]
async fn stacks_with_boxed_errors_are_called_with_oneshot_in_spawned_blocks() {
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
fn a_unified_error_shows_its_source_and_does_not_repeat_it() {
    let error: Error<std::io::Error> = open().into();
    assert_eq!(find_rejection(&error), Some(&open()));
    assert!(!error.to_string().contains("db"));
    let error = Error::Service(std::io::Error::other("disk"));
    assert_eq!(error.source().unwrap().to_string(), "disk");
    assert_eq!(error.as_rejection(), None);
}

#[test]
fn a_rejection_made_inside_the_service_is_not_this_stacks_own() {
    let inner: Error<BoxError> = Error::Service(open().into());
    assert_eq!(inner.as_rejection(), None);
    let nested: Error<Error<BoxError>> = Error::Service(Error::Rejected(open()));
    assert_eq!(nested.as_rejection(), None);
    assert!(matches!(nested.flatten(), Error::Rejected(_)));
}

// G12, G13: the value passes, and the very same error.
#[tokio::test]
async fn the_adapter_passes_the_services_error_by_value() {
    let (script, probe) = Script::new();
    let error: BoxError = "boom".into();
    let address = std::ptr::from_ref(&*error).cast::<()>();
    script.reply(Reply::Err(error));
    let mut service = AdaptErrorLayer::new().layer(probe);
    let Err(Error::Service(error)) = service.ready().await.unwrap().call("a").await else { panic!("not the error") };
    assert_eq!(std::ptr::from_ref(&*error).cast::<()>(), address);
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap(), "ok");
}

#[tokio::test]
async fn a_wrapped_stack_turns_rejections_into_responses_and_lets_errors_through() {
    /// Refuses every second call.
    #[derive(Clone)]
    struct Refuse<S>(S, bool);

    impl<S: Service<&'static str>> Service<&'static str> for Refuse<S>
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
    let layers = tower::layer::layer_fn(|inner| Refuse(inner, false));
    let mut service = RespondLayer::new(layers, |rejection: Rejection| rejection.reason()).layer(probe);
    assert_eq!(service.ready().await.unwrap().call("a").await.unwrap(), "circuit_open");
    assert_eq!(service.ready().await.unwrap().call("b").await.unwrap(), "ok");
    script.reply(Reply::Err("boom".into()));
    assert_eq!(service.ready().await.unwrap().call("c").await.unwrap(), "circuit_open");
    let error: BoxError = service.ready().await.unwrap().call("d").await.unwrap_err();
    assert_eq!(error.to_string(), "boom");
}
