//! The terminal output: a live view, and a table at the end.

use std::{fmt::Write as _, io::IsTerminal, time::Duration};

use crate::{
    measure::{Answer, Recorder, Route, Run},
    options::Options,
    system::Gauges,
};

/// Samples the gauges ten times a second and prints them: in place on a terminal, as one line per
/// second otherwise.
pub async fn watch(options: Options, recorder: Recorder, gauges: Gauges) {
    let phases = options.phases();
    let terminal = std::io::stdout().is_terminal();
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let mut tick = 0_u32;
    loop {
        ticks.tick().await;
        let sample = recorder.sample(&gauges);
        tick += 1;
        if !tick.is_multiple_of(if terminal { 2 } else { 10 }) {
            continue;
        }
        let now = recorder.elapsed();
        let mut ended = recorder.ended_since(now.saturating_sub(Duration::from_secs(1)));
        let good = ended.iter().filter(|record| matches!(record.answer, Answer::Served | Answer::Degraded)).count();
        let degraded = ended.iter().filter(|record| record.answer == Answer::Degraded).count();
        ended.sort_unstable_by_key(|record| record.took);
        let p99 = ended.get(ended.len() * 99 / 100).map_or(Duration::ZERO, |record| record.took);
        let phase = match now {
            now if now < phases.fault => "healthy",
            now if now < phases.recovered => "PAYMENTS HANGS",
            _ => "recovered",
        };
        let circuit = sample.circuit.map_or("-", |state| state.as_str());
        let line = format!(
            "{:5.1} s  {phase:<14}  good {good:>4}/s  (degraded {degraded:>3})  failed {:>4}/s  p99 {:>5} ms  users waiting {:>4}  \
             in flight {:>4}  payments circuit {circuit}",
            now.as_secs_f64(),
            ended.len() - good,
            p99.as_millis(),
            recorder.waiting(),
            sample.in_flight,
        );
        if terminal {
            print!("\r\x1b[2K{line}");
            let _ = std::io::Write::flush(&mut std::io::stdout());
            if tick.is_multiple_of(10) {
                println!();
            }
        } else {
            println!("{line}");
        }
    }
}

/// Formats the bare and the protected run side by side.
pub fn table(options: &Options, bare: &Run, protected: &Run) -> String {
    let phases = options.phases();
    let spans = [
        ("healthy", Duration::ZERO, phases.fault),
        ("payments hangs", phases.fault, phases.recovered),
        ("recovered", phases.recovered, phases.end),
    ];
    let mut text = format!("{:<48} {:>24} {:>24}\n", "", "bare", "protected");
    let mut row = |label: String, cell: &dyn Fn(&Run) -> String| {
        let _ = writeln!(text, "{label:<48} {:>24} {:>24}", cell(bare), cell(protected));
    };
    for route in [Route::Catalog, Route::Checkout] {
        for (phase, from, to) in spans {
            row(format!("goodput {:<10} {phase}", route.name()), &|run| {
                let goodput = run.goodput(Some(route), from, to);
                if goodput.degraded == 0 {
                    format!("{:.1}%", goodput.percent())
                } else {
                    let degraded = 100.0 * goodput.degraded as f64 / goodput.users as f64;
                    format!("{:.1}% ({degraded:.1}% degraded)", goodput.percent())
                }
            });
        }
    }
    for route in [Route::Catalog, Route::Checkout] {
        for (phase, from, to) in spans {
            row(format!("p50 / p99 {:<10} {phase}", route.name()), &|run| {
                let latency = |quantile| run.latency(route, from, to, quantile).as_millis();
                format!("{} / {} ms", latency(0.5), latency(0.99))
            });
        }
    }
    row("peak requests in flight at the edge".to_owned(), &|run| run.peak_in_flight().to_string());
    row("calls that reached payments while it hung".to_owned(), &|run| run.payments_calls_while_down.to_string());
    row("seconds until full goodput after the fault".to_owned(), &|run| match run.recovery(phases) {
        Some(recovery) => format!("{:.1}", recovery.as_secs_f64()),
        None => "not in this run".to_owned(),
    });
    text.push_str(
        "goodput: users with a response to their first attempt within a second; degraded: a fallback response, payment deferred\n",
    );
    text
}
