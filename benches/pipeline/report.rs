//! What was measured, and how it is shown.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::chart;

/// One value a round of one quantity.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    row: &'static str,
    pub(crate) name: String,
    pub(crate) unit: &'static str,
    pub(crate) values: Vec<f64>,
}

impl Series {
    fn sorted(&self) -> Vec<f64> {
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        values
    }

    /// The middle value, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let values = self.sorted();
        let middle = values.len() / 2;
        match values.len() {
            0 => 0.0,
            length if length % 2 == 1 => values[middle],
            _ => f64::midpoint(values[middle - 1], values[middle]),
        }
    }

    /// The lowest value.
    pub(crate) fn lowest(&self) -> f64 {
        self.sorted().first().copied().unwrap_or(0.0)
    }

    /// The highest value.
    pub(crate) fn highest(&self) -> f64 {
        self.sorted().last().copied().unwrap_or(0.0)
    }
}

/// What is asked of a quantity.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    /// At least this much; better still, that much.
    AtLeast(f64, f64),
    /// At most this much; better still, that much.
    AtMost(f64, f64),
    /// Nothing but to be counted; best of all, at most this much.
    Counted(f64),
}

impl Asked {
    fn met(self, value: f64) -> &'static str {
        let (floor, aim) = match self {
            Self::AtLeast(floor, aim) => (value >= floor, value >= aim),
            Self::AtMost(floor, aim) => (value <= floor, value <= aim),
            Self::Counted(aim) => (true, value <= aim),
        };
        match (floor, aim) {
            (_, true) => "aim",
            (true, false) => "floor",
            (false, false) => "**missed**",
        }
    }

    fn words(self, unit: &str) -> (String, String) {
        match self {
            Self::AtLeast(floor, aim) => {
                (format!("≥ {} {unit}", figure(floor)), format!("≥ {} {unit}", figure(aim)))
            }
            Self::AtMost(floor, aim) => {
                (format!("≤ {} {unit}", figure(floor)), format!("≤ {} {unit}", figure(aim)))
            }
            Self::Counted(aim) => ("counted".to_owned(), format!("≤ {} {unit}", figure(aim))),
        }
    }
}

struct Demand {
    row: &'static str,
    measure: String,
    name: String,
    asked: Asked,
}

/// Everything that was measured.
#[derive(Default)]
pub(crate) struct Report {
    series: Vec<Series>,
    demands: Vec<Demand>,
}

impl Report {
    /// Adds one round's value of a quantity.
    pub(crate) fn note(&mut self, row: &'static str, name: &str, unit: &'static str, value: f64) {
        eprintln!("  {name}: {} {unit}", figure(value));
        match self.series.iter_mut().find(|series| series.row == row && series.name == name) {
            Some(series) => series.values.push(value),
            None => self.series.push(Series { row, name: name.to_owned(), unit, values: vec![value] }),
        }
    }

    /// Says what is asked of the quantity `name`.
    pub(crate) fn ask(&mut self, row: &'static str, measure: &str, name: &str, asked: Asked) {
        let (measure, name) = (measure.to_owned(), name.to_owned());
        self.demands.push(Demand { row, measure, name, asked });
    }

    fn find(&self, row: &str, name: &str) -> Option<&Series> {
        self.series.iter().find(|series| series.row == row && series.name == name)
    }

    /// All of it as Markdown.
    pub(crate) fn markdown(&self, environment: &str) -> String {
        let mut text = format!("{environment}\n\n### What is asked, and what came of it\n\n");
        text +=
            "| measure | floor | aim | median | lowest to highest round | met |\n|---|---|---|---|---|---|\n";
        for demand in &self.demands {
            let Some(series) = self.find(demand.row, &demand.name) else { continue };
            let (floor, aim) = demand.asked.words(series.unit);
            let median = series.median();
            let _ = writeln!(
                text,
                "| {} | {floor} | {aim} | **{} {}** | {} to {} | {} |",
                demand.measure,
                figure(median),
                series.unit,
                figure(series.lowest()),
                figure(series.highest()),
                demand.asked.met(median)
            );
        }
        text += "\n### Every figure\n\n| row | figure | median | lowest to highest | unit | rounds |\n|---|---|---|---|---|---|\n";
        for series in &self.series {
            let _ = writeln!(
                text,
                "| `{}` | {} | {} | {} to {} | {} | {} |",
                series.row,
                series.name,
                figure(series.median()),
                figure(series.lowest()),
                figure(series.highest()),
                series.unit,
                series.values.len()
            );
        }
        text
    }

    /// Writes the figures into `page`, between its two marks, and the charts into `images`.
    pub(crate) fn write(&self, environment: &str, page: &Path, images: &Path) -> io::Result<()> {
        const BEGIN: &str = "<!-- figures: written by `cargo bench --bench pipeline` -->\n";
        const END: &str = "<!-- end of figures -->";
        let old = fs::read_to_string(page)?;
        let parts = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = parts.ok_or_else(|| io::Error::other("the page has lost its marks"))?;
        fs::write(page, format!("{before}{BEGIN}\n{}\n{END}{after}", self.markdown(environment)))?;
        fs::create_dir_all(images)?;
        for chart in chart::ALL {
            let bars: Vec<_> = chart
                .bars
                .iter()
                .filter_map(|(row, name, label)| Some((*label, self.find(row, name)?)))
                .collect();
            if !bars.is_empty() {
                fs::write(images.join(chart.file), chart.draw(&bars))?;
            }
        }
        Ok(())
    }
}

/// A number with as many digits as are worth reading.
pub(crate) fn figure(value: f64) -> String {
    match value.abs() {
        size if size >= 1000.0 => {
            let whole = format!("{value:.0}");
            let (first, rest) = whole.split_at(whole.len() % 3);
            let groups = rest.as_bytes().chunks(3).map(|group| String::from_utf8_lossy(group).into_owned());
            let parts: Vec<String> =
                Some(first.to_owned()).into_iter().filter(|part| !part.is_empty()).chain(groups).collect();
            parts.join(",")
        }
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
