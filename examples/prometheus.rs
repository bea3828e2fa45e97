//! The metrics of a few calls, scraped over HTTP as Prometheus does.
#![allow(missing_docs)]

use std::time::Duration;

use axum::{Router, routing::get};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_rampart::{event::MetricsObserver, stack};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let metrics = PrometheusBuilder::new().set_buckets(&[0.005, 0.05, 0.5])?.install_recorder()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/metrics", listener.local_addr()?);
    let router = Router::new().route("/metrics", get(async move || metrics.render()));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let stack = stack::client("payments").observer(MetricsObserver::new()).build()?;
    println!("{stack}");
    let service = stack.layer(service_fn(|amount: u32| async move {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if amount.is_multiple_of(4) { Err(BoxError::from("declined")) } else { Ok(amount) }
    }));
    for amount in 1..=10 {
        let _ = service.clone().oneshot(amount).await;
    }
    if let Some(breaker) = stack.circuit_breaker() {
        breaker.force_open();
    }
    let _ = service.oneshot(11).await;

    let text = reqwest::get(url).await?.text().await?;
    println!("{text}");
    let expected = [
        "rampart_calls_total{pattern=\"circuit_breaker\",name=\"payments\",outcome=\"success\"} 8",
        "rampart_rejections_total{pattern=\"circuit_breaker\",name=\"payments\",reason=\"circuit_open\"} 1",
        "rampart_retries_total{pattern=\"retry\",name=\"payments\"} 2",
        "rampart_retries_exhausted_total{pattern=\"retry\",name=\"payments\",limit=\"budget\"} 1",
        "rampart_circuit_state{pattern=\"circuit_breaker\",name=\"payments\"} 3",
        "rampart_in_flight{pattern=\"bulkhead\",name=\"payments\"} 0",
        "rampart_call_duration_seconds_bucket{pattern=\"timeout\",name=\"payments.attempt\",le=\"0.5\"} 12",
    ];
    for line in expected {
        if !text.lines().any(|scraped| scraped == line) {
            return Err(format!("the scrape lacks {line}").into());
        }
    }
    Ok(())
}
