//! A hyper client and server on loopback, with and without the full client stack.
//!
//! `cargo bench --bench end_to_end` prints requests per second, the median and the 99th percentile;
//! `-- --quick` is a smoke test. The candidates take turns in short rounds, in one run, against the
//! same server.
#![allow(missing_docs)]

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, runtime::Builder};
use tower::{Layer, Service, ServiceExt};
use tower_rampart::{AdaptErrorLayer, stack};

const CALLERS: usize = 16;

fn main() {
    let quick = std::env::args().any(|argument| argument == "--quick" || argument == "--test");
    let (rounds, length) = if quick { (2, Duration::from_millis(50)) } else { (40, Duration::from_millis(250)) };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run(rounds, length));
}

async fn run(rounds: usize, length: Duration) {
    let address = serve().await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let adapted = AdaptErrorLayer::new().layer(client.clone());
    let protected = stack::client("loopback").build().unwrap().layer(adapted.clone());
    // These two show the timeouts' share of the cost.
    let timeless = stack::client("loopback").without_total_timeout().without_attempt_timeout();
    let timeless = timeless.build().unwrap().layer(adapted);
    let timed = tower::timeout::TimeoutLayer::new(Duration::from_secs(2)).layer(client.clone());
    let uri = format!("http://{address}/");
    let mut results: [Measured; NAMES.len()] = Default::default();
    for round in 0..=rounds {
        // The candidates take turns, also at being first.
        for turn in 0..NAMES.len() {
            let which = (round + turn) % NAMES.len();
            let (requests, latencies) = match which {
                0 => load(&client, &uri, length).await,
                1 => load(&protected, &uri, length).await,
                2 => load(&timeless, &uri, length).await,
                _ => load(&timed, &uri, length).await,
            };
            // The first round warms up.
            if round > 0 {
                results[which].rates.push(requests);
                results[which].latencies.add(latencies).unwrap();
            }
        }
    }
    println!("\n### hyper on loopback, {CALLERS} callers, {rounds} rounds of {length:?}\n");
    println!(
        "| | requests per second | relative to the bare client, per round (quartiles) | p50 | p99 |\n|---|---|---|---|---|"
    );
    for (name, one) in NAMES.iter().zip(&results) {
        let mut ratios: Vec<f64> = one.rates.iter().zip(&results[0].rates).map(|(rate, bare)| rate / bare).collect();
        ratios.sort_by(f64::total_cmp);
        let percent = |share: f64| 100.0 * ratios[((ratios.len() - 1) as f64 * share).round() as usize];
        let micros = |quantile| format!("{} us", one.latencies.value_at_quantile(quantile));
        println!(
            "| {name} | {:.0} | {:.1}% ({:.1}% to {:.1}%) | {} | {} |",
            median(&one.rates),
            percent(0.5),
            percent(0.25),
            percent(0.75),
            micros(0.5),
            micros(0.99)
        );
    }
}

const NAMES: [&str; 4] = ["bare client", "client stack", "client stack without timeouts", "tower's timeout only"];

struct Measured {
    rates: Vec<f64>,
    latencies: Histogram<u64>,
}

impl Default for Measured {
    fn default() -> Self {
        Self { rates: Vec::new(), latencies: Histogram::new(3).unwrap() }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

async fn serve() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            socket.set_nodelay(true).unwrap();
            let answer = service_fn(|_: Request<Incoming>| async {
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
        }
    });
    address
}

/// Runs [`CALLERS`] callers, each sending its next request as soon as it has its response. Returns
/// requests per second and the latencies in microseconds.
#[allow(clippy::disallowed_methods)] // the benchmark's clock
async fn load<S>(service: &S, uri: &str, length: Duration) -> (f64, Histogram<u64>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<Incoming>> + Clone + Send + 'static,
    S::Error: std::fmt::Debug + Send,
    S::Future: Send,
{
    let started = Instant::now();
    let uri: Arc<str> = uri.into();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (mut service, uri) = (service.clone(), Arc::clone(&uri));
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3).unwrap();
                while started.elapsed() < length {
                    let sent = Instant::now();
                    let request = Request::get(&*uri).body(Full::default()).unwrap();
                    let response = service.ready().await.unwrap().call(request).await.unwrap();
                    response.into_body().collect().await.unwrap();
                    latencies.record(sent.elapsed().as_micros() as u64).unwrap();
                }
                latencies
            })
        })
        .collect();
    let mut all = Histogram::new(3).unwrap();
    for caller in callers {
        all.add(caller.await.unwrap()).unwrap();
    }
    (all.len() as f64 / started.elapsed().as_secs_f64(), all)
}
