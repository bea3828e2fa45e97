//! A retry around a reqwest client: jittered backoff, a budget, and requests that are not retried.
//!
//! `cargo run --example retry`

use std::{sync::atomic, time::Duration};

use axum::{Router, http::StatusCode, routing::any};
use reqwest::{Method, Request, Response};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    AdaptErrorLayer, Error, Verdict,
    event::{Event, EventKind},
    retry::{Backoff, Retry, RetryBudget},
    timeout::Timeout,
};

/// Responds with 503 to two of three calls.
async fn flaky() -> (StatusCode, &'static str) {
    static CALLS: atomic::AtomicU32 = atomic::AtomicU32::new(0);
    match CALLS.fetch_add(1, atomic::Ordering::Relaxed) % 3 {
        2 => (StatusCode::OK, "hello"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "restarting"),
    }
}

/// Reqwest returns `Ok` for error statuses, so the classifier decides which responses are failures.
fn classify_status(result: Result<&Response, &Error<reqwest::Error>>) -> Verdict {
    match result {
        Ok(response) if response.status().is_server_error() => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Failure,
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let app = Router::new().route("/flaky", any(flaky)).route("/hang", any(std::future::pending::<()>));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    // Retries may add 10% to the load, with bursts of up to five.
    let budget = RetryBudget::builder().ratio(0.1).capacity(5).min_per_second(0).build()?;
    let retry = Retry::builder("greetings")
        .max_attempts(4)
        .backoff(Backoff::exponential(Duration::from_millis(20), Duration::from_secs(1)))
        .budget(&budget)
        .observer(|event: &Event<'_>| match event.kind {
            EventKind::RetryScheduled { attempt, delay } => println!("  attempt {attempt} in {delay:?}"),
            EventKind::BudgetExhausted { .. } => println!("  no budget left for a retry"),
            _ => {}
        })
        .build()?;
    let mut client = ServiceBuilder::new()
        .layer(
            retry
                .layer()
                .classify_with(classify_status)
                .clone_with(Request::try_clone) // a request with a streaming body cannot be copied and is sent once
                .idempotent_if(|request: &Request| request.method().is_idempotent()),
        )
        .layer(Timeout::new("attempt", Duration::from_millis(200)).layer())
        .layer(AdaptErrorLayer::new())
        .service(reqwest::Client::new());

    // A POST that timed out may have been processed, and is not retried.
    let calls = [(Method::GET, "/flaky"), (Method::POST, "/hang"), (Method::GET, "/hang"), (Method::GET, "/flaky")];
    for (method, path) in calls {
        println!("{method} {path}");
        match client.ready().await?.call(Request::new(method, format!("{server}{path}").parse()?)).await {
            Ok(response) => println!("  {}", response.status()),
            Err(Error::Rejected(rejection)) => println!("  {rejection}"),
            Err(Error::Service(error)) => return Err(error.into()),
        }
    }
    println!("budget: {:?}", budget.snapshot());
    Ok(())
}
