//! Tasks that come by INSERT through the SQLite that the system has, which may be years older than the broker's: one short
//! process of `sqlite3` or Python for each transaction.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::super::job::Job;
use super::{Desk, Pace, ms_from_now};

/// The most rows in one transaction.
const ROWS_MAX: u64 = 60;
const COMMITTED: &str = "committed";

/// Runs the statements that it gets on its input, one a line, and prints their first column.
const PYTHON: &str = "\
import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=60, isolation_level=None)
for line in sys.stdin:
    for row in db.execute(line):
        print(row[0])
";

/// A program with an SQLite of its own.
#[derive(Debug, Clone)]
pub(super) struct SystemSqlite {
    program: &'static str,
    version: String,
}

impl SystemSqlite {
    /// `sqlite3`, or else Python with its module, from the search path.
    pub(super) fn find() -> Option<Self> {
        let candidates: [(&str, &[&str]); 3] = [
            ("sqlite3", &["--version"]),
            ("/usr/bin/python3", &["-c", "import sqlite3; print(sqlite3.sqlite_version)"]),
            ("python3", &["-c", "import sqlite3; print(sqlite3.sqlite_version)"]),
        ];
        candidates.into_iter().find_map(|(program, words)| {
            let output = Command::new(program).args(words).stdin(Stdio::null()).output().ok()?;
            let version = String::from_utf8_lossy(&output.stdout).split_whitespace().next()?.to_owned();
            output.status.success().then_some(Self { program, version })
        })
    }

    /// Runs a script to its end. Gives what it printed.
    fn run(&self, db: &std::path::Path, script: &str) -> Result<String, String> {
        let mut command = Command::new(self.program);
        if self.program == "sqlite3" {
            command.args(["-batch", "-bail", "-cmd", ".timeout 60000"]).arg(db);
        } else {
            command.args(["-c", PYTHON]).arg(db);
        }
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        // It prints little and reads all: neither waits for the other. A pipe that breaks shows in its exit code.
        let written = child.stdin.take().map(|mut input| input.write_all(script.as_bytes()));
        let output = child.wait_with_output().map_err(|error| error.to_string())?;
        if !output.status.success() || !matches!(written, Some(Ok(()))) {
            return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

pub(super) fn described(system: Option<&SystemSqlite>) -> String {
    system.map_or_else(
        || "none found (no sqlite3, no Python with sqlite3): its share comes by this program's own".into(),
        |system| format!("SQLite {} of {}", system.version, system.program),
    )
}

pub(super) fn run(desk: &Desk, mut pace: Pace, system: &SystemSqlite) {
    loop {
        let jobs = pace.next(desk, ROWS_MAX);
        if jobs.is_empty() {
            return;
        }
        let said = system.run(&desk.db(), &script(&jobs));
        match said.as_deref().map(ids) {
            Ok(Some(ids)) if ids.len() == jobs.len() => desk.acknowledged(jobs.into_iter().zip(ids)),
            Ok(_) => desk.failed("an INSERT by the system's SQLite", jobs.iter().map(|job| job.number), &"no commit"),
            Err(error) => desk.failed("an INSERT by the system's SQLite", jobs.iter().map(|job| job.number), error),
        }
    }
}

/// One transaction, a statement on each line.
fn script(jobs: &[Job]) -> String {
    let mut script = "BEGIN IMMEDIATE;\n".to_owned();
    for job in jobs {
        let lane = job.lane.map_or_else(|| "NULL".into(), quoted);
        let number = |value: Option<String>| value.unwrap_or_else(|| "NULL".into());
        let max_attempts = number(job.max_attempts.map(|n| n.to_string()));
        let timeout_ms = number(job.timeout_ms.map(|ms| ms.to_string()));
        let run_at = number(job.delay_ms.map(|ms| ms_from_now(ms).to_string()));
        let (kind, payload) = (quoted(job.kind), quoted(&job.payload));
        // Writing to a String cannot fail. RETURNING is younger than some systems.
        writeln!(
            script,
            "INSERT INTO tasks (kind, lane, payload, max_attempts, timeout_ms, run_at) \
             VALUES ({kind}, {lane}, {payload}, {max_attempts}, {timeout_ms}, {run_at});\nSELECT last_insert_rowid();"
        )
        .ok();
    }
    writeln!(script, "COMMIT;\nSELECT '{COMMITTED}';").ok();
    script
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The ids that a script printed, `None` unless it got behind its COMMIT.
fn ids(said: &str) -> Option<Vec<i64>> {
    let mut lines: Vec<&str> = said.lines().collect();
    (lines.pop()? == COMMITTED).then(|| lines.iter().filter_map(|line| line.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_committed_is_acknowledged() {
        // Proves that ids from before a failed COMMIT count for nothing.
        assert_eq!(ids("4\n5\ncommitted\n"), Some(vec![4, 5]));
        assert_eq!(ids("4\n5\n"), None);
        assert_eq!(ids(""), None);
    }
}
