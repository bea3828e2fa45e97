//! The recorded sizes, and their comparison with the present ones.

use std::{collections::BTreeMap, fmt::Write as _, process::ExitCode};

use crate::{candidates::Candidate, footprint::Footprint};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/in_flight.txt");

/// Compares what calls have above the bare service.
pub(crate) fn compare(footprints: &[(&Candidate, Footprint)], bless: bool) -> ExitCode {
    let ours = footprints.iter().filter(|(candidate, _)| candidate.is_ours());
    let now: Vec<(&str, Footprint)> = ours.map(|(candidate, footprint)| (candidate.name, *footprint)).collect();
    let tools = tools();
    if bless {
        write(&now, &tools);
    }
    let file = std::fs::read_to_string(FILE).unwrap_or_default();
    let same_tools = file.contains(&tools);
    if !same_tools {
        println!("\nbenches/in_flight.txt was not written with {tools}: only allocations are compared.");
    }
    let kept = read(&file);
    let grown: Vec<String> = now
        .iter()
        .map(|(name, now)| (name, now, kept.get(name)))
        .filter(|(_, now, kept)| kept.is_none_or(|kept| grew(now, kept, same_tools)))
        .map(|(name, now, kept)| {
            format!("- {name}: {now}, before: {}", kept.map_or("-".to_owned(), ToString::to_string))
        })
        .collect();
    if grown.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("\nMore than in benches/in_flight.txt, or missing there:\n{}", grown.join("\n"));
    println!("If this is intended, run: cargo bench --all-features --bench in_flight -- --bless");
    ExitCode::FAILURE
}

fn grew(now: &Footprint, kept: &Footprint, same_tools: bool) -> bool {
    let larger = now.future > kept.future || now.heap > (kept.heap * 1.05).max(kept.heap + 2.0);
    now.allocations > kept.allocations || same_tools && larger
}

fn write(now: &[(&str, Footprint)], tools: &str) {
    let mut text = format!(
        "# A call in flight, above the bare service: bytes of its future, bytes on the heap, allocations per call.\n\
         # {tools}.\n# cargo bench --all-features --bench in_flight -- --bless\n"
    );
    for (name, Footprint { future, heap, allocations }) in now {
        writeln!(text, "{future:>5} {heap:>7.1} {allocations:>4}  {name}").unwrap();
    }
    std::fs::write(FILE, text).unwrap();
}

fn read(file: &str) -> BTreeMap<&str, Footprint> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| parse(line).unwrap_or_else(|| panic!("benches/in_flight.txt: {line}"))).collect()
}

fn parse(line: &str) -> Option<(&str, Footprint)> {
    let (future, rest) = line.trim_start().split_once(' ')?;
    let (heap, rest) = rest.trim_start().split_once(' ')?;
    let (allocations, name) = rest.trim_start().split_once("  ")?;
    let (future, heap, allocations) = (future.parse().ok()?, heap.parse().ok()?, allocations.parse().ok()?);
    Some((name, Footprint { future, heap, allocations }))
}

/// The tools that sizes depend on.
fn tools() -> String {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let output = std::process::Command::new(rustc).arg("--version").output().expect("the compiler is installed");
    let rustc = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (target, timer) = (std::env::consts::ARCH, size_of::<tokio::time::Sleep>());
    format!("{rustc}; {target}; a timer of {timer} bytes")
}
