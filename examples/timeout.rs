//! Timeouts around a hyper-util client: one per attempt, one for all attempts, and a deadline that
//! inner code can see.
//!
//! `cargo run --example timeout`
#![allow(clippy::disallowed_methods)] // an example may read the clock

use std::time::Duration;

use axum::{Router, routing::get};
use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_rampart::{AdaptErrorLayer, Error, Rejection, deadline, timeout::Timeout};

/// A request's own limit, in its extensions.
#[derive(Clone, Copy)]
struct Patience(Duration);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let slow = get(|| async { sleep(Duration::from_secs(60)).await });
    let app = Router::new().route("/fast", get(|| async { "hello" })).route("/slow", slow);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let server = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let attempt = Timeout::new("attempt", Duration::from_millis(200));
    let own_limit = |request: &Request<Empty<Bytes>>| request.extensions().get().map(|&Patience(limit)| limit);
    let mut client = ServiceBuilder::new()
        .layer(Timeout::new("total", Duration::from_millis(500)).layer())
        .layer(attempt.layer().per_request(own_limit))
        .layer(AdaptErrorLayer::new()) // hyper-util's error cannot hold a rejection; `Error<_>` can
        .service(Client::builder(TokioExecutor::new()).build_http());

    let cases = [("/fast", None), ("/slow", None), ("/slow", Some(Patience(Duration::from_secs(5))))];
    for (path, patience) in cases {
        let mut request = Request::get(format!("{server}{path}")).body(Empty::<Bytes>::new())?;
        if let Some(patience) = patience {
            request.extensions_mut().insert(patience);
        }
        let started = Instant::now();
        match client.ready().await?.call(request).await {
            Ok(response) => println!("{path}: {}", response.status()),
            Err(Error::Rejected(Rejection::TimedOut { name, after, .. })) => {
                println!("{path}: `{name}` timed out after {after:?}, measured {:?}", started.elapsed());
            }
            Err(error) => return Err(error.into()),
        }
    }

    // Without Tower. Inner code sees how much time is left.
    let work = async {
        sleep(Duration::from_millis(120)).await;
        println!("inside, {:?} left", deadline::remaining().unwrap_or_default());
        Ok::<_, Rejection>(())
    };
    attempt.run(work).await?;

    // The limit can be changed at run time; an outer deadline can only shorten it.
    attempt.set_limit(Duration::from_secs(2));
    let deadline = Instant::now() + Duration::from_millis(100);
    let forever = std::future::pending::<Result<(), Rejection>>();
    println!("{}", deadline::scope(deadline, attempt.run(forever)).await.unwrap_err());
    Ok(())
}
