//! The table of an image, read by SQLite's own recovery, and whether it is whole whatever was promised.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::{Connection, Row};

use super::said::{By, origin};

/// What is in the database.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) tasks: HashMap<i64, TaskRow>,
    /// Task and run.
    pub(crate) failures: HashSet<(i64, u32)>,
    pub(crate) paused: HashMap<String, bool>,
    /// The newest.
    pub(crate) epoch: i64,
}

pub(crate) struct TaskRow {
    pub(crate) kind: String,
    pub(crate) state: String,
    pub(crate) payload: String,
    pub(crate) result: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) lease: Option<i64>,
    pub(crate) runs: u32,
    worker: Option<String>,
    pub(crate) cancel_requested: bool,
    pub(crate) unique_key: Option<String>,
}

impl TaskRow {
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state.as_str(), "done" | "dead" | "cancelled")
    }

    /// Its session, or nothing.
    pub(crate) fn worker(&self) -> &str {
        self.worker.as_deref().unwrap_or_default()
    }

    fn read(row: &Row<'_>) -> rusqlite::Result<(i64, Self)> {
        let task = Self {
            kind: row.get(1)?,
            state: row.get(2)?,
            payload: row.get(3)?,
            result: row.get(4)?,
            error: row.get(5)?,
            lease: row.get(6)?,
            runs: row.get(7)?,
            worker: row.get(8)?,
            cancel_requested: row.get(9)?,
            unique_key: row.get(10)?,
        };
        Ok((row.get(0)?, task))
    }
}

/// Opens the database as any app does, with what the loss of power left beside it. An error is a damaged database; without
/// a schema, whose transaction was lost, nothing is found.
pub(crate) fn read(database: &Path) -> Result<Found, String> {
    read_all(database).map_err(|error| format!("the database cannot be read: {error}"))?
}

fn read_all(database: &Path) -> rusqlite::Result<Result<Found, String>> {
    let table = Connection::open(database)?;
    let check: String = table.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    if check != "ok" {
        return Ok(Err(format!("integrity_check: {check}")));
    }
    let sql = "SELECT count(*) FROM sqlite_master WHERE name IN ('tasks', 'laneway_epochs')";
    if table.query_row(sql, [], |row| row.get::<_, i64>(0))? < 2 {
        return Ok(Ok(Found::default()));
    }
    let sql =
        "SELECT id, kind, state, payload, result, error, lease, runs, worker, cancel_requested, unique_key FROM tasks";
    Ok(Ok(Found {
        tasks: table.prepare(sql)?.query_map([], TaskRow::read)?.collect::<Result<_, _>>()?,
        failures: table
            .prepare("SELECT task, run FROM failures")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?,
        paused: table
            .prepare("SELECT name, paused FROM laneway_lanes")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
            .collect::<Result<_, _>>()?,
        epoch: table.query_row("SELECT coalesce(max(number), 0) FROM laneway_epochs", [], |row| row.get(0))?,
    }))
}

/// Whether no row is half, and no transaction.
pub(crate) fn is_whole(found: &Found) -> Result<(), String> {
    let mut groups: HashMap<(By, u64), (u64, u64)> = HashMap::new();
    for (id, task) in &found.tasks {
        let wrong = |what: &str| Err(format!("task {id}, {} and {}: {what}", task.kind, task.state));
        let (by, group, of) = origin(&task.payload).map_err(|error| format!("task {id}: {error}"))?;
        groups.entry((by, group)).or_insert((of, 0)).1 += 1;
        match task.state.as_str() {
            "done" if task.result.as_deref() != Some(&task.payload) => return wrong("its result is not its payload"),
            "dead" if task.error.is_none() => return wrong("it does not say why"),
            "running" | "done" if task.lease.is_none() || task.worker.is_none() => return wrong("nobody has run it"),
            _ => {}
        }
    }
    if let Some((group, (of, n))) = groups.iter().find(|(_, (of, n))| of != n) {
        return Err(format!("of the {of} tasks of group {group:?}, brought together, {n} are there"));
    }
    match found.failures.iter().find(|(task, _)| !found.tasks.contains_key(task)) {
        Some((task, _)) => Err(format!("a failure of task {task}, which is not there")),
        None => Ok(()),
    }
}
