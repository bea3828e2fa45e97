//! An axum server, called by a bare hyper client.

use axum::{Router, body::Body, routing::get, serve::ListenerExt};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tower_rampart::{event::MetricsObserver, http::Responses, stack};

use crate::{
    hyper_client::{HttpCaller, client},
    load::Candidate,
};

pub(crate) async fn http1(metrics: &PrometheusHandle) -> Vec<Candidate> {
    let client = client(false);
    let router = || Router::new().route("/", get(|| async { "hello" }));
    let respond = || Responses::problem_json().respond::<Body>();
    let stacked = stack::server("stacked").build().unwrap();
    let observed = stack::server("observed").observer(MetricsObserver::new()).build().unwrap();
    let caller = async |router| HttpCaller::new(client.clone(), &serve(router).await);
    vec![
        Candidate::new("bare server", caller(router()).await),
        Candidate::new("server stack", caller(router().layer(stacked.respond(respond()))).await),
        Candidate::observed(
            "server stack, metrics observer",
            caller(router().layer(observed.respond(respond()))).await,
            metrics,
        ),
    ]
}

/// Returns the server's URL.
async fn serve(router: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let listener = listener.tap_io(|socket| socket.set_nodelay(true).unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/")
}
