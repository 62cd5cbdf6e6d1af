//! What a drill tells at its end: tables for people, one JSON object for programs, and the verdict.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::audit::{Again, Cause, Evidence, Findings, Violation};
use super::job::Source;
use super::ledger::Ledger;
use super::table::TaskRow;
use crate::cli::output::{self, Table, count};
use crate::error::Error;

/// Violations that are printed; a number stands for the rest.
const LISTED_MAX: usize = 20;

pub(super) struct Report {
    seed: u64,
    lasted: Duration,
    /// What inserted as another SQLite.
    system: String,
    faults: [(&'static str, usize); 4],
    promised: [(&'static str, usize); 5],
    findings: Findings,
    /// Each cause of a repeat, with a row that shows it.
    examples: Vec<(Cause, Again, String)>,
}

impl Report {
    pub(super) fn new(
        seed: u64,
        lasted: Duration,
        system: String,
        evidence: &Evidence,
        ledger: &Ledger,
        findings: Findings,
    ) -> Self {
        let done = &evidence.faults;
        let faults = [
            ("broker_kills", done.broker_kills_us.len()),
            ("broker_stops", done.broker_stops.len()),
            ("worker_kills", done.worker_kills()),
            ("worker_stops", done.worker_stops()),
        ];
        let promised = [
            ("acknowledged", ledger.tasks.len()),
            ("keys_met", ledger.met.len()),
            ("cancels", ledger.cancels.len()),
            ("calls", ledger.calls.len()),
            ("ends_seen", ledger.seen.len()),
        ];
        let example = |(cause, again): (&Cause, &Again)| {
            let row = evidence.rows.get(&again.example).map_or_else(String::new, counters);
            (*cause, *again, row)
        };
        let examples = findings.again.iter().map(example).collect();
        Self { seed, lasted, system, faults, promised, findings, examples }
    }

    /// Whether every promise was kept.
    pub(super) fn is_well(&self) -> bool {
        self.findings.violations.is_empty()
    }

    /// Fails when a promise was not kept.
    pub(super) fn verdict(&self) -> Result<(), Error> {
        let n = self.findings.violations.len() as u64;
        if n == 0 {
            return Ok(());
        }
        Err(Error::TaskFailed(format!(
            "{}; seed {}",
            count(n, "promise was not kept", "promises were not kept"),
            self.seed
        )))
    }

    pub(super) fn print(&self, as_json: bool, kept: Option<&Path>) -> Result<(), Error> {
        if as_json {
            return output::json(&self.json(kept));
        }
        self.print_faults()?;
        self.print_sources()?;
        self.print_again()?;
        self.print_counters(kept)?;
        for violation in self.findings.violations.iter().take(LISTED_MAX) {
            output::line(&violation.line())?;
        }
        let rest = self.findings.violations.len().saturating_sub(LISTED_MAX);
        if rest > 0 {
            output::line(&format!("and {rest} more"))?;
        }
        if self.is_well() {
            output::line("every acknowledged task is in the table, has ended once, and each repeat has its cause")?;
        }
        Ok(())
    }

    // ------------------------------------------------------------------------------------------------------- private

    fn print_faults(&self) -> Result<(), Error> {
        let [broker_kills, broker_stops, worker_kills, worker_stops] = self.faults.map(|(_, n)| n as u64);
        let killed = format!(
            "{} and {} by kill -9",
            count(broker_kills, "broker", "brokers"),
            count(worker_kills, "worker", "workers")
        );
        let times = |n| count(n, "time", "times");
        let mut table = Table::pairs();
        table.pair("seed", &self.seed);
        table.pair("lasted", &format!("{} s", self.lasted.as_secs()));
        table.pair("killed", &killed);
        table.pair("held still", &format!("the broker {}, workers {}", times(broker_stops), times(worker_stops)));
        table.pair("other SQLite", &self.system);
        table.print()?;
        output::line("")
    }

    fn print_sources(&self) -> Result<(), Error> {
        let mut table = Table::new(&["BROUGHT BY", "IN", "DONE", "DEAD", "CANCELLED"]);
        let mut row = |name: &str, counts: [u64; 4]| {
            table.row(std::iter::once(name.to_owned()).chain(counts.map(|n| n.to_string())));
        };
        for source in Source::ALL {
            row(source.name(), self.findings.sources.get(&source).copied().unwrap_or_default());
        }
        row("all", self.all());
        table.print()?;
        output::line("")
    }

    fn print_again(&self) -> Result<(), Error> {
        let mut table = Table::new(&["EXECUTED AGAIN BECAUSE", "TIMES", "TASKS", "SUCH A ROW"]);
        for (cause, again, row) in &self.examples {
            table.row([cause.text().into(), again.times.to_string(), again.tasks.to_string(), row.clone()]);
        }
        table.print()?;
        output::line("")
    }

    fn print_counters(&self, kept: Option<&Path>) -> Result<(), Error> {
        let totals = &self.findings.totals;
        let [acknowledged, met, cancels, calls, seen] = self.promised.map(|(_, n)| n);
        let mut table = Table::pairs();
        table.pair("executions", &self.findings.executions);
        table.pair(
            "hand-outs",
            &format!(
                "{} = {} attempts + {} losses + {} releases + {} not received or nobody's fault",
                totals.runs, totals.attempts, totals.losses, totals.releases, totals.uncounted
            ),
        );
        table.pair("dead by losses", &totals.dead_by_losses);
        table.pair(
            "overtaken",
            &format!("{} runs, by a cancel and a kill of the broker before they were recorded", totals.overtaken),
        );
        table.pair("promised", &format!("{acknowledged} ids, {met} keys that were taken, {calls} results"));
        table.pair("also", &format!("{cancels} cancels asked for, {seen} ended rows looked at earlier"));
        if let Some(kept) = kept {
            table.pair("files", &kept.display());
        }
        table.print()?;
        output::line("")
    }

    fn json(&self, kept: Option<&Path>) -> Value {
        let object = |pairs: &[(&str, usize)]| -> Value {
            Value::Object(pairs.iter().map(|(name, n)| ((*name).to_owned(), json!(n))).collect())
        };
        let source =
            |counts: [u64; 4]| json!({"in": counts[0], "done": counts[1], "dead": counts[2], "cancelled": counts[3]});
        let totals = &self.findings.totals;
        json!({
            "ok": self.is_well(),
            "seed": self.seed,
            "seconds": self.lasted.as_secs(),
            "faults": object(&self.faults),
            "promised": object(&self.promised),
            "system_sqlite": self.system,
            "tasks": source(self.all()),
            "sources": self.findings.sources.iter().map(|(from, counts)| (from.name().to_owned(), source(*counts)))
                .collect::<serde_json::Map<_, _>>(),
            "executions": self.findings.executions,
            "again": self.examples.iter().map(|(cause, again, _)| {
                json!({"cause": cause.text(), "times": again.times, "tasks": again.tasks, "example": again.example})
            }).collect::<Vec<_>>(),
            "runs": totals.runs,
            "attempts": totals.attempts,
            "losses": totals.losses,
            "releases": totals.releases,
            "uncounted": totals.uncounted,
            "overtaken_by_cancel": totals.overtaken,
            "dead_by_losses": totals.dead_by_losses,
            "violations": self.findings.violations.iter().map(|violation| {
                json!({"rule": violation.rule, "task": violation.task, "text": violation.text})
            }).collect::<Vec<_>>(),
            "files": kept.map(|kept| kept.display().to_string()),
        })
    }

    /// In, done, dead, cancelled, of all sources.
    fn all(&self) -> [u64; 4] {
        self.findings.sources.values().fold([0; 4], |mut all, counts| {
            all.iter_mut().zip(counts).for_each(|(all, n)| *all += n);
            all
        })
    }
}

impl Violation {
    fn line(&self) -> String {
        let task = self.task.map_or_else(String::new, |task| format!(" (task {task})"));
        output::clean(&format!("NOT KEPT: {}{task}: {}", self.rule, self.text))
    }
}

/// How a row accounts for its hand-outs.
fn counters(row: &TaskRow) -> String {
    let TaskRow { id, state, runs, attempts, losses, releases, .. } = row;
    format!("task {id} {state}: runs {runs}, attempts {attempts}, losses {losses}, releases {releases}")
}
