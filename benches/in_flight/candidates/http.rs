//! Calls with an HTTP request and response.

use std::fmt::Debug;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use tower::{Layer, Service, ServiceBuilder};
use tower_rampart::{
    http::{AdaptClientErrorLayer, HttpClassifier, HttpRepeat},
    stack,
};

use super::{Candidate, LIMIT, bulkhead, retry};
use crate::held::{self, Held};

impl held::Request for Request<Full<Bytes>> {
    type Response = Response<()>;

    fn new() -> Self {
        let request = Request::get("http://127.0.0.1:8080/items/7");
        request.header("accept", "application/json").header("authorization", "Bearer 7").body(Full::default()).unwrap()
    }
}

pub(super) fn all() -> Vec<Candidate> {
    vec![
        http("bare service, HTTP", |inner| inner),
        http("retry, HTTP", |inner| {
            ServiceBuilder::new()
                .layer(retry().layer().classify(HttpClassifier::new()).repeat(HttpRepeat::new()))
                .layer(AdaptClientErrorLayer::new())
                .service(inner)
        }),
        http("client stack, HTTP", |inner| {
            let stack = stack::client("c").classify(HttpClassifier::new()).repeat(HttpRepeat::new());
            let stack = stack.total_timeout(2 * LIMIT).attempt_timeout(LIMIT).bulkhead(&bulkhead()).build().unwrap();
            stack.layer(AdaptClientErrorLayer::new().layer(inner))
        }),
        http("client stack without a retry, HTTP", |inner| {
            let stack = stack::client("c").classify(HttpClassifier::new()).without_retry();
            let stack = stack.total_timeout(2 * LIMIT).attempt_timeout(LIMIT).bulkhead(&bulkhead()).build().unwrap();
            stack.layer(AdaptClientErrorLayer::new().layer(inner))
        }),
        http("tower's timeout, HTTP", |inner| tower::timeout::TimeoutLayer::new(LIMIT).layer(inner)),
    ]
}

fn http<S>(name: &'static str, make: impl Fn(Held) -> S + Clone + 'static) -> Candidate
where
    S: Service<Request<Full<Bytes>>, Response: Send, Error: Debug + Send, Future: Send> + Send + 'static,
{
    Candidate::new::<S, Request<Full<Bytes>>>(name, make)
}
