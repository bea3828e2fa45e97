//! A retry needs a second copy of the request.

use tower::{Layer, Service, service_fn};
use tower_rampart::{BoxError, retry::Retry};

struct Upload;

fn main() {
    let service = service_fn(|_: Upload| async { Ok::<_, BoxError>(()) });
    let service = Retry::attempts("db", 3).unwrap().layer().layer(service);
    call(service, Upload);
}

fn call<S: Service<Req>, Req>(mut service: S, request: Req) {
    drop(service.call(request));
}
