//! The recorded sizes, and their comparison with the present ones.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use crate::{
    candidates::{BARE, Candidate},
    footprint::Footprint,
};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/in_flight.txt");

/// The bytes of a call above those of the bare service's, in its future and on the heap.
type Sizes = (usize, f64);

pub(crate) fn compare(footprints: &[(&Candidate, Footprint)], bless: bool) -> ExitCode {
    let bare = footprints.iter().find(|(candidate, _)| candidate.name == BARE).expect("the bare service is first").1;
    let ours = || footprints.iter().filter(|(candidate, _)| candidate.is_ours());
    let now: Vec<(&str, Sizes)> =
        ours().map(|(candidate, footprint)| (candidate.name, footprint.above(&bare))).collect();
    let tools = tools();
    if bless {
        write(&now, &tools);
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    let mut failures: Vec<String> = ours()
        .filter(|(_, footprint)| footprint.allocations > 0.0)
        .map(|(candidate, footprint)| format!("{}: {} allocations per call", candidate.name, footprint.allocations))
        .collect();
    if file.contains(&tools) {
        failures.extend(grown(&now, &read(&file)));
    } else {
        println!("\nbenches/in_flight.txt was not written with {tools}: no size is compared.");
    }
    if failures.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nMore than in benches/in_flight.txt, or missing there:\n- {}", failures.join("\n- "));
    println!("If this is intended, run: cargo bench --bench in_flight -- --bless");
    ExitCode::FAILURE
}

fn grown(now: &[(&str, Sizes)], kept: &BTreeMap<&str, Sizes>) -> Vec<String> {
    let text = |name: &str, (future, heap): Sizes, before: Option<&Sizes>| {
        let before = before.map_or("nothing".to_owned(), |(future, heap)| format!("{future} and {heap:.1}"));
        format!("{name}: {future} bytes and {heap:.1} on the heap, where there were {before}")
    };
    let grew =
        |(future, heap): Sizes, before: &Sizes| future > before.0 || heap > (before.1 * 1.05).max(before.1 + 2.0);
    now.iter()
        .map(|(name, sizes)| (name, *sizes, kept.get(name)))
        .filter(|(_, sizes, before)| before.is_none_or(|before| grew(*sizes, before)))
        .map(|(name, sizes, before)| text(name, sizes, before))
        .collect()
}

fn write(now: &[(&str, Sizes)], tools: &str) {
    let mut text = format!(
        "# Bytes per call in flight above the bare service's: in the future, and on the heap. {tools}.\n\
         # cargo bench --bench in_flight -- --bless\n"
    );
    for (name, (future, heap)) in now {
        writeln!(text, "{future:>5} {heap:>7.1}  {name}").unwrap();
    }
    std::fs::write(FILE, text).unwrap();
}

fn read(file: &str) -> BTreeMap<&str, Sizes> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("benches/in_flight.txt: {line}"))).collect()
}

fn parse(line: &str) -> Option<(&str, Sizes)> {
    let (future, rest) = line.trim_start().split_once(' ')?;
    let (heap, name) = rest.trim_start().split_once("  ")?;
    Some((name, (future.parse().ok()?, heap.parse().ok()?)))
}

/// The tools that sizes depend on.
fn tools() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = std::process::Command::new(rustc).arg("--version").output().expect("the compiler is installed");
    let rustc = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (target, timer) = (std::env::consts::ARCH, size_of::<tokio::time::Sleep>());
    format!("{rustc}; {target}; a timer of {timer} bytes")
}
