//! Instructions per operation, counted by valgrind's callgrind: a figure without noise.
//!
//! `cargo bench --bench instructions` compares with `benches/instructions.txt` and fails if an
//! operation has become more than 5% (and more than two instructions) longer; `-- --bless` rewrites
//! the file. Another compiler generates other code, and the C library's `memcpy` depends on the
//! processor: if the tools differ from those that the file names, the figures are only printed.
//!
//! The program runs itself under callgrind twice, with few and with many operations. The difference
//! cancels the cost of startup, setup and shutdown.
#![allow(missing_docs)]

#[path = "support/service.rs"]
mod service;

use std::{collections::BTreeMap, fmt::Write as _, hint::black_box, process::Command, time::Duration};

use service::{Immediate, PendingOnce, call, call_pending};
use tower::{Layer, Service};
use tower_rampart::{
    bulkhead::Bulkhead,
    circuit_breaker::CircuitBreaker,
    fallback::Fallback,
    rate_limit::{KeyedRateLimiter, Rate, RateLimiter},
    retry::{Retry, RetryBudget},
    stack,
    timeout::Timeout,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.txt");
const FEW: u64 = 2_000;
const MANY: u64 = 12_000;

type Operation = Box<dyn FnMut()>;
type Scenario = (&'static str, fn() -> Operation);

fn main() {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next(), arguments.next()) {
        (Some("--count"), Some(name), Some(times)) => count(&name, times.parse().unwrap()),
        (Some("--bless"), ..) => compare(true),
        _ => compare(false),
    }
}

fn count(name: &str, times: u64) {
    let scenarios = scenarios();
    let (_, make) = scenarios.iter().find(|(known, _)| *known == name).expect("the scenario exists");
    let mut operation = make();
    (0..times).for_each(|_| operation());
}

fn measured(name: &str, times: u64) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--count", name, &times.to_string()])
        .output()
        .expect("valgrind is installed");
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {log}");
    let collected = log.lines().find_map(|line| line.split_once("Collected : ")).expect("callgrind prints the count").1;
    collected.trim().parse().unwrap()
}

fn compare(bless: bool) {
    let now: BTreeMap<&str, u64> = scenarios()
        .iter()
        .map(|(name, _)| (*name, (measured(name, MANY) - measured(name, FEW) + (MANY - FEW) / 2) / (MANY - FEW)))
        .collect();
    let tools = tools();
    if bless {
        let mut text =
            format!("# Instructions per operation. {tools}.\n# cargo bench --bench instructions -- --bless\n");
        for (name, count) in &now {
            writeln!(text, "{count:>5}  {name}").unwrap();
        }
        std::fs::write(FILE, text).unwrap();
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    let kept: BTreeMap<&str, u64> = (file.lines().filter(|line| !line.starts_with('#')))
        .filter_map(|line| line.trim().split_once("  "))
        .map(|(count, name)| (name, count.parse().unwrap()))
        .collect();
    let mut longer = Vec::new();
    println!("| instructions | before | operation |\n|---|---|---|");
    for (name, count) in &now {
        let before = kept.get(name).copied();
        println!("| {count} | {} | {name} |", before.map_or("new".to_owned(), |before| before.to_string()));
        if before.is_none_or(|before| *count > before + 2 && *count * 100 > before * 105) {
            longer.push(*name);
        }
    }
    if !file.contains(&tools) {
        println!("\nThe file was written with tools other than {tools}: nothing is compared.");
    } else if !longer.is_empty() {
        println!("\nLonger than in benches/instructions.txt, or missing there: {}", longer.join(", "));
        println!("If this is intended, run: cargo bench --bench instructions -- --bless");
        std::process::exit(1);
    }
}

/// The tools that the figures depend on.
fn tools() -> String {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().expect("the program is installed");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    format!("{}; {}; {}", version(&rustc), version("valgrind"), processor())
}

#[cfg(target_arch = "x86_64")]
fn processor() -> &'static str {
    if std::is_x86_feature_detected!("avx2") { "x86-64 with AVX2" } else { "x86-64" }
}

#[cfg(not(target_arch = "x86_64"))]
fn processor() -> &'static str {
    std::env::consts::ARCH
}

fn count_window() -> CircuitBreaker {
    let breaker = CircuitBreaker::builder("b").no_time_window().count_window(100).build().unwrap();
    (0..200).for_each(|_| breaker.try_acquire().unwrap().success());
    breaker
}

fn time_window() -> CircuitBreaker {
    CircuitBreaker::new("b")
}

fn opened(breaker: CircuitBreaker) -> CircuitBreaker {
    breaker.open_for(Duration::from_secs(3600));
    breaker
}

fn plenty() -> RateLimiter {
    RateLimiter::new("l", Rate::per_second(60_000_000)).unwrap()
}

fn exhausted() -> RateLimiter {
    let limiter = RateLimiter::new("l", Rate::per_hour(1)).unwrap();
    limiter.check().unwrap();
    limiter
}

fn full() -> Bulkhead {
    let bulkhead = Bulkhead::new("k", 1).unwrap();
    std::mem::forget(bulkhead.try_acquire().unwrap());
    bulkhead
}

/// Makes calls, and checks that they succeed or fail as `ok` says.
fn around<L>(layer: L, ok: bool) -> Operation
where
    L: Layer<Immediate>,
    L::Service: Service<u64> + 'static,
{
    let mut service = layer.layer(Immediate);
    Box::new(move || assert_eq!(call(&mut service), ok))
}

/// Makes calls that are pending once. The runtime drives no timer meanwhile.
fn pending<L>(layer: L) -> Operation
where
    L: Layer<PendingOnce>,
    L::Service: Service<u64> + 'static,
{
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let mut service = layer.layer(PendingOnce);
    Box::new(move || {
        let _entered = runtime.enter();
        assert!(call_pending(&mut service));
    })
}

fn scenarios() -> Vec<Scenario> {
    vec![
        ("core: breaker, count window, success", || {
            let breaker = count_window();
            Box::new(move || black_box(&breaker).try_acquire().unwrap().success())
        }),
        ("core: breaker, time window, success", || {
            let breaker = time_window();
            Box::new(move || black_box(&breaker).try_acquire().unwrap().success())
        }),
        ("core: breaker, rejection", || {
            let breaker = opened(count_window());
            Box::new(move || assert!(black_box(&breaker).try_acquire().is_err()))
        }),
        ("core: limiter, admission", || {
            let limiter = plenty();
            Box::new(move || black_box(&limiter).check().unwrap())
        }),
        ("core: limiter, rejection", || {
            let limiter = exhausted();
            Box::new(move || assert!(black_box(&limiter).check().is_err()))
        }),
        ("core: keyed limiter, admission", || {
            let limiter = KeyedRateLimiter::<u64>::builder("u", Rate::per_second(100_000)).build().unwrap();
            let mut key = 0;
            Box::new(move || {
                key = (key + 1) % 1000;
                let _ = black_box(black_box(&limiter).check_key(&key));
            })
        }),
        ("core: bulkhead, permit", || {
            let bulkhead = Bulkhead::new("k", 8).unwrap();
            Box::new(move || drop(black_box(&bulkhead).try_acquire().unwrap()))
        }),
        ("core: bulkhead, rejection", || {
            let bulkhead = full();
            Box::new(move || assert!(black_box(&bulkhead).try_acquire().is_err()))
        }),
        ("core: budget, deposit when full", || {
            let budget = RetryBudget::default();
            Box::new(move || black_box(&budget).deposit())
        }),
        ("layer: none", || around(tower::layer::util::Identity::new(), true)),
        ("layer: breaker, count window", || around(count_window().layer(), true)),
        ("layer: breaker, time window", || around(time_window().layer(), true)),
        ("layer: breaker, rejection", || around(opened(count_window()).layer(), false)),
        ("layer: retry", || around(Retry::attempts("r", 3).unwrap().layer(), true)),
        ("layer: timeout", || around(Timeout::new("t", Duration::from_secs(1)).layer(), true)),
        ("layer: bulkhead", || around(Bulkhead::new("k", 8).unwrap().layer(), true)),
        ("layer: bulkhead, rejection", || around(full().layer(), false)),
        ("layer: limiter", || around(plenty().layer(), true)),
        ("layer: limiter, rejection", || around(exhausted().layer(), false)),
        ("layer: fallback", || around(Fallback::value("f", 1_u64), true)),
        ("stack: client", || around(stack::client("c").build().unwrap(), true)),
        ("stack: client, count window", || {
            around(stack::client("c").circuit_breaker(&count_window()).build().unwrap(), true)
        }),
        ("pending: none", || pending(tower::layer::util::Identity::new())),
        ("pending: timeout", || pending(Timeout::new("t", Duration::from_secs(3600)).layer())),
        ("pending: tower's timeout", || pending(tower::timeout::TimeoutLayer::new(Duration::from_secs(3600)))),
        ("pending: client stack", || pending(stack::client("c").build().unwrap())),
        ("pending: server stack", || pending(stack::server("s").build().unwrap())),
        ("stack: server", || around(stack::server("s").build().unwrap(), true)),
    ]
}
