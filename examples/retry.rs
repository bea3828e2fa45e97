//! A retry around a reqwest client. Every other answer of the server is an error.
#![allow(missing_docs)]

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use axum::{Router, http::StatusCode, routing::get};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    Error, Event, EventKind, ServiceBuilderExt, Verdict,
    retry::{Backoff, Retry},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = serve().await?;
    let retry = Retry::builder("inventory")
        .max_attempts(3)
        .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_millis(200)))
        .observer(|event: &Event<'_>| {
            if let EventKind::RetryScheduled { attempt, delay } = event.kind {
                println!("   attempt {attempt} in {delay:?}");
            }
        })
        .build()?;
    let by_status = |result: Result<&reqwest::Response, &Error<reqwest::Error>>| match result {
        Ok(response) if response.status().is_server_error() => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Failure,
    };
    let layer = retry
        .layer()
        .classify_with(by_status)
        .clone_with(reqwest::Request::try_clone) // a streaming body cannot be cloned: such a request is sent once
        .prepare_with(|attempt, request: &mut reqwest::Request| {
            request.headers_mut().insert("x-attempt", attempt.into());
        });
    let mut client = ServiceBuilder::new().layer(layer).adapt_error().service(reqwest::Client::new());

    for call in 1..=5 {
        let request = reqwest::Request::new(reqwest::Method::GET, url.parse()?);
        let response = client.ready().await?.call(request).await?;
        println!("{call}: {}", response.status());
    }
    let budget = retry.budget().ok_or("the budget is on by default")?.snapshot();
    println!("{} of {} tokens are left in the retry budget", budget.balance, budget.capacity);
    Ok(())
}

async fn serve() -> std::io::Result<String> {
    static ANSWERS: AtomicU32 = AtomicU32::new(0);
    let flaky = get(|| async {
        let fails = ANSWERS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2);
        if fails { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", flaky)).await });
    Ok(format!("http://{address}/"))
}
