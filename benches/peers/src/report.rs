//! Markdown tables.

use crate::{
    harness::{Measured, Setting},
    rows::{Claim, Figures, Memory, Row, THREADS, Tail},
    statistics::{median, ratio},
};

pub fn row(row: &Row, measured: &[Measured], allocations: &[(f64, f64)]) {
    println!("\n### {}\n", row.name);
    let mut head = String::from("| |");
    for setting in &row.settings {
        head += &match setting {
            Setting::Shared(1) => " ns, 1 thread |".to_owned(),
            Setting::Shared(threads) => format!(" M/s, {threads} threads |"),
            Setting::Separate => " M/s, 2 threads, separate instances |".to_owned(),
        };
    }
    println!("{head} allocations | bytes | time relative to the first, 1 thread |");
    println!("|---|{}---|---|---|", "---|".repeat(row.settings.len()));
    for (one, (allocations, bytes)) in measured.iter().zip(allocations) {
        let mut line = format!("| {} |", one.name);
        for setting in &row.settings {
            let figure = match setting {
                Setting::Shared(1) => one.nanos(*setting),
                _ => one.rate(*setting),
            };
            line += &figure.map_or(" |".to_owned(), |figure| format!(" {} |", digits(figure)));
        }
        println!(
            "{line} {} | {} | {} |",
            digits(*allocations),
            digits(*bytes),
            against(one, &measured[reference(measured)])
        );
    }
    if row.claims.is_empty() {
        return;
    }
    println!("\n| goal | measured | target | met |\n|---|---|---|---|");
    for claim in &row.claims {
        let Some(figure) = (claim.of)(&Figures(measured)) else { continue };
        println!("| {} | {} | {} | {} |", claim.text, digits(figure), digits(claim.at_least), met(figure, claim));
    }
}

pub fn goals_head() {
    println!("| | goal | this crate, ns | peer | peer, ns | times faster (95%) | target | met |");
    println!("|---|---|---|---|---|---|---|---|");
}

/// Prints a line for each headline goal of the row. Times are above the bare service's where the
/// row has one.
pub fn goals(row: &Row, measured: &[Measured]) {
    for claim in &row.claims {
        let Some(comparison) = claim.headline else { continue };
        let Some((ours, peer)) = comparison.rounds(&Figures(measured)) else { continue };
        let (faster, low, high) = ratio(&peer, &ours);
        println!(
            "| {} | {} | {} | {} | {} | {} ({} to {}) | {} | {} |",
            row.name,
            claim.text,
            digits(median(&ours)),
            comparison.peer,
            digits(median(&peer)),
            digits(faster),
            digits(low),
            digits(high),
            digits(claim.at_least),
            met(faster, claim)
        );
    }
}

fn met(figure: f64, claim: &Claim) -> &'static str {
    if figure >= claim.at_least { "yes" } else { "**no**" }
}

/// The first candidate of this crate.
fn reference(measured: &[Measured]) -> usize {
    measured.iter().position(|one| one.name.starts_with("rampart")).unwrap_or(0)
}

fn against(one: &Measured, reference: &Measured) -> String {
    match (one.rounds(Setting::Shared(1)), reference.rounds(Setting::Shared(1))) {
        (Some(one), Some(reference)) => {
            let (middle, low, high) = ratio(one, reference);
            format!("{} ({} to {})", digits(middle), digits(low), digits(high))
        }
        _ => String::new(),
    }
}

pub fn tails(tails: &[Tail]) {
    println!("\n### breaker core, latency of one operation with {THREADS} threads, in nanoseconds\n");
    println!("| | p50 | p99 | p99.9 | p99.99 | longest |\n|---|---|---|---|---|---|");
    for Tail { name, latencies } in tails {
        let at = |quantile| latencies.value_at_quantile(quantile);
        println!("| {name} | {} | {} | {} | {} | {} |", at(0.5), at(0.99), at(0.999), at(0.9999), latencies.max());
    }
}

pub fn window_sizes(sizes: &[(u32, f64, f64)]) {
    println!("\n### breaker layer with a time window of ten minutes, by the number of calls in it\n");
    println!("| calls in the window | rampart, ns per call | tower-resilience, ns per call |\n|---|---|---|");
    for (calls, ours, theirs) in sizes {
        println!("| {calls} | {} | {} |", digits(*ours), digits(*theirs));
    }
}

pub fn memory(keys: u64, memory: &[Memory]) {
    println!("\n### keyed limiter, {keys} keys\n");
    println!("| | bytes per key | bytes per initial key after four times as many keys |\n|---|---|---|");
    for one in memory {
        println!("| {} | {} | {} |", one.name, digits(one.bytes_per_key), digits(one.after_a_flood));
    }
}

/// Formats a figure with three significant digits.
fn digits(figure: f64) -> String {
    match figure {
        0.0 => "0".to_owned(),
        ..0.1 => format!("{figure:.3}"),
        ..10.0 => format!("{figure:.2}"),
        ..100.0 => format!("{figure:.1}"),
        _ => format!("{figure:.0}"),
    }
}
