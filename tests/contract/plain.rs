//! What is asked of a layer whose pattern does not need more: a service that is not `Clone`, a request that is neither
//! `Clone` nor `Send`, and a future that must not be moved.

use std::{
    future::{Ready, ready},
    rc::Rc,
    task::{Context, Poll},
};

use tower::{Layer, Service, ServiceExt};
use tower_rampart::BoxError;

/// `Clone` if `T` is.
#[derive(Clone)]
pub(crate) struct Plain<T>(T);

/// Not `Clone`.
pub(crate) struct Single;

/// Neither `Clone` nor `Send`.
pub(crate) struct Request(Rc<[&'static str; 1]>);

impl<T> Service<Request> for Plain<T> {
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

/// The layer's pattern calls at once: it needs no second instance of the service.
pub(crate) async fn asked<L>(layer: L)
where
    L: Layer<Plain<Single>>,
    L::Service: Service<Request, Response = &'static str, Error = BoxError>,
{
    calls(layer.layer(Plain(Single))).await;
}

/// The layer's pattern may call later, so the service must be `Clone`.
pub(crate) async fn cloned<L>(layer: L)
where
    L: Layer<Plain<()>>,
    L::Service: Service<Request, Response = &'static str, Error = BoxError>,
{
    calls(layer.layer(Plain(()))).await;
}

async fn calls<S>(mut service: S)
where
    S: Service<Request, Response = &'static str, Error = BoxError>,
{
    assert_eq!(service.ready().await.unwrap().call(Request(Rc::new(["echo"]))).await.unwrap(), "echo");
}

/// A test of what the pattern does not need: `asked`, `cloned`, or `repeats` for a pattern that needs it all.
macro_rules! plainly {
    (repeats, $layer:expr) => {};
    ($what:ident, $layer:expr) => {
        #[tokio::test(start_paused = true)]
        async fn the_service_and_the_request_need_no_more_than_the_pattern_does() {
            crate::plain::$what($layer).await;
        }
    };
}

pub(crate) use plainly;
