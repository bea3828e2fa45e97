//! Callers that send one request after the other, and the rounds in which candidates take turns.

use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use metrics_exporter_prometheus::PrometheusHandle;
use rand::{rng, seq::SliceRandom};

use crate::processor;

pub(crate) const CALLERS: usize = 16;

/// Sends a request and waits for the end of its response.
pub(crate) trait Caller: Clone + Send + Sync + 'static {
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

pub(crate) struct Candidate {
    pub(crate) name: &'static str,
    run: Box<dyn Fn(Duration) -> BoxFuture<'static, Sample>>,
}

impl Candidate {
    pub(crate) fn new(name: &'static str, caller: impl Caller) -> Self {
        Self { name, run: Box::new(move |length| Box::pin(load(caller.clone(), length, None))) }
    }

    /// A candidate that records metrics. Their upkeep, which an exporter does every few seconds, is
    /// a part of each of its rounds.
    pub(crate) fn observed(name: &'static str, caller: impl Caller, metrics: &PrometheusHandle) -> Self {
        let metrics = metrics.clone();
        Self { name, run: Box::new(move |length| Box::pin(load(caller.clone(), length, Some(metrics.clone())))) }
    }
}

struct Sample {
    /// In which the callers ran.
    time: Duration,
    /// In microseconds, of each request.
    latencies: Histogram<u64>,
}

pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// Requests per second, by round.
    pub(crate) rates: Vec<f64>,
    /// Requests per second of processor time, by round. Empty where the system does not say.
    pub(crate) rates_of_processor: Vec<f64>,
    /// In microseconds.
    pub(crate) latencies: Histogram<u64>,
}

pub(crate) async fn measure(candidates: &[Candidate], rounds: usize, length: Duration) -> Vec<Measured> {
    let mut measured: Vec<_> = candidates.iter().map(|one| Measured::new(one.name)).collect();
    let mut order: Vec<usize> = (0..candidates.len()).collect();
    for round in 0..=rounds {
        order.shuffle(&mut rng());
        for &which in &order {
            let before = processor::time_of_process();
            let sample = (candidates[which].run)(length).await;
            let after = processor::time_of_process();
            // The first round warms up.
            if round > 0 {
                measured[which].add(sample, after.zip(before).map(|(after, before)| after - before));
            }
        }
    }
    measured
}

impl Measured {
    fn new(name: &'static str) -> Self {
        Self { name, rates: Vec::new(), rates_of_processor: Vec::new(), latencies: Histogram::new(3).unwrap() }
    }

    fn add(&mut self, sample: Sample, processor: Option<Duration>) {
        let requests = sample.latencies.len() as f64;
        self.rates.push(requests / sample.time.as_secs_f64());
        self.rates_of_processor.extend(processor.map(|time| requests / time.as_secs_f64()));
        self.latencies.add(sample.latencies).unwrap();
    }
}

/// Runs [`CALLERS`] callers, each sending its next request as soon as it has its response.
async fn load<C: Caller>(caller: C, length: Duration, metrics: Option<PrometheusHandle>) -> Sample {
    let started = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let mut caller = caller.clone();
            tokio::spawn(async move {
                let mut latencies = Histogram::<u64>::new(3).unwrap();
                let mut now = started;
                while now.duration_since(started) < length {
                    let sent = now;
                    caller.call().await;
                    now = Instant::now();
                    latencies.record(now.duration_since(sent).as_micros() as u64).unwrap();
                }
                latencies
            })
        })
        .collect();
    let mut latencies = Histogram::new(3).unwrap();
    for caller in callers {
        latencies.add(caller.await.unwrap()).unwrap();
    }
    if let Some(metrics) = metrics {
        metrics.run_upkeep();
    }
    Sample { time: started.elapsed(), latencies }
}
