//! An axum server with a rate limit per user. The table of users has a fixed size, however many
//! users there are.
#![allow(missing_docs)]

use axum::{
    Router,
    extract::Request,
    http::{StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::get,
};
use tower_rampart::{
    Rejection, RespondLayer,
    rate_limit::{KeyedRateLimiter, MissingKey, Rate},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let limiter = KeyedRateLimiter::<str>::builder("per-user", Rate::per_minute(3)).max_keys(10_000).build()?;
    let user = |request: &Request| Some(request.headers().get("x-user")?.to_str().ok()?.to_owned());
    let layer = limiter.layer(user).missing_key(MissingKey::Reject);
    let router = Router::new().route("/", get(|| async { "hello" })).layer(RespondLayer::new(layer, too_many_requests));

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });

    let client = reqwest::Client::new();
    for user in ["alice", "alice", "alice", "alice", "bob", ""] {
        let mut request = client.get(&url);
        if !user.is_empty() {
            request = request.header("x-user", user);
        }
        let response = request.send().await?;
        let after = response.headers().get(RETRY_AFTER).map_or("-", |after| after.to_str().unwrap_or("?"));
        println!("{user:>6}: {} retry-after {after}", response.status());
    }
    let snapshot = limiter.snapshot();
    println!("{} users are being limited, in a table of {} KiB", snapshot.active_keys, snapshot.bytes / 1024);
    Ok(())
}

fn too_many_requests(rejection: Rejection) -> Response {
    let Some(after) = rejection.retry_after() else {
        return (StatusCode::UNAUTHORIZED, "the x-user header is missing").into_response();
    };
    let seconds = after.as_secs_f64().ceil().to_string();
    (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, seconds)], rejection.to_string()).into_response()
}
