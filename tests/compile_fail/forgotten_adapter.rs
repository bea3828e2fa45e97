//! A foreign error under a layer, without the adapter.

use tower::{Layer, Service, service_fn};
use tower_rampart::bulkhead::Bulkhead;

#[derive(Debug)]
struct ForeignError;

fn main() {
    let foreign = service_fn(|_: u32| async { Err::<(), _>(ForeignError) });
    let service = Bulkhead::new("db", 1).unwrap().layer().layer(foreign);
    call(service, 1);
}

fn call<S: Service<Req>, Req>(mut service: S, request: Req) {
    drop(service.call(request));
}
