//! What is asked of a layer whose pattern calls at once: no `Clone` of the service, and nothing of the request.

use std::{
    future::{Ready, ready},
    rc::Rc,
    task::{Context, Poll},
};

use tower::{Layer, Service, ServiceExt};
use tower_rampart::BoxError;

/// Not `Clone`.
pub(crate) struct Single;

/// Neither `Clone` nor `Send`.
pub(crate) struct Request(pub Rc<u32>);

impl Service<Request> for Single {
    type Response = u32;
    type Error = BoxError;
    type Future = Ready<Result<u32, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        ready(Ok(*request.0))
    }
}

pub(crate) async fn calls<L>(layer: L)
where
    L: Layer<Single>,
    L::Service: Service<Request, Response = u32, Error = BoxError>,
{
    let mut service = layer.layer(Single);
    assert_eq!(service.ready().await.unwrap().call(Request(Rc::new(7))).await.unwrap(), 7);
}

/// The check, for patterns that never call later.
macro_rules! asked {
    ($layer:expr) => {
        #[tokio::test(start_paused = true)]
        async fn neither_the_service_nor_the_request_needs_to_be_clone_or_send() {
            crate::plain::calls($layer).await;
        }
    };
}

/// No check: the pattern may call later, or looks at the request.
macro_rules! spared {
    ($layer:expr) => {};
}

pub(crate) use {asked, spared};
