//! `laneway check`: whether all is well, for a monitoring system. Its line and its exit codes are those that Nagios plugins have and
//! its successors read: <https://www.monitoring-plugins.org/doc/guidelines.html>.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use laneway_protocol::message::StatsReport;
use serde_json::{Map, Value, json};

use super::remote::{self, Remote};
use super::{Common, Output, output, when};
use crate::error::{Error, Exit};
use crate::store::offline::{self, Glance};

/// The database is asked no longer than this.
const LOOK: Duration = Duration::from_secs(2);

/// Say whether all is well, in one line and an exit code, for a monitoring system
///
/// Ends with 0 when all is well, 1 for a warning, 2 when it is critical and 3 when it cannot be told. The line carries the figures
/// behind a bar, as Nagios plugins print them. Each bound is WARN or WARN:CRIT. The database is looked at for two seconds at most, and a
/// broker need not run: then that is critical, unless --database-only. Where an endpoint alone is named, by --endpoint or
/// LANEWAY_ENDPOINT without a database, the broker there is asked and no database is looked at.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  laneway check --db /srv/app/app.db --due 10000:100000 --age 5m:1h --dead 1:100
  laneway check --workers 4
  laneway check --database-only --age 5m")]
pub(super) struct CheckArgs {
    /// Due tasks that are too many; of a broker that is named by its endpoint alone all that are queued count, for only the database
    /// tells which are due
    #[arg(long, value_name = "WARN[:CRIT]", value_parser = numbers)]
    due: Option<Bounds>,

    /// The oldest due task has waited too long; only the database tells
    #[arg(long, value_name = "WARN[:CRIT]", value_parser = ages)]
    age: Option<Bounds>,

    /// Dead tasks that are too many
    #[arg(long, value_name = "WARN[:CRIT]", value_parser = numbers)]
    dead: Option<Bounds>,

    /// Bytes of the write-ahead log that are too many
    #[arg(long, value_name = "WARN[:CRIT]", value_parser = numbers)]
    wal_bytes: Option<Bounds>,

    /// Fewer connected workers than this are critical
    #[arg(long, value_name = "N")]
    workers: Option<u64>,

    /// Judge the database alone; no broker is asked
    #[arg(long, conflicts_with = "workers")]
    database_only: bool,
}

/// From where on a figure is a warning, and from where on critical.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    warn: u64,
    critical: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// What was found.
#[derive(Debug, Default)]
struct Verdict {
    findings: Vec<(Level, String)>,
    figures: Vec<Figure>,
}

#[derive(Debug)]
struct Figure {
    name: &'static str,
    value: u64,
    unit: &'static str,
    bounds: Option<Bounds>,
}

pub(super) fn run(common: &Common, args: &CheckArgs) -> Result<(), Error> {
    let is_alone = args.is_broker_alone(common)?;
    let verdict = judge(common, args, is_alone)
        .unwrap_or_else(|error| Verdict { findings: vec![(Level::Unknown, error.chain())], figures: Vec::new() });
    let level = verdict.level();
    match common.output {
        Output::Json => output::json(&verdict.to_json())?,
        Output::Table => output::line(&output::clean(&verdict.to_line()))?,
    }
    match level {
        Level::Ok => Ok(()),
        Level::Warning => Err(Error::Judged(Exit::Failure)),
        Level::Critical => Err(Error::Judged(Exit::Usage)),
        Level::Unknown => Err(Error::Judged(Exit::Unreachable)),
    }
}

fn judge(common: &Common, args: &CheckArgs, is_alone: bool) -> Result<Verdict, Error> {
    let mut verdict = Verdict::default();
    if !is_alone {
        verdict.database(&remote::db(common), args)?;
    }
    if !args.database_only {
        match Remote::expect(common).and_then(|broker| broker.stats()) {
            Ok(stats) => verdict.broker(&stats, args, is_alone),
            Err(Error::Unreachable { endpoint, .. }) => {
                verdict.find(Level::Critical, format!("no broker answers at {endpoint}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(verdict)
}

impl CheckArgs {
    /// Whether the broker is looked at and no database, for nobody knows where it has its own. Refuses what only a database tells.
    fn is_broker_alone(&self, common: &Common) -> Result<bool, Error> {
        let Some(named_by) = remote::endpoint_alone(common) else { return Ok(false) };
        // The environment's endpoint is for commands that ask a broker.
        if self.database_only && common.endpoint.is_none() {
            return Ok(false);
        }
        let asked = [("--age", self.age.is_some()), ("--database-only", self.database_only)];
        let refuse = |(flag, _): &(&str, bool)| {
            let text = format!("{flag} needs the database, which {named_by} does not name: say --db PATH instead");
            Err(Error::Usage(text))
        };
        asked.iter().find(|(_, is_asked)| *is_asked).map_or(Ok(true), refuse)
    }
}

impl Verdict {
    fn database(&mut self, path: &Path, args: &CheckArgs) -> Result<(), Error> {
        let doing = || format!("look at the database {}", path.display());
        let Glance { due, oldest_ms, dead, wal_bytes } =
            offline::glance(path, LOOK).map_err(|error| Error::database(doing(), error))?;
        self.figure("due", due, "", args.due, |n| format!("{} due", output::count(n, "task is", "tasks are")));
        self.figure("age", oldest_ms, "ms", args.age, |ms| format!("the oldest has waited {}", when::span(ms)));
        self.figure("dead", dead, "", args.dead, |n| format!("{} dead", output::count(n, "task is", "tasks are")));
        self.figure("wal", wal_bytes, "B", args.wal_bytes, |n| format!("the write-ahead log has {n} bytes"));
        Ok(())
    }

    /// What the broker says; of the tasks only what no database told.
    fn broker(&mut self, stats: &StatsReport, args: &CheckArgs, is_alone: bool) {
        if is_alone {
            self.figure("queued", stats.queued, "", args.due, |n| {
                format!("{} queued", output::count(n, "task is", "tasks are"))
            });
            self.figure("dead", stats.dead, "", args.dead, |n| {
                format!("{} dead", output::count(n, "task is", "tasks are"))
            });
            self.figure("wal", stats.wal_bytes, "B", args.wal_bytes, |n| format!("the write-ahead log has {n} bytes"));
        }
        self.figure("running", stats.running, "", None, |n| format!("{n} running"));
        self.figure("workers", stats.workers, "", None, |n| output::count(n, "worker", "workers"));
        if let Some(error) = &stats.storage_error {
            self.find(Level::Critical, format!("the broker cannot write: {error}"));
        }
        if let Some(least) = args.workers.filter(|least| stats.workers < *least) {
            self.find(Level::Critical, format!("{} of {least} workers are connected", stats.workers));
        }
        if stats.draining {
            self.find(Level::Warning, "the broker drains: it hands out nothing".into());
        }
        if stats.quiet {
            self.find(Level::Warning, "the broker is quiet: it hands out nothing until SIGCONT".into());
        }
        if stats.wal_pinned_bytes > 0 {
            self.find(
                Level::Warning,
                format!("the write-ahead log has {} bytes{}", stats.wal_pinned_bytes, output::PINNED),
            );
        }
    }

    fn figure(
        &mut self,
        name: &'static str,
        value: u64,
        unit: &'static str,
        bounds: Option<Bounds>,
        say: impl Fn(u64) -> String,
    ) {
        let level = match bounds {
            Some(Bounds { critical: Some(critical), .. }) if value >= critical => Level::Critical,
            Some(Bounds { warn, .. }) if value >= warn => Level::Warning,
            _ => Level::Ok,
        };
        self.find(level, say(value));
        self.figures.push(Figure { name, value, unit, bounds });
    }

    fn find(&mut self, level: Level, what: String) {
        self.findings.push((level, what));
    }

    fn level(&self) -> Level {
        self.findings.iter().map(|(level, _)| *level).max().unwrap_or(Level::Unknown)
    }

    /// The worst first; what is well is said only when all is.
    fn told(&self) -> Vec<&str> {
        let worst = self.level();
        let mut told: Vec<&(Level, String)> =
            self.findings.iter().filter(|(level, _)| *level > Level::Ok || worst == Level::Ok).collect();
        told.sort_by_key(|(level, _)| std::cmp::Reverse(*level));
        told.into_iter().map(|(_, what)| what.as_str()).collect()
    }

    fn to_line(&self) -> String {
        let figures: Vec<String> = self.figures.iter().map(Figure::to_text).collect();
        let told = self.told().join(", ").replace('|', "/");
        let line = format!("LANEWAY {} - {told}", self.level().word());
        if figures.is_empty() { line } else { format!("{line} | {}", figures.join(" ")) }
    }

    fn to_json(&self) -> Value {
        let figures: Map<String, Value> =
            self.figures.iter().map(|figure| (figure.key(), json!(figure.value))).collect();
        json!({ "level": self.level().word(), "findings": self.told(), "figures": figures })
    }
}

impl Level {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

impl Figure {
    /// `age=1500ms;300000;3600000`
    fn to_text(&self) -> String {
        let Self { name, value, unit, bounds } = self;
        let bounds = bounds.map_or_else(String::new, |Bounds { warn, critical }| {
            format!(";{warn};{}", critical.map_or_else(String::new, |critical| critical.to_string()))
        });
        format!("{name}={value}{unit}{bounds}")
    }

    fn key(&self) -> String {
        match self.unit {
            "ms" => format!("{}_ms", self.name),
            "B" => format!("{}_bytes", self.name),
            _ => self.name.into(),
        }
    }
}

fn numbers(text: &str) -> Result<Bounds, String> {
    let number = |text: &str| text.parse::<u64>().map_err(|_| format!("'{text}' is not a whole number"));
    bounds(text, number)
}

fn ages(text: &str) -> Result<Bounds, String> {
    let millis = |text: &str| Ok(u64::try_from(when::duration(text)?.as_millis()).unwrap_or(u64::MAX));
    bounds(text, millis)
}

fn bounds(text: &str, read: impl Fn(&str) -> Result<u64, String>) -> Result<Bounds, String> {
    let (warn, critical) = match text.split_once(':') {
        Some((warn, critical)) => (read(warn)?, Some(read(critical)?)),
        None => (read(text)?, None),
    };
    match critical {
        Some(critical) if critical < warn => {
            Err(format!("'{text}': what is critical must not be less than the warning"))
        }
        _ => Ok(Bounds { warn, critical }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_and_refused() {
        let read = |warn, critical| Ok(Bounds { warn, critical });
        assert_eq!(numbers("5"), read(5, None));
        assert_eq!(numbers("5:9"), read(5, Some(9)));
        assert_eq!(ages("5m:1h"), read(300_000, Some(3_600_000)));
        for wrong in ["", "x", "9:5", "1:2:3", ":4"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
        assert!(ages("soon").is_err());
    }

    #[test]
    fn the_worst_finding_decides_and_comes_first() {
        // A figure is judged from its bound on; what is well is not said beside what is not.
        let mut verdict = Verdict::default();
        let bounds = Some(Bounds { warn: 10, critical: Some(20) });
        verdict.figure("due", 9, "", bounds, |n| format!("{n} due"));
        assert_eq!(verdict.to_line(), "LANEWAY OK - 9 due | due=9;10;20");
        verdict.figure("age", 10, "ms", bounds, |n| format!("age {n}"));
        assert_eq!(verdict.to_line(), "LANEWAY WARNING - age 10 | due=9;10;20 age=10ms;10;20");
        verdict.figure("dead", 20, "", bounds, |n| format!("{n} | dead"));
        assert_eq!(verdict.level(), Level::Critical);
        assert!(verdict.to_line().starts_with("LANEWAY CRITICAL - 20 / dead, age 10 | due="));
        assert_eq!(verdict.to_json()["figures"], json!({ "due": 9, "age_ms": 10, "dead": 20 }));
    }
}
