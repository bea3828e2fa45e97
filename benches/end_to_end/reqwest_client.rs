//! reqwest's client.

use std::fmt::Debug;

use metrics_exporter_prometheus::PrometheusHandle;
use reqwest::{Client, Method, Request, Response, Url};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{event::MetricsObserver, http::AdaptClientErrorLayer};

use crate::{
    hyper_client::client_stack,
    load::{Caller, Candidate},
    server::serve,
};

#[derive(Clone)]
struct ReqwestCaller<S> {
    service: S,
    url: Url,
}

impl<S> Caller for ReqwestCaller<S>
where
    S: Service<Request, Response = Response, Error: Debug + Send, Future: Send> + Clone + Send + Sync + 'static,
{
    async fn call(&mut self) {
        let request = Request::new(Method::GET, self.url.clone());
        let response = self.service.ready().await.unwrap().call(request).await.unwrap();
        assert!(response.status().is_success());
        response.bytes().await.unwrap();
    }
}

pub(crate) async fn http1(metrics: &PrometheusHandle) -> Vec<Candidate> {
    let (client, url): (_, Url) = (Client::new(), serve().await.parse().unwrap());
    let adapted = AdaptClientErrorLayer::new().layer(client.clone());
    let stacked = client_stack("stacked").build().unwrap().layer(adapted.clone());
    let observed = client_stack("observed").observer(MetricsObserver::new()).build().unwrap().layer(adapted);
    vec![
        Candidate::new("bare client", ReqwestCaller { service: client, url: url.clone() }),
        Candidate::new("client stack", ReqwestCaller { service: stacked, url: url.clone() }),
        Candidate::observed("client stack, metrics observer", ReqwestCaller { service: observed, url }, metrics),
    ]
}
