//! Timeouts on both sides: a server stack around an axum router, and limits of their own for requests of a client.
#![allow(missing_docs)]

use std::time::Duration;

use axum::{Router, http::StatusCode, response::IntoResponse, routing::get};
use tower::{ServiceBuilder, ServiceExt};
use tower_rampart::{Error, Rejection, ServiceBuilderExt, deadline, stack, timeout::Timeout};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = serve().await?;
    let timeout = Timeout::new("client", Duration::from_millis(400));
    let patience = |request: &reqwest::Request| {
        let millis = request.headers().get("x-patience-ms")?.to_str().ok()?.parse().ok()?;
        Some(Duration::from_millis(millis))
    };
    let layer = timeout.layer().per_request(patience);
    let client = ServiceBuilder::new().layer(layer).adapt_error().service(reqwest::Client::new());

    for (path, patience) in
        [("fast", None), ("slow", None), ("slow", Some(100_u16)), ("forever", None), ("forever", Some(900))]
    {
        let mut request = reqwest::Request::new(reqwest::Method::GET, format!("{url}/{path}").parse()?);
        if let Some(millis) = patience {
            request.headers_mut().insert("x-patience-ms", http::HeaderValue::from(millis));
        }
        match client.clone().oneshot(request).await {
            Ok(response) => println!("/{path}: {} {}", response.status(), response.text().await?),
            Err(Error::Rejected(rejection)) => println!("/{path}: {rejection}"),
            Err(Error::Service(error)) => println!("/{path}: {error}"),
        }
    }
    Ok(())
}

async fn serve() -> Result<String, Box<dyn std::error::Error>> {
    let stack = stack::server("api").total_timeout(Duration::from_millis(600)).build()?;
    println!("{stack}");
    let answer = |rejection: Rejection| match rejection {
        Rejection::TimedOut { .. } => (StatusCode::GATEWAY_TIMEOUT, rejection.to_string()).into_response(),
        other => (StatusCode::SERVICE_UNAVAILABLE, other.to_string()).into_response(),
    };
    let slow = get(|| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        // What is inside sees how much time is left.
        format!("with {:?} left", deadline::remaining().map(|left| left.as_millis()))
    });
    let router = Router::new()
        .route("/fast", get(|| async { "at once" }))
        .route("/slow", slow)
        .route("/forever", get(|| async { std::future::pending::<()>().await }))
        .layer(stack.respond(answer));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(format!("http://{address}"))
}
