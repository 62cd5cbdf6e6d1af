//! Figures, their medians over the runs, their ratios to the limits of the machine, and how they are printed.

use indicatif::HumanCount;
use serde_json::json;

use crate::cli::output::{self, Table};
use crate::error::Error;

/// What a figure counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    PerSecond,
    Micros,
    Seconds,
    /// Of a million bytes, both ways counted.
    MegabytesPerSecond,
    Mebibytes,
    /// Of one core.
    PercentOfCore,
    /// Over the ideal.
    Times,
}

impl Unit {
    fn word(self) -> &'static str {
        match self {
            Self::PerSecond => "/s",
            Self::Micros => "us",
            Self::Seconds => "s",
            Self::MegabytesPerSecond => "MB/s",
            Self::Mebibytes => "MiB",
            Self::PercentOfCore => "% of a core",
            Self::Times => "x ideal",
        }
    }

    fn digits(self) -> usize {
        match self {
            Self::PerSecond | Self::Micros => 0,
            Self::Mebibytes | Self::MegabytesPerSecond => 1,
            Self::Seconds | Self::PercentOfCore | Self::Times => 2,
        }
    }
}

/// One measured figure; those of several runs with the same part and name become one line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Figure {
    pub(super) part: &'static str,
    pub(super) name: String,
    pub(super) unit: Unit,
    pub(super) value: f64,
    /// The name of the limit that it is compared with.
    pub(super) over: Option<String>,
    /// One more word to the reader, of the last run.
    pub(super) note: String,
}

impl Figure {
    pub(super) fn new(part: &'static str, name: impl Into<String>, unit: Unit, value: f64) -> Self {
        Self { part, name: name.into(), unit, value, over: None, note: String::new() }
    }

    /// Shows the ratio to this limit, when it was measured in the same run.
    pub(super) fn over(mut self, limit: impl Into<String>) -> Self {
        self.over = Some(limit.into());
        self
    }

    pub(super) fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// Tasks that were put in, and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) tasks: u64,
    /// Not in the table any more, or not in the state they should be in.
    pub(super) lost: u64,
    pub(super) run_twice: u64,
}

/// Everything measured so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: Vec<Line>,
    tally: Tally,
}

#[derive(Debug)]
struct Line {
    last: Figure,
    runs: Vec<f64>,
}

impl Report {
    pub(super) fn add(&mut self, figure: Figure) {
        let same = |line: &&mut Line| line.last.part == figure.part && line.last.name == figure.name;
        match self.lines.iter_mut().find(same) {
            Some(line) => {
                line.runs.push(figure.value);
                line.last = figure;
            }
            None => self.lines.push(Line { runs: vec![figure.value], last: figure }),
        }
    }

    pub(super) fn count(&mut self, tally: Tally) {
        self.tally.tasks += tally.tasks;
        self.tally.lost += tally.lost;
        self.tally.run_twice += tally.run_twice;
    }

    /// Fails when a task was lost or ran twice.
    pub(super) fn verdict(&self) -> Result<(), Error> {
        let Tally { tasks, lost, run_twice } = self.tally;
        if lost + run_twice > 0 {
            let text = format!("of {tasks} tasks, {lost} were lost and {run_twice} ran more than once");
            return Err(Error::TaskFailed(text));
        }
        Ok(())
    }

    pub(super) fn print(&self, as_json: bool) -> Result<(), Error> {
        if as_json { self.print_json() } else { self.print_table() }
    }

    fn print_json(&self) -> Result<(), Error> {
        for line in &self.lines {
            let ratio = self.ratio(line);
            output::json(&json!({
                "part": line.last.part,
                "figure": line.last.name,
                "value": rounded(median(&line.runs)),
                "unit": line.last.unit.word(),
                "runs": line.runs.iter().copied().map(rounded).collect::<Vec<_>>(),
                "ratio": ratio.map(|(ratio, _)| rounded(ratio)),
                "ratio_to": ratio.map(|(_, limit)| limit),
                "note": line.last.note,
            }))?;
        }
        let Tally { tasks, lost, run_twice } = self.tally;
        output::json(&json!({ "part": "check", "tasks": tasks, "lost": lost, "run_twice": run_twice }))
    }

    fn print_table(&self) -> Result<(), Error> {
        let mut table = Table::new(&["PART", "FIGURE", "MEDIAN", "UNIT", "SPREAD", "RATIO", "TO", "NOTE"]);
        for line in &self.lines {
            let digits = line.last.unit.digits();
            let (ratio, limit) = match self.ratio(line) {
                Some((ratio, limit)) => (format!("{ratio:.2}"), limit.to_owned()),
                None => ("-".into(), String::new()),
            };
            table.row([
                line.last.part.to_owned(),
                line.last.name.clone(),
                grouped(median(&line.runs), digits),
                line.last.unit.word().to_owned(),
                spread(&line.runs, digits),
                ratio,
                limit,
                line.last.note.clone(),
            ]);
        }
        table.print()?;
        let Tally { tasks, lost, run_twice } = self.tally;
        output::line(&format!("{tasks} tasks put in, {lost} lost, {run_twice} ran more than once"))
    }

    /// The median of this line over the median of its limit.
    fn ratio<'a>(&self, line: &'a Line) -> Option<(f64, &'a str)> {
        let limit = line.last.over.as_deref()?;
        let found = self.lines.iter().find(|other| other.last.part == "limits" && other.last.name == limit)?;
        let limit_value = median(&found.runs);
        (limit_value > 0.0).then(|| (median(&line.runs) / limit_value, limit))
    }
}

/// `1 slot`, `4 slots`.
pub(super) fn counted(n: u32, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

/// The value in the middle, the mean of the two when there is none; 0 of nothing.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The smallest value that at least `percent` of all do not exceed; 0 of nothing. `percent` is 1 to 100.
pub(super) fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or(0.0)
}

fn spread(runs: &[f64], digits: usize) -> String {
    if runs.len() < 2 {
        return "-".into();
    }
    let least = runs.iter().copied().fold(f64::INFINITY, f64::min);
    let most = runs.iter().copied().fold(0.0, f64::max);
    format!("{}..{}", grouped(least, digits), grouped(most, digits))
}

/// Thousands apart, so that orders of magnitude can be told at a glance.
fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.find('.').map_or((&*text, ""), |point| text.split_at(point));
    whole.parse().map_or_else(|_| text.clone(), |whole| format!("{}{fraction}", HumanCount(whole)))
}

/// To three decimals: more would only look exact.
fn rounded(value: f64) -> f64 {
    (value * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles_are_of_the_right_rank() {
        // Proves the edges: nothing, one value, an even number, and a p99 that is the worst of a hundred but one.
        assert!(median(&[]).abs() < 1e-9);
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        let mut values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert!((percentile(&mut values, 50) - 50.0).abs() < 1e-9);
        assert!((percentile(&mut values, 99) - 99.0).abs() < 1e-9);
        assert!((percentile(&mut values, 100) - 100.0).abs() < 1e-9);
        assert!((percentile(&mut [7.0], 99) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn numbers_are_grouped() {
        // Proves where the commas go, with and without decimals.
        for (value, digits, text) in [
            (0.0, 0, "0"),
            (999.6, 0, "1,000"),
            (46_210.0, 0, "46,210"),
            (1_234_567.0, 0, "1,234,567"),
            (1.5, 2, "1.50"),
        ] {
            assert_eq!(grouped(value, digits), text);
        }
    }

    #[test]
    fn runs_become_one_line_with_a_ratio_of_medians() {
        // Proves that figures of several runs are joined, and compared with the limit of the same runs.
        let mut report = Report::default();
        for value in [100.0, 300.0, 200.0] {
            report.add(Figure::new("limits", "raw", Unit::PerSecond, value));
            report.add(Figure::new("drain", "whole", Unit::PerSecond, value / 4.0).over("raw"));
        }
        assert_eq!(report.lines.len(), 2);
        let (ratio, limit) = report.ratio(&report.lines[1]).unwrap();
        assert!((ratio - 0.25).abs() < 1e-9 && limit == "raw");
        assert!(report.ratio(&report.lines[0]).is_none());
    }

    #[test]
    fn a_lost_task_fails_the_run() {
        // Proves that figures of a run that lost work do not end with success.
        let mut report = Report::default();
        report.count(Tally { tasks: 10, lost: 0, run_twice: 0 });
        assert!(report.verdict().is_ok());
        report.count(Tally { tasks: 10, lost: 1, run_twice: 0 });
        assert!(report.verdict().unwrap_err().to_string().contains("of 20 tasks, 1 were lost"));
    }
}
