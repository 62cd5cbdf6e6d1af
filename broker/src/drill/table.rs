//! The table as the audit reads it, once everything has ended: plain SQL, no code of the store.

use std::path::Path;

use rusqlite::{Connection, Row};

use super::job::number_in;
use crate::error::Error;

/// A row of `tasks`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TaskRow {
    pub(super) id: i64,
    /// The drill's own number of it, from its payload.
    pub(super) number: Option<u64>,
    pub(super) kind: String,
    pub(super) lane: Option<String>,
    pub(super) state: String,
    pub(super) payload: Option<String>,
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
    pub(super) unique_key: Option<String>,
    pub(super) runs: u32,
    pub(super) attempts: u32,
    pub(super) losses: u32,
    pub(super) releases: u32,
    pub(super) max_attempts: Option<u32>,
    pub(super) lease: Option<i64>,
    pub(super) worker: Option<String>,
    /// Unix milliseconds.
    pub(super) created_at: i64,
    pub(super) finished_at: Option<i64>,
}

/// A row of `failures`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FailureRow {
    pub(super) task: i64,
    pub(super) run: u32,
    pub(super) cause: String,
    pub(super) worker: Option<String>,
    /// When the run began by the broker's account, in Unix milliseconds.
    pub(super) started_at: Option<i64>,
    /// Unix milliseconds.
    pub(super) failed_at: i64,
}

pub(super) struct Table(Connection);

impl Table {
    pub(super) fn open(db: &Path) -> Result<Self, Error> {
        let open = || {
            let conn = Connection::open(db)?;
            conn.busy_timeout(std::time::Duration::from_mins(1))?;
            Ok(conn)
        };
        let failed = |error: rusqlite::Error| Error::database(format!("open {}", db.display()), error);
        open().map(Self).map_err(failed)
    }

    /// Rows that have not ended. Two small indexes know it, so it costs little beside a load.
    pub(super) fn n_open(&self) -> Result<u64, Error> {
        let sql = "SELECT (SELECT count(*) FROM tasks WHERE state = 'queued') \
                   + (SELECT count(*) FROM tasks WHERE state = 'running')";
        let n_open = self.0.prepare_cached(sql).and_then(|mut sql| sql.query_row((), |row| row.get::<_, i64>(0)));
        n_open.map(i64::unsigned_abs).map_err(|error| Error::database("count the open tasks", error))
    }

    pub(super) fn tasks(&self) -> Result<Vec<TaskRow>, Error> {
        let sql = "SELECT id, kind, lane, state, payload, result, error, unique_key, runs, attempts, losses, releases, \
                   max_attempts, lease, worker, created_at, finished_at FROM tasks ORDER BY id";
        self.read(sql, |row| {
            let payload: Option<String> = row.get(4)?;
            Ok(TaskRow {
                id: row.get(0)?,
                number: payload.as_deref().and_then(number_in),
                kind: row.get(1)?,
                lane: row.get(2)?,
                state: row.get(3)?,
                payload,
                result: row.get(5)?,
                error: row.get(6)?,
                unique_key: row.get(7)?,
                runs: row.get(8)?,
                attempts: row.get(9)?,
                losses: row.get(10)?,
                releases: row.get(11)?,
                max_attempts: row.get(12)?,
                lease: row.get(13)?,
                worker: row.get(14)?,
                created_at: row.get(15)?,
                finished_at: row.get(16)?,
            })
        })
    }

    pub(super) fn failures(&self) -> Result<Vec<FailureRow>, Error> {
        let sql = "SELECT task, run, cause, worker, started_at, failed_at FROM failures ORDER BY id";
        self.read(sql, |row| {
            let (task, run, cause, worker) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(FailureRow { task, run, cause, worker, started_at: row.get(4)?, failed_at: row.get(5)? })
        })
    }

    /// What SQLite finds wrong with the file itself; empty when nothing is.
    pub(super) fn damage(&self) -> Result<Vec<String>, Error> {
        let lines: Vec<String> = self.read("PRAGMA integrity_check(5)", |row| row.get(0))?;
        Ok(lines.into_iter().filter(|line| line != "ok").collect())
    }

    fn read<T>(&self, sql: &str, row: impl FnMut(&Row) -> rusqlite::Result<T>) -> Result<Vec<T>, Error> {
        let read = || self.0.prepare(sql)?.query_map((), row)?.collect::<rusqlite::Result<Vec<T>>>();
        read().map_err(|error| Error::database("read the table", error))
    }
}
