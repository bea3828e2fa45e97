//! Clients and servers on loopback, on two worker threads: bare, with everything on, and with the
//! metrics observer as well.
//!
//! `cargo bench --all-features --bench end_to_end` prints the tables; `-- --only http/2` measures
//! the rows whose name contains the text, `--with timeout` the bare candidates and those whose name
//! contains that text; `-- --quick` is a smoke test. The candidates of a row take turns, in a new
//! order each round. `below bare` compares the requests per second of a candidate with those of the
//! bare one in the same round: it is the median over the rounds, and its 95% confidence interval.
//! The requests per second of processor time, of clients and server together, do not depend on how
//! much of the machine other processes use.
#![allow(missing_docs)]
#![allow(clippy::disallowed_methods)] // the benchmark's clock

mod axum_server;
mod hyper_client;
mod load;
#[path = "../support/processor.rs"]
mod processor;
mod reqwest_client;
mod server;
#[path = "../support/statistics.rs"]
mod statistics;
mod tonic_client;

use std::time::Duration;

use clap::Parser;
use futures_util::future::LocalBoxFuture;
use load::{CALLERS, Candidate, Measured, measure};
use metrics_exporter_prometheus::PrometheusBuilder;
use statistics::{median, ratio};
use tokio::runtime::Builder;

/// Measures clients and servers on loopback.
#[derive(Parser)]
struct Options {
    /// Measure only rows whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
    /// Measure only the bare candidates, and those whose name contains this text.
    #[arg(long, default_value = "")]
    with: String,
    /// Few rounds: a smoke test, whose figures mean nothing.
    #[arg(long, alias = "test")]
    quick: bool,
    /// The number of rounds.
    #[arg(long, default_value_t = 200)]
    rounds: usize,
    /// The time of a candidate in a round, in milliseconds.
    #[arg(long, default_value_t = 50)]
    millis: u64,
    /// Passed by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    let options = Options::parse();
    let rounds = if options.quick { 2 } else { options.rounds };
    let length = Duration::from_millis(options.millis);
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let recorder = PrometheusBuilder::new().set_buckets(&[0.005, 0.05, 0.5]).unwrap();
        let metrics = recorder.install_recorder().unwrap();
        let rows: [(&str, LocalBoxFuture<'_, Vec<Candidate>>); 5] = [
            ("hyper, HTTP/1", Box::pin(hyper_client::http1(&metrics))),
            ("hyper, HTTP/2", Box::pin(hyper_client::http2(&metrics))),
            ("reqwest, HTTP/1", Box::pin(reqwest_client::http1(&metrics))),
            ("axum server, HTTP/1", Box::pin(axum_server::http1(&metrics))),
            ("tonic, unary call", Box::pin(tonic_client::unary(&metrics))),
        ];
        for (name, candidates) in rows {
            if name.to_lowercase().contains(&options.only.to_lowercase()) {
                let mut candidates = candidates.await;
                candidates.retain(|one| one.name.starts_with("bare") || one.name.contains(&options.with));
                print(name, &measure(&candidates, rounds, length).await, rounds, length);
            }
        }
    });
}

/// The first candidate is the bare one.
fn print(name: &str, measured: &[Measured], rounds: usize, length: Duration) {
    println!("\n### {name}, {CALLERS} callers, {rounds} rounds of {length:?}\n");
    println!(
        "| | requests per second | below bare (95%) | us of processor time per request | below bare | p50 | p99 |"
    );
    println!("|---|---|---|---|---|---|---|");
    let bare = &measured[0];
    for one in measured {
        let micros = |quantile| one.latencies.value_at_quantile(quantile);
        println!(
            "| {} | {:.0} | {} | {} | {} us | {} us |",
            one.name,
            median(&one.rates),
            below(&one.rates, &bare.rates),
            processor_time(one, bare).unwrap_or_else(|| "|".to_owned()),
            micros(0.5),
            micros(0.99)
        );
    }
}

fn processor_time(one: &Measured, bare: &Measured) -> Option<String> {
    let (ours, bare) = (&one.rates_of_processor, &bare.rates_of_processor);
    (!ours.is_empty()).then(|| format!("{:.2} | {}", 1e6 / median(ours), below(ours, bare)))
}

/// Returns by how much the rates are below those of the bare candidate in the same round.
fn below(rates: &[f64], bare: &[f64]) -> String {
    let (share, low, high) = ratio(rates, bare);
    let below = |share: f64| 100.0 * (1.0 - share);
    format!("{:.1}% ({:.1}% to {:.1}%)", below(share), below(high), below(low))
}
