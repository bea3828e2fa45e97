//! The HTML report: one file with embedded charts.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use plotters::prelude::*;
use tower_rampart::event::CircuitState;

use crate::{
    BoxError,
    measure::{Route, Run},
    options::{Options, Phases},
    view,
};

const STEP: Duration = Duration::from_millis(250);
const BARE: RGBColor = RGBColor(200, 62, 52);
const PROTECTED: RGBColor = RGBColor(32, 110, 180);

/// Writes the report, and returns its path.
pub fn write(options: &Options, bare: &Run, protected: &Run) -> Result<PathBuf, BoxError> {
    let phases = options.phases();
    let runs = [(bare, BARE), (protected, PROTECTED)];
    let percent = |route| move |run: &Run, at: Duration| run.goodput(Some(route), at, at + STEP).percent();
    let p99 = |route| move |run: &Run, at: Duration| run.latency(route, at, at + STEP, 0.99).as_secs_f64() * 1000.0;
    let charts = [
        chart("Goodput of /catalog, which does not need payments (%)", phases, &runs, percent(Route::Catalog))?,
        chart("Goodput of /checkout, fallback responses included (%)", phases, &runs, percent(Route::Checkout))?,
        chart("Wait of /catalog users, p99 (ms)", phases, &runs, p99(Route::Catalog))?,
        chart("Wait of /checkout users, p99 (ms)", phases, &runs, p99(Route::Checkout))?,
        chart("Requests in flight at the edge", phases, &runs, |run, at| {
            let samples = run.samples.iter().filter(|sample| (at..at + STEP).contains(&sample.at));
            samples.map(|sample| sample.in_flight).max().unwrap_or(0) as f64
        })?,
        circuit_chart(phases, protected)?,
    ];
    let mut page = String::from(HEAD);
    let _ = write!(page, "<p>{options}</p><div class=charts>");
    for chart in charts {
        let _ = write!(page, "<figure>{chart}</figure>");
    }
    let _ = write!(page, "</div><h2>Figures</h2><pre>{}</pre>", view::table(options, bare, protected));
    page.push_str("</main></html>\n");
    let path = match &options.html {
        Some(path) => path.clone(),
        None => std::env::temp_dir().join("cascade_failure.html"),
    };
    std::fs::write(&path, page)?;
    Ok(path)
}

const HEAD: &str = r#"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width">
<title>A cascading failure, bare and protected</title>
<style>
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 1100px; margin: auto; padding: 1rem }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(480px, 1fr)); gap: 1rem }
figure { margin: 0; background: #fff; border-radius: 6px; padding: .5rem; box-shadow: 0 1px 4px #0004 }
svg { width: 100%; height: auto } pre { overflow: auto; font-size: .85rem }
b.bare { color: #c83e34 } b.protected { color: #3b8fd6 }
</style>
<main><h1>A cascading failure, <b class=bare>bare</b> and <b class=protected>protected</b></h1>
<p>Users call an edge service, which calls orders, which calls inventory and, for a checkout, payments. In the shaded
time payments accepts calls and does not respond.</p>"#;

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

/// Draws a chart's axes and shades the time of the fault; `labels` is the number of labels on the
/// vertical axis.
fn begin<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, plotters::coord::Shift>,
    title: &str,
    phases: Phases,
    (top, labels): (f64, usize),
) -> Result<Chart<'a, 'b>, BoxError> {
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(8)
        .x_label_area_size(26)
        .y_label_area_size(46)
        .build_cartesian_2d(0.0..phases.end.as_secs_f64(), 0.0..top)?;
    chart.configure_mesh().light_line_style(TRANSPARENT).x_desc("seconds").y_labels(labels).draw()?;
    let fault = [(phases.fault.as_secs_f64(), 0.0), (phases.recovered.as_secs_f64(), top)];
    chart.draw_series([Rectangle::new(fault, BLACK.mix(0.10).filled())])?;
    Ok(chart)
}

fn chart(
    title: &str,
    phases: Phases,
    runs: &[(&Run, RGBColor)],
    value: impl Fn(&Run, Duration) -> f64,
) -> Result<String, BoxError> {
    let line = |run: &Run| -> Vec<(f64, f64)> {
        let steps = (phases.end.as_millis() / STEP.as_millis()) as u32;
        (0..steps).map(|step| (STEP * step).as_secs_f64()).zip((0..steps).map(|step| value(run, STEP * step))).collect()
    };
    let lines: Vec<_> = runs.iter().map(|(run, color)| (line(run), *color)).collect();
    let top = lines.iter().flat_map(|(line, _)| line.iter().map(|point| point.1)).fold(1.0, f64::max) * 1.08;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (560, 260)).into_drawing_area();
        let mut chart = begin(&area, title, phases, (top, 6))?;
        for (line, color) in lines {
            chart.draw_series(LineSeries::new(line, color.stroke_width(2)))?;
        }
        area.present()?;
    }
    Ok(svg)
}

/// Draws the states of the payments circuit as bands.
fn circuit_chart(phases: Phases, run: &Run) -> Result<String, BoxError> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (560, 260)).into_drawing_area();
        let title = "The payments circuit: green closed, amber half-open, red open";
        let mut chart = begin(&area, title, phases, (1.0, 0))?;
        for pair in run.samples.windows(2) {
            let color = match pair[0].circuit {
                Some(CircuitState::Closed) => RGBColor(60, 150, 80),
                Some(CircuitState::HalfOpen) => RGBColor(230, 170, 40),
                Some(_) => BARE,
                None => continue,
            };
            let band = [(pair[0].at.as_secs_f64(), 0.25), (pair[1].at.as_secs_f64(), 0.75)];
            chart.draw_series([Rectangle::new(band, color.filled())])?;
        }
        area.present()?;
    }
    Ok(svg)
}
