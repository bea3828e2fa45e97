//! Tables of figures, for the terminal, Markdown and HTML.

use crate::{measure::Figures, scenarios::Scenario, sim::Stack};

/// A table of text. The first column is left-aligned, the others are right-aligned.
#[derive(Clone, Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these columns.
    pub fn new<T: Into<String>>(head: impl IntoIterator<Item = T>) -> Self {
        Self { head: head.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.head.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// Formats the table for the terminal.
    pub fn text(&self) -> String {
        let all = || std::iter::once(&self.head).chain(&self.rows);
        let width = |column: usize| all().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<_> = (0..self.head.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let first = format!("{:1$}", row[0], widths[0]);
            let others = row.iter().zip(&widths).skip(1).map(|(cell, width)| format!("  {cell:>width$}"));
            first + &others.collect::<String>() + "\n"
        };
        all().map(line).collect()
    }

    /// Formats the table as Markdown.
    pub fn markdown(&self) -> String {
        let line = |row: &Vec<String>| format!("| {} |\n", row.join(" | "));
        let rule = format!("|---|{}\n", "---:|".repeat(self.head.len() - 1));
        line(&self.head) + &rule + &self.rows.iter().map(line).collect::<String>()
    }

    /// Formats the table as HTML.
    pub fn html(&self) -> String {
        let line = |tag: &str, row: &Vec<String>| {
            let cells: String =
                row.iter().map(|cell| format!("<{tag}>{}</{tag}>", cell.replace('<', "&lt;"))).collect();
            format!("<tr>{cells}</tr>\n")
        };
        let rows: String = self.rows.iter().map(|row| line("td", row)).collect();
        format!("<table>\n{}{rows}</table>\n", line("th", &self.head))
    }
}

/// Formats a share as a percentage.
pub fn percent(share: f64) -> String {
    format!("{:.1}", share * 100.0)
}

/// Returns all figures of all stacks in one scenario.
pub fn scenario(stacks: &[Box<dyn Stack>], figures: &[Figures]) -> Table {
    let mut table = Table::new([
        "stack",
        "goodput, %",
        "during",
        "after",
        "recovery",
        "calls per request",
        "wasted work, %",
        "p50, ms",
        "p99",
        "p99.9",
        "wasted wait, ms",
        "fairness",
        "spike",
        "healthy route, %",
    ]);
    for (stack, figures) in stacks.iter().zip(figures) {
        table.row(row(stack.name(), figures));
    }
    table
}

/// Returns the row of one stack in one scenario.
pub fn row(name: &str, figures: &Figures) -> Vec<String> {
    let known = |value: Option<f64>, show: fn(f64) -> String| value.map_or("-".to_owned(), show);
    let [p50, p99, p999] = figures.latency.map(|millis| millis.to_string());
    vec![
        name.to_owned(),
        percent(figures.overall),
        percent(figures.during),
        known(figures.after, percent),
        figures.recovery.to_string(),
        format!("{:.2}", figures.amplification),
        percent(figures.wasted),
        p50,
        p99,
        p999,
        format!("{:.0}", figures.wasted_wait),
        format!("{:.3}", figures.fairness),
        known(figures.spike, |spike| format!("{spike:.1}")),
        known(figures.healthy, percent),
    ]
}

/// Returns one figure of all stacks in all scenarios.
pub fn overview(
    scenarios: &[Scenario],
    stacks: &[Box<dyn Stack>],
    grid: &[Vec<Figures>],
    of: fn(&Figures) -> String,
) -> Table {
    let head = std::iter::once("scenario".to_owned());
    let mut table = Table::new(head.chain(stacks.iter().map(|stack| stack.name().to_owned())));
    for (scenario, figures) in scenarios.iter().zip(grid) {
        table.row(std::iter::once(scenario.name.to_owned()).chain(figures.iter().map(of)).collect());
    }
    table
}
