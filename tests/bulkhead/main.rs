//! What a bulkhead promises: items K and G of the contract.

#[path = "../support/mod.rs"]
mod support;

mod handle;
mod layer;

use support::BoxError;
use tower::{Service, ServiceExt};
use tower_rampart::{AsRejection, Rejection};

async fn call<S>(service: &mut S) -> Result<&'static str, BoxError>
where
    S: Service<&'static str, Response = &'static str, Error = BoxError>,
{
    service.ready().await?.call("request").await
}

fn refused<T>(result: &Result<T, BoxError>) -> Option<&Rejection> {
    result.as_ref().err().and_then(AsRejection::as_rejection)
}
