//! Checks that a layer adds no trait bounds that its pattern does not need: the service need not be
//! `Clone`, and the request neither `Clone` nor `Send`.

use std::{
    future::{Ready, ready},
    rc::Rc,
    task::{Context, Poll},
};

use tower::{Layer, Service, ServiceExt};
use tower_rampart::BoxError;

/// `Clone` if `T` is.
#[derive(Clone)]
pub(crate) struct Minimal<T>(T);

/// Not `Clone`.
pub(crate) struct Single;

/// Neither `Clone` nor `Send`.
pub(crate) struct Request(Rc<[&'static str; 1]>);

impl<T> Service<Request> for Minimal<T> {
    type Response = &'static str;
    type Error = BoxError;
    type Future = Ready<Result<&'static str, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ready(Ok(request.0[0]))
    }
}

/// For patterns that make the call immediately: any service will do.
pub(crate) async fn any_service<L>(layer: L)
where
    L: Layer<Minimal<Single>>,
    L::Service: Service<Request, Response = &'static str, Error = BoxError>,
{
    assert_echoes(layer.layer(Minimal(Single))).await;
}

/// For patterns that may make the call later: the service must be `Clone`.
pub(crate) async fn clone_service<L>(layer: L)
where
    L: Layer<Minimal<()>>,
    L::Service: Service<Request, Response = &'static str, Error = BoxError>,
{
    assert_echoes(layer.layer(Minimal(()))).await;
}

async fn assert_echoes<S>(mut service: S)
where
    S: Service<Request, Response = &'static str, Error = BoxError>,
{
    assert_eq!(service.ready().await.unwrap().call(Request(Rc::new(["echo"]))).await.unwrap(), "echo");
}

/// Generates the test. `clone_all` generates none: the pattern needs a service and a request that
/// are `Clone`.
macro_rules! minimal {
    (clone_all, $layer:expr) => {};
    ($requirements:ident, $layer:expr) => {
        #[tokio::test(start_paused = true)]
        async fn the_layer_requires_no_more_of_service_and_request_than_its_pattern() {
            crate::requirements::$requirements($layer).await;
        }
    };
}

pub(crate) use minimal;
