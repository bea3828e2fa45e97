//! A circuit breaker around a hyper-util client. The server fails for a while.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{self, Client},
    rt::{TokioExecutor, TokioIo},
};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_rampart::{Error, ServiceBuilderExt, Verdict, circuit_breaker::CircuitBreaker, event::TracingObserver};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).without_time().init();
    let failing = Arc::new(AtomicBool::new(false));
    let url = serve(failing.clone()).await?;

    let breaker = CircuitBreaker::builder("orders")
        .consecutive_failures(3)
        .open_duration(Duration::from_millis(300))
        .observer(TracingObserver::new())
        .build()?;
    let classify_status = |result: Result<&Response<Incoming>, &Error<legacy::Error>>| match result {
        Ok(response) if response.status().is_server_error() => Verdict::Failure,
        Ok(_) => Verdict::Success,
        Err(_) => Verdict::Failure,
    };
    let mut client = ServiceBuilder::new()
        .layer(breaker.layer().classify_with(classify_status))
        .adapt_error()
        .service(Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>());

    for call in 0..14 {
        failing.store((2..6).contains(&call), Ordering::Relaxed);
        let request = Request::get(&url).body(Empty::new())?;
        match client.ready().await?.call(request).await {
            Ok(response) => println!("{call:2}: {} ({})", response.status(), breaker.state()),
            Err(Error::Rejected(rejection)) => println!("{call:2}: {rejection}"),
            Err(Error::Service(error)) => println!("{call:2}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    Ok(())
}

async fn serve(failing: Arc<AtomicBool>) -> std::io::Result<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let failing = failing.clone();
            let respond = service_fn(move |_| {
                let status = if failing.load(Ordering::Relaxed) { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
                async move { Ok::<_, Infallible>(Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap()) }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), respond));
        }
    });
    Ok(format!("http://{address}"))
}
