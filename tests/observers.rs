//! The adapters to `tracing` and to the `metrics` facade, driven by real layers.
#![cfg(all(feature = "tracing", feature = "metrics", feature = "tower"))]

mod support;

use std::{
    collections::HashSet,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_exporter_prometheus::PrometheusBuilder;
use support::{
    BoxError, paused,
    probe::{Reply, Script},
};
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_rampart::{
    DefaultClassifier, Rejection, ServiceBuilderExt, Verdict,
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    event::{MetricsObserver, TracingObserver},
    fallback::Fallback,
    rate_limit::{Rate, RateLimiter},
    retry::{Backoff, Jitter, Retry, RetryBudget},
    timeout::Timeout,
};
use tracing::{Event, Level, Metadata, Subscriber, field::Visit, span};

/// A subscriber that records this crate's events down to a level.
#[derive(Clone)]
struct Log(Level, Arc<Mutex<Vec<String>>>);

impl Log {
    fn down_to(level: Level) -> Self {
        Self(level, Arc::default())
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.1.lock().unwrap())
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
        self.0 += &format!(" {field}={value:?}");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.0
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        if event.metadata().target() == "tower_rampart" {
            let mut line = Line(event.metadata().level().to_string());
            event.record(&mut line);
            self.1.lock().unwrap().push(line.0);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Makes every pattern emit every event it can emit.
async fn emit_every_event<O>(observer: O)
where
    O: tower_rampart::Observer + Clone,
{
    let breaker = CircuitBreaker::builder("b")
        .consecutive_failures(1)
        .slow_calls(Duration::from_secs(1), 1.0)
        .observer(observer.clone())
        .build()
        .unwrap();
    breaker.try_acquire().unwrap().success();
    drop(breaker.try_acquire().unwrap());
    breaker.try_acquire().unwrap().finish(Verdict::Failure);
    assert!(breaker.try_acquire().is_err());
    breaker.half_open();
    breaker.close();

    let builder = Bulkhead::builder("k").max_concurrent(1).max_wait(Duration::from_millis(20));
    let bulkhead = builder.observer(observer.clone()).build().unwrap();
    let permit = bulkhead.try_acquire().unwrap();
    assert!(bulkhead.acquire().await.is_err());
    let mut waiting = tokio_test::task::spawn(bulkhead.acquire());
    assert!(waiting.poll().is_pending());
    drop(waiting);
    let mut waiting = tokio_test::task::spawn(bulkhead.acquire());
    assert!(waiting.poll().is_pending());
    drop(permit);
    drop(waiting.await.unwrap());

    let limiter = RateLimiter::builder("l", Rate::per_hour(1)).observer(observer.clone()).build().unwrap();
    assert!(limiter.check().is_ok() && limiter.check().is_err());

    let timeout = Timeout::builder("t", Duration::from_millis(5)).observer(observer.clone()).build();
    assert!(timeout.run(std::future::pending::<Result<(), BoxError>>()).await.is_err());
    timeout.run(async { Ok::<_, BoxError>(()) }).await.unwrap();

    let budget = RetryBudget::builder().capacity(1).min_per_second(0).build().unwrap();
    let backoff = Backoff::fixed(Duration::from_millis(1)).jitter(Jitter::None);
    let retry = Retry::builder("r").max_attempts(2).backoff(backoff).budget(&budget).observer(observer.clone());
    let retry = retry.build().unwrap();
    for _ in 0..2 {
        assert!(retry.run(|_| async { Err::<(), BoxError>("boom".into()) }).await.is_err());
    }
    let fallback = Fallback::value("f", "instead").observer(observer);
    let (script, probe) = Script::new();
    script.reply(Reply::Err(Rejection::bulkhead_full("x", 1).into()));
    assert_eq!(fallback.layer(probe).oneshot("a").await.unwrap(), "instead");
}

#[tokio::test(start_paused = true)]
async fn tracing_records_every_event_at_its_level() {
    let log = Log::down_to(Level::TRACE);
    let _guard = tracing::subscriber::set_default(log.clone());
    emit_every_event(TracingObserver::new()).await;
    let lines = log.take();
    let expect = |line: &str| assert!(lines.iter().any(|found| found.starts_with(line)), "no {line} in {lines:#?}");
    expect(
        "WARN message=circuit breaker changed state pattern=\"circuit_breaker\" name=\"b\" from=\"closed\" to=\"open\" \
         generation=1 cause=\"consecutive_failures\"",
    );
    expect("WARN message=retry budget exhausted pattern=\"retry\" name=\"r\" attempts=1");
    expect(
        "DEBUG message=circuit breaker changed state pattern=\"circuit_breaker\" name=\"b\" from=\"open\" \
         to=\"half_open\" generation=2 cause=\"manual\"",
    );
    expect(
        "INFO message=circuit breaker changed state pattern=\"circuit_breaker\" name=\"b\" from=\"half_open\" \
         to=\"closed\" generation=3 cause=\"manual\"",
    );
    expect("DEBUG message=retries exhausted pattern=\"retry\" name=\"r\" attempts=2");
    expect("DEBUG message=call rejected pattern=\"bulkhead\" name=\"k\" reason=\"queue_timeout\"");
    expect("DEBUG message=call rejected pattern=\"rate_limiter\" name=\"l\" reason=\"rate_limited\"");
    expect("DEBUG message=call rejected pattern=\"timeout\" name=\"t\" reason=\"timed_out\"");
    expect("DEBUG message=call rejected pattern=\"circuit_breaker\" name=\"b\" reason=\"circuit_open\"");
    expect("DEBUG message=retry scheduled pattern=\"retry\" name=\"r\" attempt=2 delay=1ms");
    expect("DEBUG message=fallback served pattern=\"fallback\" name=\"f\" served=\"value\"");
    expect("TRACE message=call admitted pattern=\"circuit_breaker\" name=\"b\"");
    expect("TRACE message=call completed pattern=\"circuit_breaker\" name=\"b\" verdict=\"success\" elapsed=0ns");
    expect("TRACE message=call cancelled pattern=\"circuit_breaker\" name=\"b\" admitted=true elapsed=0ns");
    expect("TRACE message=waited for a permit pattern=\"bulkhead\" name=\"k\" waited=0ns");
    // Unknown values are left out.
    let exactly = |line: &str| assert!(lines.iter().any(|found| found == line), "no {line} in {lines:#?}");
    exactly("TRACE message=call cancelled pattern=\"bulkhead\" name=\"k\" admitted=false");
    exactly("TRACE message=call completed pattern=\"retry\" name=\"r\" verdict=\"failure\"");
}

#[tokio::test(start_paused = true)]
async fn disabled_levels_record_nothing() {
    for (level, expected) in
        [(Level::WARN, &["WARN"][..]), (Level::INFO, &["WARN", "INFO"]), (Level::DEBUG, &["WARN", "INFO", "DEBUG"])]
    {
        let log = Log::down_to(level);
        let _guard = tracing::subscriber::set_default(log.clone());
        emit_every_event(TracingObserver::new()).await;
        let lines = log.take();
        let levels: HashSet<_> = lines.iter().map(|line| line.split_once(' ').unwrap().0).collect();
        assert_eq!(levels, expected.iter().copied().collect(), "down to {level}");
    }
}

#[test]
fn metrics_count_every_event_and_nothing_stays_in_flight() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    metrics::with_local_recorder(&recorder, || {
        paused(emit_every_event(MetricsObserver::new()));
    });
    let text = handle.render();
    let expect = |line: &str| assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    expect("rampart_calls_total{pattern=\"circuit_breaker\",name=\"b\",outcome=\"success\"} 1");
    expect("rampart_calls_total{pattern=\"circuit_breaker\",name=\"b\",outcome=\"failure\"} 1");
    expect("rampart_calls_total{pattern=\"circuit_breaker\",name=\"b\",outcome=\"cancelled\"} 1");
    expect("rampart_calls_total{pattern=\"circuit_breaker\",name=\"b\",outcome=\"rejected\"} 1");
    expect("rampart_rejections_total{pattern=\"circuit_breaker\",name=\"b\",reason=\"circuit_open\"} 1");
    expect("rampart_rejections_total{pattern=\"bulkhead\",name=\"k\",reason=\"queue_timeout\"} 1");
    expect("rampart_retries_total{pattern=\"retry\",name=\"r\"} 1");
    expect("rampart_retries_exhausted_total{pattern=\"retry\",name=\"r\",limit=\"attempts\"} 1");
    expect("rampart_retries_exhausted_total{pattern=\"retry\",name=\"r\",limit=\"budget\"} 1");
    expect(
        "rampart_transitions_total{pattern=\"circuit_breaker\",name=\"b\",from=\"closed\",to=\"open\",\
         cause=\"consecutive_failures\"} 1",
    );
    expect("rampart_circuit_state{pattern=\"circuit_breaker\",name=\"b\"} 0");
    expect("rampart_fallbacks_total{pattern=\"fallback\",name=\"f\",served=\"value\"} 1");
    // The call that timed out took 5 ms, the other none.
    expect("rampart_call_duration_seconds_count{pattern=\"timeout\",name=\"t\"} 2");
    expect("rampart_call_duration_seconds_sum{pattern=\"timeout\",name=\"t\"} 0.005");
    expect("rampart_permit_wait_seconds_count{pattern=\"bulkhead\",name=\"k\"} 1");
    let in_flight: Vec<_> = text.lines().filter(|line| line.starts_with("rampart_in_flight{")).collect();
    assert!(in_flight.len() >= 6 && in_flight.iter().all(|line| line.ends_with(" 0")), "{in_flight:?}");
}

/// The in-flight gauge of each pattern.
fn in_flight(text: &str) -> Vec<(&str, &str)> {
    let mut lines: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("rampart_in_flight{pattern=\"")?.split_once("\",name=\"api-7\"} "))
        .collect();
    lines.sort_unstable();
    lines
}

fn in_all_six(each: &'static str) -> [(&'static str, &'static str); 6] {
    ["bulkhead", "circuit_breaker", "fallback", "rate_limiter", "retry", "timeout"].map(|pattern| (pattern, each))
}

// G23: every way a call can end takes it out of the gauge once.
#[test]
fn a_call_is_in_flight_from_its_admission_to_its_terminal_event() {
    const LIMIT: Duration = Duration::from_millis(50);
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let calls = async {
        // A name that is not static.
        let (name, observer) = (|| format!("api-{}", 7), MetricsObserver::new);
        let limiter = RateLimiter::builder(name(), Rate::per_second(100)).observer(observer()).build().unwrap();
        let (script, probe) = Script::new();
        let mut service = ServiceBuilder::new()
            .fallback(Fallback::value(name(), "instead").observer(observer()))
            .retries(&Retry::builder(name()).max_attempts(1).observer(observer()).build().unwrap(), DefaultClassifier)
            .rate_limiter(&limiter)
            .circuit_breaker(&CircuitBreaker::builder(name()).observer(observer()).build().unwrap(), DefaultClassifier)
            .bulkhead(&Bulkhead::builder(name()).max_concurrent(2).observer(observer()).build().unwrap())
            .time_limit(&Timeout::builder(name(), LIMIT).observer(observer()).build())
            .service(probe);
        for outcome in ["Ok", "Err", "drop", "panic", "time out", "drop unpolled"] {
            script.reply(Reply::Later);
            let mut call = tokio_test::task::spawn(service.ready().await.unwrap().call("a"));
            assert!(outcome == "drop unpolled" || call.poll().is_pending());
            assert_eq!(in_flight(&handle.render()), in_all_six("1"), "{outcome}");
            match outcome {
                "Ok" => script.answer(Ok("ok")),
                "Err" => script.answer(Err("boom".into())),
                "time out" => tokio::time::advance(LIMIT + Duration::from_millis(1)).await,
                _ => {}
            }
            if matches!(outcome, "Ok" | "Err" | "time out") {
                assert!(call.poll().is_ready());
            } else {
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    let _call = call;
                    assert_ne!(outcome, "panic");
                }));
            }
            assert_eq!(in_flight(&handle.render()), in_all_six("0"), "{outcome}");
        }
        // A rejected call is never in flight.
        while limiter.check().is_ok() {}
        assert_eq!(service.ready().await.unwrap().call("a").await.unwrap(), "instead");
        assert_eq!(in_flight(&handle.render()), in_all_six("0"));
    };
    metrics::with_local_recorder(&recorder, || paused(calls));
}

/// The lines of a storm, by level and message.
fn tally(log: &Log) -> Vec<(String, usize)> {
    let mut counts = std::collections::BTreeMap::new();
    for line in log.take() {
        let words = line.split(" pattern=").next().unwrap().replace("message=", "");
        *counts.entry(words).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn lines(expected: &[(&str, usize)]) -> Vec<(String, usize)> {
    expected.iter().map(|(line, count)| ((*line).to_owned(), *count)).collect()
}

const CHANGED: &str = "WARN circuit breaker changed state";
const CLOSED: &str = "INFO circuit breaker changed state";
const EXHAUSTED: &str = "WARN retry budget exhausted";
const RECOVERED: &str = "INFO retry budget recovered";

// G34
#[tokio::test(start_paused = true)]
async fn an_exhausted_budget_is_logged_once_and_so_is_its_recovery() {
    let log = Log::down_to(Level::INFO);
    let _guard = tracing::subscriber::set_default(log.clone());
    // A budget that two retries share.
    let budget = RetryBudget::default();
    let backoff = Backoff::fixed(Duration::from_millis(1)).jitter(Jitter::None);
    let retry = |name| {
        let builder = Retry::builder(name).max_attempts(2).backoff(backoff).budget(&budget);
        builder.observer(TracingObserver::new()).build().unwrap()
    };
    let retries = [retry("r1"), retry("r2")];
    let call = async |number: usize, fails: bool| {
        let attempt = |_| async move { if fails { Err::<(), BoxError>("down".into()) } else { Ok(()) } };
        let _ = retries[number % 2].run(attempt).await;
    };
    for number in 0..400 {
        call(number, true).await;
    }
    assert_eq!(tally(&log), lines(&[(EXHAUSTED, 1)]));
    for number in 0..400 {
        call(number, false).await;
    }
    assert_eq!(tally(&log), lines(&[(RECOVERED, 1)]));
    // A budget that hovers around empty: a quarter of ten thousand calls in 100 seconds fails.
    for number in 0..10_000 {
        call(number, number % 80 < 20).await;
        tokio::time::advance(Duration::from_millis(10)).await;
    }
    let hovering = tally(&log);
    assert!(hovering.iter().all(|(_, count)| (1..=11).contains(count)), "{hovering:?}");
    // A user's own withdrawals are not reported, and do not swallow a report.
    tokio::time::advance(Duration::from_secs(10)).await;
    for number in 0..100 {
        call(number, false).await;
    }
    log.take();
    while budget.try_withdraw() {}
    call(0, true).await;
    assert_eq!(tally(&log), lines(&[(EXHAUSTED, 1)]));
}

// G34
#[tokio::test(start_paused = true)]
async fn rejections_and_exhausted_retries_are_not_logged_at_info() {
    let log = Log::down_to(Level::INFO);
    let _guard = tracing::subscriber::set_default(log.clone());
    let observer = TracingObserver::new();
    let bulkhead = Bulkhead::builder("k").max_concurrent(1).observer(observer).build().unwrap();
    let _permit = bulkhead.try_acquire().unwrap();
    let limiter = RateLimiter::builder("l", Rate::per_hour(1)).observer(observer).build().unwrap();
    limiter.check().unwrap();
    let timeout = Timeout::builder("t", Duration::ZERO).observer(observer).build();
    let retry = Retry::builder("r").no_budget().observer(observer).build().unwrap();
    let fallback = Fallback::value("f", "instead").observer(observer);
    for _ in 0..400 {
        assert!(bulkhead.try_acquire().is_err() && limiter.check().is_err());
        assert!(timeout.run(std::future::pending::<Result<(), BoxError>>()).await.is_err());
        // Attempts run out, and a hint is too long to wait for.
        assert!(retry.run(|_| async { Err::<(), BoxError>("down".into()) }).await.is_err());
        let limited = || async { Err::<(), BoxError>(limiter.check().unwrap_err().into()) };
        assert!(retry.run(|_| limited()).await.is_err());
        let (script, probe) = Script::new();
        script.reply(Reply::Err(Rejection::bulkhead_full("x", 1).into()));
        fallback.layer(probe).oneshot("a").await.unwrap();
    }
    assert_eq!(tally(&log), lines(&[]));
}

// G34
#[tokio::test(start_paused = true)]
async fn an_outage_is_a_line_when_the_circuit_opens_and_one_when_it_closes() {
    let log = Log::down_to(Level::INFO);
    let _guard = tracing::subscriber::set_default(log.clone());
    let breaker = CircuitBreaker::builder("b").consecutive_failures(1).open_jitter(false);
    let breaker = breaker.observer(TracingObserver::new()).build().unwrap();
    let calls = async |seconds: u32, fails: fn(u32) -> bool| {
        for call in 0..100 * seconds {
            let _ = breaker.run(async { if fails(call) { Err::<(), BoxError>("down".into()) } else { Ok(()) } }).await;
            tokio::time::advance(Duration::from_millis(10)).await;
        }
    };
    calls(100, |_| true).await;
    assert_eq!(tally(&log), lines(&[(CHANGED, 1)]));
    calls(100, |_| false).await;
    assert_eq!(tally(&log), lines(&[(CLOSED, 1)]));
    // It closes after three probes, and trips at the next call: one of each per open time.
    calls(100, |call| call % 103 == 0).await;
    let flapping = tally(&log);
    assert!(flapping.iter().all(|(_, count)| (90..=100).contains(count)), "{flapping:?}");
    breaker.force_open();
    breaker.disable();
    assert_eq!(tally(&log), lines(&[(CHANGED, 2)]));
}
