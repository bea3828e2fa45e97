//! A shop page that stays up while its recommendation service is down: a fallback around a reqwest
//! client, in an axum server.
//!
//! `cargo run --example fallback`

use std::{future::ready, time::Duration};

use axum::{Router, extract::State, routing::get};
use reqwest::{Client, Method, Request, Response};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_rampart::{AdaptErrorLayer, Error, Event, EventKind, circuit_breaker::CircuitBreaker, fallback::Fallback};

type Failure = Error<reqwest::Error>;
type Recommendations = BoxCloneSyncService<Request, Response, Failure>;

async fn serve(app: Router) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(format!("http://{address}"))
}

/// The page. It handles no failures: the fallback always has something to recommend.
async fn page(State((service, url)): State<(Recommendations, reqwest::Url)>) -> String {
    match service.oneshot(Request::new(Method::GET, url)).await {
        Ok(response) => format!("We recommend: {}", response.text().await.unwrap_or_default()),
        Err(error) => format!("Sorry: {error}"),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let personal = Router::new().route("/for/{user}", get(|| async { "a book you will like" }));
    let recommendations = serve(personal).await?;

    let breaker = CircuitBreaker::consecutive("recommendations", 5)?;
    // `reqwest::Request` is not `Clone`; the fallback only needs its path.
    let keep = |request: &Request| request.url().path().to_owned();
    let bestseller = |path: String, result: Result<Response, Failure>| {
        println!(
            "  (for {path}: {})",
            result.map_or_else(|error| error.to_string(), |response| response.status().to_string())
        );
        ready(Ok::<_, Failure>(http::Response::new("this month's bestseller").into()))
    };
    // By default only rejections are replaced. Here every unsuccessful result is.
    let unsuccessful =
        |result: Result<&Response, &Failure>| !result.is_ok_and(|response| response.status().is_success());
    let fallback = Fallback::function_with("recommendations", keep, bestseller).when(unsuccessful).observer(
        |event: &Event<'_>| {
            if let EventKind::FallbackServed { served } = event.kind {
                println!("  [{}] fell back to a {}", event.name, served.as_str());
            }
        },
    );
    let client = ServiceBuilder::new()
        .layer(fallback)
        .layer(breaker.layer())
        .layer(AdaptErrorLayer::new()) // reqwest's error cannot hold a rejection; `Error<_>` can
        .service(Client::new());

    let shop = |path: &str| -> Result<Router, Box<dyn std::error::Error>> {
        let state = (BoxCloneSyncService::new(client.clone()), format!("{recommendations}{path}").parse()?);
        Ok(Router::new().route("/", get(page)).with_state(state))
    };
    let (healthy, missing) = (serve(shop("/for/ada")?).await?, serve(shop("/no/such/path")?).await?);
    println!("healthy: {}", reqwest::get(&healthy).await?.text().await?);
    println!("404:     {}", reqwest::get(&missing).await?.text().await?);
    breaker.open_for(Duration::from_secs(60));
    println!("open:    {}", reqwest::get(&healthy).await?.text().await?);
    breaker.close();
    println!("closed:  {}", reqwest::get(&healthy).await?.text().await?);
    Ok(())
}
