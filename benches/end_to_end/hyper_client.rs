//! hyper-util's client, for both HTTP versions.

use std::{fmt::Debug, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use metrics_exporter_prometheus::PrometheusHandle;
use tower::{Layer, Service, ServiceExt, timeout::TimeoutLayer};
use tower_rampart::{
    event::MetricsObserver,
    http::{AdaptClientErrorLayer, HttpClassifier, HttpRepeat},
    stack::{self, ClientBuilder},
};

use crate::{
    load::{Caller, Candidate},
    server::serve,
};

type HyperClient = Client<HttpConnector, Full<Bytes>>;

#[derive(Clone)]
pub(crate) struct HttpCaller<S> {
    service: S,
    url: Arc<str>,
}

impl<S> HttpCaller<S> {
    pub(crate) fn new(service: S, url: &str) -> Self {
        Self { service, url: url.into() }
    }
}

impl<S> Caller for HttpCaller<S>
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>, Error: Debug + Send, Future: Send>,
    S: Clone + Send + Sync + 'static,
{
    async fn call(&mut self) {
        let request = Request::get(&*self.url).body(Full::default()).unwrap();
        let response = self.service.ready().await.unwrap().call(request).await.unwrap();
        assert!(response.status().is_success());
        response.into_body().collect().await.unwrap();
    }
}

pub(crate) fn client(http2: bool) -> HyperClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    Client::builder(TokioExecutor::new()).http2_only(http2).build(connector)
}

pub(crate) fn client_stack(name: &'static str) -> ClientBuilder<HttpClassifier, HttpRepeat> {
    stack::client(name).classify(HttpClassifier::new()).repeat(HttpRepeat::new())
}

pub(crate) async fn http1(metrics: &PrometheusHandle) -> Vec<Candidate> {
    let (client, url) = (client(false), serve().await);
    let mut candidates = everything(&client, &url, metrics);
    // These two show the timeouts' share of the cost.
    let timeless = client_stack("timeless").without_total_timeout().without_attempt_timeout().build().unwrap();
    let timeless = timeless.layer(AdaptClientErrorLayer::new().layer(client.clone()));
    candidates.push(Candidate::new("client stack without timeouts", HttpCaller::new(timeless, &url)));
    let timed = TimeoutLayer::new(Duration::from_secs(2)).layer(client);
    candidates.push(Candidate::new("tower's timeout only", HttpCaller::new(timed, &url)));
    candidates
}

pub(crate) async fn http2(metrics: &PrometheusHandle) -> Vec<Candidate> {
    everything(&client(true), &serve().await, metrics)
}

fn everything(client: &HyperClient, url: &str, metrics: &PrometheusHandle) -> Vec<Candidate> {
    let adapted = AdaptClientErrorLayer::new().layer(client.clone());
    let stacked = client_stack("stacked").build().unwrap().layer(adapted.clone());
    let observed = client_stack("observed").observer(MetricsObserver::new()).build().unwrap().layer(adapted);
    vec![
        Candidate::new("bare client", HttpCaller::new(client.clone(), url)),
        Candidate::new("client stack", HttpCaller::new(stacked, url)),
        Candidate::observed("client stack, metrics observer", HttpCaller::new(observed, url), metrics),
    ]
}
