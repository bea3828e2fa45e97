//! Breaker and retry must recognize rejections in the error.

use tower::{Layer, Service, service_fn};
use tower_rampart::{Rejection, circuit_breaker::CircuitBreaker};

#[derive(Debug)]
struct OwnError;

impl From<Rejection> for OwnError {
    fn from(_: Rejection) -> Self {
        OwnError
    }
}

fn main() {
    let service = service_fn(|_: u32| async { Err::<(), _>(OwnError) });
    let service = CircuitBreaker::new("db").layer().layer(service);
    call(service, 1);
}

fn call<S: Service<Req>, Req>(mut service: S, request: Req) {
    drop(service.call(request));
}
