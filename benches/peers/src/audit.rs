//! Counts the writes of healthy calls, as seen by valgrind's lackey on this binary.
//!
//! The program runs itself under `--tool=lackey --trace-mem=yes`. The child records the addresses
//! of the handle's allocations and stores to a marker word before and after its calls. The parent
//! counts the loads and stores in between that touch the handle. It sees the code that the compiler
//! emitted, and the result holds for any number of cores: memory that is never written is never
//! contended.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use tower::Layer;
use tower_rampart::{bulkhead::Bulkhead, circuit_breaker::CircuitBreaker, stack};

use crate::inner::{Immediate, call};

const CALLS: u64 = 1000;
const SUBJECTS: [&str; 3] = ["breaker", "bulkhead", "client stack's breaker"];

static RECORDING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);
static RANGES: [(AtomicUsize, AtomicUsize); 64] = [const { (AtomicUsize::new(0), AtomicUsize::new(0)) }; 64];
static MARK: AtomicU64 = AtomicU64::new(0);

/// Records an allocation, while recording is on.
pub fn allocated(address: usize, size: usize) {
    if RECORDING.load(Ordering::Relaxed) {
        let at = ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        if let Some((start, length)) = RANGES.get(at) {
            start.store(address, Ordering::Relaxed);
            length.store(size, Ordering::Relaxed);
        }
    }
}

/// The child: creates a handle and makes calls through its layer.
pub fn run(subject: &str) {
    let service: Mutex<Box<dyn FnMut()>> = match subject {
        "breaker" => {
            let breaker = recorded(|| breaker("b"));
            let mut service = breaker.layer().layer(Immediate);
            Mutex::new(Box::new(move || assert!(call(&mut service))))
        }
        "bulkhead" => {
            let bulkhead = recorded(|| Bulkhead::new("k", 64).expect("the settings are valid"));
            let mut service = bulkhead.layer().layer(Immediate);
            Mutex::new(Box::new(move || assert!(call(&mut service))))
        }
        _ => {
            let breaker = recorded(|| breaker("c"));
            let stack = stack::client("c").circuit_breaker(&breaker).build().expect("the settings are valid");
            let mut service = stack.layer(Immediate);
            Mutex::new(Box::new(move || assert!(call(&mut service))))
        }
    };
    let mut service = service.into_inner().expect("no thread panicked");
    (0..300).for_each(|_| service());
    let ranges = RANGES.iter().take(ALLOCATIONS.load(Ordering::Relaxed));
    let ranges: Vec<_> = ranges
        .map(|(start, length)| format!("{:x}+{}", start.load(Ordering::Relaxed), length.load(Ordering::Relaxed)))
        .collect();
    println!("{:x} {}", (&raw const MARK) as usize, ranges.join(" "));
    MARK.store(1, Ordering::SeqCst);
    (0..CALLS).for_each(|_| service());
    MARK.store(2, Ordering::SeqCst);
}

fn breaker(name: &'static str) -> CircuitBreaker {
    CircuitBreaker::builder(name).no_time_window().count_window(100).build().expect("the settings are valid")
}

/// Creates a handle and records its allocations, which all its clones share. A thread's own
/// counters are allocated at its first call and are not shared.
fn recorded<T>(make: impl FnOnce() -> T) -> T {
    RECORDING.store(true, Ordering::Relaxed);
    let made = make();
    RECORDING.store(false, Ordering::Relaxed);
    made
}

#[derive(Debug)]
pub struct Audit {
    pub loads: f64,
    pub stores: f64,
}

/// Counts the loads and stores of the handle's memory per call.
fn audit(subject: &str) -> Audit {
    let program = std::env::current_exe().expect("the program has a path");
    let mut child = Command::new("valgrind")
        .args(["--tool=lackey", "--trace-mem=yes", "--log-fd=2"])
        .arg(program)
        .args(["audited", subject])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("valgrind is installed");
    // Read the whole trace first: the child prints the addresses only at its end, and the pipe must
    // not fill up.
    let trace: Vec<String> =
        BufReader::new(child.stderr.take().expect("piped")).lines().map_while(Result::ok).collect();
    let mut addresses = String::new();
    BufReader::new(child.stdout.take().expect("piped"))
        .read_line(&mut addresses)
        .expect("the child prints the addresses");
    assert!(child.wait().expect("the child exits").success(), "the audited program failed");

    let mut addresses = addresses.split_whitespace();
    let hex = |text: &str| usize::from_str_radix(text, 16).expect("an address");
    let mark = hex(addresses.next().expect("the mark"));
    let ranges: Vec<(usize, usize)> = addresses
        .map(|range| {
            let (start, length) = range.split_once('+').expect("a range");
            (hex(start), hex(start) + length.parse::<usize>().expect("a length"))
        })
        .collect();
    let (mut marks, mut loads, mut stores) = (0, 0_u64, 0_u64);
    for line in &trace {
        // ` L 1ffeffe7e0,8` is a load, ` S ..` a store, ` M ..` both, `I ..` an instruction.
        let Some((kind, rest)) = line.trim_start().split_once(' ') else { continue };
        let (true, Some((address, _))) = (matches!(kind, "L" | "S" | "M"), rest.trim().split_once(',')) else {
            continue;
        };
        let Ok(address) = usize::from_str_radix(address, 16) else { continue };
        if address == mark && kind != "L" {
            marks += 1;
        } else if marks == 1 && ranges.iter().any(|(start, end)| (*start..*end).contains(&address)) {
            loads += u64::from(kind != "S");
            stores += u64::from(kind != "L");
        }
    }
    assert_eq!(marks, 2, "the calls run between two marks");
    Audit { loads: loads as f64 / CALLS as f64, stores: stores as f64 / CALLS as f64 }
}

pub fn print() {
    println!("\n### Loads and stores of a handle's memory, per healthy call\n\n| | loads | stores |\n|---|---|---|");
    for subject in SUBJECTS {
        let Audit { loads, stores } = audit(subject);
        println!("| {subject} | {loads} | {stores} |");
        assert!(loads >= 1.0, "the trace missed the handle");
        match subject {
            // A control: permits are written, and the audit must see it.
            "bulkhead" => assert!(stores >= 2.0, "the trace misses stores"),
            _ => assert!(stores == 0.0, "a healthy call writes shared memory"),
        }
    }
}
