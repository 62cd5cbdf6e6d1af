//! `laneway db`: the database file itself, without a broker.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::output::Table;
use super::remote::{self, Remote};
use super::{Common, Output, output, when};
use crate::error::Error;
use crate::store::offline::{self, DbStatus, LastEpoch};
use crate::store::{care, lock};

/// Create, upgrade, check, back up and look at the database file
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  laneway db status --db /srv/app/app.db")]
pub(super) enum DbCommand {
    /// Create the database, or bring an existing file's schema up to date
    #[command(after_help = "Example:\n  laneway db init --db /srv/app/app.db")]
    Init,
    /// Bring the schema of an existing database up to date; no broker may run on it
    #[command(after_help = "Example:\n  laneway db migrate --db /srv/app/app.db")]
    Migrate,
    /// Show the schema, the sizes, the number of tasks by state and the last broker
    ///
    /// When a broker runs, also whether its write-ahead log cannot shrink because a reader holds a transaction open.
    #[command(after_help = "Example:\n  laneway db status --db /srv/app/app.db")]
    Status,
    /// Look for damage: the file itself, references, the schema, what the rows promise; a broker may run meanwhile
    #[command(after_help = "Example:\n  laneway db check --db /srv/app/app.db")]
    Check,
    /// Write a verified copy of the whole database to FILE; a broker and apps may run meanwhile
    #[command(after_help = "Example:\n  laneway db backup --db /srv/app/app.db /backup/app.db")]
    Backup {
        /// Where the copy goes; it appears there whole or not at all
        file: PathBuf,
        /// Replace FILE when it is there already
        #[arg(long)]
        overwrite: bool,
    },
    /// Put a verified copy of FILE in the database's place and keep what was there beside it; no broker and no app may have
    /// the database open
    #[command(after_help = "Example:\n  laneway db restore --db /srv/app/app.db /backup/app.db")]
    Restore {
        /// A backup
        file: PathBuf,
    },
}

pub(super) fn run(common: &Common, command: &DbCommand) -> Result<(), Error> {
    let path = remote::db(common);
    if !path.exists() && !matches!(command, DbCommand::Init | DbCommand::Restore { .. }) {
        return Err(Error::NotFound(format!("there is no database {}; `laneway db init` makes one", path.display())));
    }
    let mut pinned = None;
    let (doing, status) = match command {
        DbCommand::Init => ("create", offline::init(&path)),
        DbCommand::Migrate => ("migrate", offline::migrate(&path)),
        DbCommand::Status => ("look at", offline::status(&path)),
        DbCommand::Check => return check(common, &path),
        DbCommand::Backup { file, overwrite } => return backup(common, &path, file, *overwrite),
        DbCommand::Restore { file } => return restore(common, &path, file),
    };
    let status = status.map_err(|error| Error::database(format!("{doing} the database {}", path.display()), error))?;
    if matches!(command, DbCommand::Status) {
        pinned = pinned_bytes(&status);
    }
    match common.output {
        Output::Json => output::json(&to_json(&status, pinned)),
        Output::Table => print(&status, pinned),
    }
}

/// Of a log that cannot shrink, as the broker says that runs on this database; only it looks for that. `None` when none runs, or none
/// that this machine reaches without keys by a socket file.
fn pinned_bytes(status: &DbStatus) -> Option<u64> {
    let epoch = status.last_epoch.as_ref().filter(|epoch| epoch.stopped_at.is_none())?;
    let endpoints = lock::endpoints(&status.path).into_iter().filter(|endpoint| endpoint.starts_with("ipc://"));
    let told = |endpoint: String| Remote::glance(&endpoint)?.stats().ok();
    let report = endpoints.filter_map(told).find(|report| report.epoch == epoch.number)?;
    Some(report.wal_pinned_bytes)
}

/// Prints every problem; ends with the exit code of the database when there is one.
fn check(common: &Common, path: &Path) -> Result<(), Error> {
    let doing = || format!("check the database {}", path.display());
    let problems = care::check(path).map_err(|error| Error::database(doing(), error))?;
    match common.output {
        Output::Json => output::json(&json!({ "path": path.display().to_string(), "problems": problems }))?,
        Output::Table if problems.is_empty() => output::line(&format!("{}: no problem found", path.display()))?,
        Output::Table => problems.iter().try_for_each(|problem| output::line(&output::clean(problem)))?,
    }
    if problems.is_empty() {
        return Ok(());
    }
    let found = output::count(problems.len() as u64, "problem", "problems");
    let advice = format!("{found} found; `laneway db restore` puts a backup in its place");
    Err(Error::database(format!("rely on the database {}", path.display()), advice))
}

fn backup(common: &Common, path: &Path, file: &Path, overwrite: bool) -> Result<(), Error> {
    let doing = || format!("back up the database {} to {}", path.display(), file.display());
    let bytes = care::backup(path, file, overwrite).map_err(|error| Error::database(doing(), error))?;
    match common.output {
        Output::Json => output::json(&json!({ "path": file.display().to_string(), "bytes": bytes })),
        Output::Table => output::line(&format!("{}: {} kB, verified", file.display(), bytes / 1_000)),
    }
}

fn restore(common: &Common, path: &Path, file: &Path) -> Result<(), Error> {
    if !file.exists() {
        return Err(Error::NotFound(format!("there is no backup {}", file.display())));
    }
    let doing = || format!("restore the database {} from {}", path.display(), file.display());
    let aside = care::restore(path, file).map_err(|error| Error::database(doing(), error))?;
    let aside = aside.map(|aside| aside.display().to_string());
    match common.output {
        Output::Json => output::json(&json!({ "path": path.display().to_string(), "aside": aside })),
        Output::Table => {
            let kept = aside.map_or_else(String::new, |aside| format!("; what was there is {aside}"));
            output::line(&format!("{}: restored from {}{kept}", path.display(), file.display()))
        }
    }
}

fn to_json(status: &DbStatus, pinned: Option<u64>) -> Value {
    let tasks: Map<String, Value> = status.rows.iter().map(|(state, n)| (state.clone(), json!(n))).collect();
    json!({
        "path": status.path.display().to_string(),
        "schema": status.schema,
        "schema_known": status.schema_known,
        "sqlite": status.sqlite,
        "bytes": status.bytes,
        "free_bytes": status.free_bytes,
        "wal_bytes": status.wal_bytes,
        "wal_pinned_bytes": pinned,
        "tasks": tasks,
        "last_epoch": status.last_epoch.as_ref().map(|epoch| json!({
            "number": epoch.number,
            "started_at": epoch.started_at,
            "stopped_at": epoch.stopped_at,
            "pid": epoch.pid,
            "host": epoch.host,
        })),
    })
}

fn print(status: &DbStatus, pinned: Option<u64>) -> Result<(), Error> {
    let mut table = Table::pairs();
    table.pair("path", &status.path.display());
    table.pair("schema", &schema(status));
    table.pair("sqlite", &status.sqlite);
    let held = if pinned.is_some_and(|bytes| bytes > 0) { output::PINNED } else { "" };
    table.pair("size", &format!("{} kB and {} kB of WAL{held}", status.bytes / 1_000, status.wal_bytes / 1_000));
    let free = match status.free_bytes {
        0 => "none: what is stored next makes the file grow".into(),
        free => format!("{} kB inside the file, used again before it grows", free / 1_000),
    };
    table.pair("free", &free);
    if let Some(epoch) = &status.last_epoch {
        table.pair("last broker", &last_broker(epoch));
    }
    for (state, n) in &status.rows {
        table.pair(state, n);
    }
    table.print()
}

fn schema(status: &DbStatus) -> String {
    let (found, known) = (status.schema, status.schema_known);
    match found {
        0 => "none: run laneway db init".into(),
        found if found < known => format!("{found}, this program has {known}: run laneway db migrate"),
        found if found > known => format!("{found}, this program knows {known}: use a newer laneway"),
        found => format!("{found}, up to date"),
    }
}

fn last_broker(epoch: &LastEpoch) -> String {
    let end = match epoch.stopped_at {
        Some(at) => format!("stopped {}", when::show(at)),
        None => "runs, or was killed".into(),
    };
    let LastEpoch { number, started_at, pid, host, .. } = epoch;
    format!("epoch {number}, pid {pid} on {host}, started {}, {end}", when::show(*started_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Exit;

    fn common(dir: &tempfile::TempDir) -> Common {
        Common { db: Some(dir.path().join("t.db")), endpoint: None, key: None, broker_key: None, output: Output::Json }
    }

    #[test]
    fn a_database_is_made_once_and_found_up_to_date() {
        // Proves the three commands on a new file: not there, made, up to date; making it again changes nothing.
        let dir = tempfile::tempdir().unwrap();
        let common = common(&dir);
        for command in [DbCommand::Status, DbCommand::Migrate] {
            assert_eq!(run(&common, &command).unwrap_err().exit(), Exit::NotFound);
        }
        for command in [DbCommand::Init, DbCommand::Init, DbCommand::Migrate, DbCommand::Status] {
            run(&common, &command).unwrap();
        }
        let status = offline::status(&dir.path().join("t.db")).unwrap();
        assert!(schema(&status).contains("up to date"));
        assert_eq!(to_json(&status, None)["tasks"], json!({}));
    }

    #[test]
    fn a_file_that_is_no_database_is_a_database_error() {
        // Proves that a wrong path is told by exit code and never overwritten.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let text =
            "this is a letter and not a database, and it is long enough for a header of 100 bytes or so. ".repeat(2);
        std::fs::write(&path, &text).unwrap();
        assert_eq!(run(&common(&dir), &DbCommand::Init).unwrap_err().exit(), Exit::Database);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
