//! What a rate limiter promises: items L and G of the contract.
#![allow(clippy::disallowed_methods)] // the time is paused

#[path = "../support/mod.rs"]
mod support;

mod handle;
mod keyed;
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
