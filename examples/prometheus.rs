//! The metrics of a few calls, scraped over HTTP as Prometheus does it.
#![allow(missing_docs)]

use std::time::Duration;

use metrics_exporter_prometheus::PrometheusBuilder;
use tower::{BoxError, Layer, ServiceExt, service_fn};
use tower_rampart::{event::MetricsObserver, stack};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let address = free_address()?;
    PrometheusBuilder::new().with_http_listener(address).install()?;

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

    let text = reqwest::get(format!("http://{address}/metrics")).await?.text().await?;
    for line in text.lines().filter(|line| !line.contains("quantile")) {
        println!("{line}");
    }
    let expected = [
        "rampart_calls_total{pattern=\"circuit_breaker\",name=\"payments\",outcome=\"success\"} 8",
        "rampart_rejections_total{pattern=\"circuit_breaker\",name=\"payments\",reason=\"circuit_open\"} 1",
        "rampart_retries_total{pattern=\"retry\",name=\"payments\"} 4",
        "rampart_circuit_state{pattern=\"circuit_breaker\",name=\"payments\"} 3",
        "rampart_in_flight{pattern=\"bulkhead\",name=\"payments\"} 0",
    ];
    for line in expected {
        if !text.lines().any(|there| there == line) {
            return Err(format!("the scrape lacks {line}").into());
        }
    }
    Ok(())
}

/// The exporter wants to know its port beforehand: one that the system has just given and taken back.
fn free_address() -> std::io::Result<std::net::SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}
