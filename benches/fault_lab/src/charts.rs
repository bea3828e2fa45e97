//! Charts, as SVG.

use plotters::prelude::*;

use crate::{measure::Figures, scenarios::Scenario, sweep::Curve};

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

const COLORS: [RGBColor; 5] = [
    RGBColor(120, 120, 120),
    RGBColor(214, 69, 65),
    RGBColor(230, 150, 20),
    RGBColor(150, 80, 180),
    RGBColor(20, 110, 200),
];

/// Lines drawn first are wider, so that they stay visible where lines coincide.
const WIDTHS: [u32; 5] = [10, 8, 6, 4, 2];

/// The stacks that a chart shows, in drawing order: ours last, on top.
pub const SHOWN: [&str; 5] = ["none", "naive retry", "tower", "tower-resilience", "rampart"];

/// Draws the share of requests answered in time, by second, of the stacks [`SHOWN`].
pub fn goodput(scenario: &Scenario, runs: &[(&str, &Figures)]) -> String {
    let lines = runs.iter().map(|(name, figures)| {
        let points = (0..).zip(&figures.goodput).map(|(second, share)| (f64::from(second), share * 100.0));
        (name.to_string(), points.collect())
    });
    let shade = scenario.plan.trigger.map(|(from, to)| (from as f64, to.unwrap_or(scenario.plan.seconds) as f64));
    draw(Chart {
        title: format!("{}: {}", scenario.name, scenario.summary),
        x: "second",
        y: "answered in time, %",
        range: (0.0, scenario.plan.seconds as f64),
        top: 105.0,
        labels: Vec::new(),
        shade,
        lines: lines.collect(),
    })
}

/// Draws the mean goodput of all scenarios against the values of a default.
pub fn sweep(title: &str, curve: &Curve) -> String {
    let line = |of: fn(&crate::sweep::Point) -> f64| -> Vec<(f64, f64)> {
        (0..).zip(&curve.points).map(|(index, point)| (f64::from(index), of(point) * 100.0)).collect()
    };
    draw(Chart {
        title: title.to_owned(),
        x: "",
        y: "mean goodput, %",
        range: (-0.3, curve.points.len() as f64 - 0.7),
        top: 100.0,
        labels: curve.points.iter().map(|point| point.label.clone()).collect(),
        shade: None,
        lines: vec![
            (String::new(), Vec::new()),
            ("client stack only".to_owned(), line(|point| point.client_only.goodput)),
            (String::new(), Vec::new()),
            (String::new(), Vec::new()),
            ("client and server stack".to_owned(), line(|point| point.both.goodput)),
        ],
    })
}

struct Chart {
    title: String,
    x: &'static str,
    y: &'static str,
    range: (f64, f64),
    top: f64,
    /// Labels in place of numbers on the horizontal axis.
    labels: Vec<String>,
    shade: Option<(f64, f64)>,
    lines: Vec<(String, Vec<(f64, f64)>)>,
}

fn draw(chart: Chart) -> String {
    let mut svg = String::new();
    paint(&mut svg, chart).expect("writing to a string does not fail");
    svg
}

fn paint(svg: &mut String, chart: Chart) -> Drawn {
    let area = SVGBackend::with_string(svg, (760, 300)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut context = ChartBuilder::on(&area)
        .caption(&chart.title, ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(34)
        .y_label_area_size(48)
        .build_cartesian_2d(chart.range.0..chart.range.1, 0.0..chart.top)?;
    let label = |x: &f64| match chart.labels.get(x.round() as usize) {
        Some(label) if (x - x.round()).abs() < 1e-6 && *x >= -0.01 => label.clone(),
        _ if chart.labels.is_empty() => format!("{x:.0}"),
        _ => String::new(),
    };
    let mut mesh = context.configure_mesh();
    mesh.light_line_style(TRANSPARENT).x_desc(chart.x).y_desc(chart.y).y_labels(6).x_label_formatter(&label);
    mesh.x_labels(if chart.labels.is_empty() { 12 } else { chart.labels.len() + 1 }).draw()?;
    if let Some((from, to)) = chart.shade {
        context.draw_series([Rectangle::new([(from, 0.0), (to, chart.top)], BLACK.mix(0.08).filled())])?;
    }
    for (((name, points), color), width) in chart.lines.into_iter().zip(COLORS).zip(WIDTHS) {
        if points.is_empty() {
            continue;
        }
        let marks = (!chart.labels.is_empty()).then(|| points.clone());
        context
            .draw_series(LineSeries::new(points, color.stroke_width(width)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(width)));
        for (x, y) in marks.into_iter().flatten() {
            context.draw_series([Circle::new((x, y), 3, color.filled())])?;
        }
    }
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()?;
    area.present()
}
