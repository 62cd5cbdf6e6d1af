//! The demo as an app: rows go in by plain SQL and everything it tells is read back from the table. Nothing here asks the
//! broker.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, Row, TransactionBehavior};

use super::count::{SHA256, WORDCOUNT};
use super::worker::FileTask;
use crate::error::Error;

/// The broker commits in between; each commit takes milliseconds.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// An app's connection to the database.
pub(super) struct Table {
    conn: Connection,
}

/// How many rows stand where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) low_done: usize,
    pub(super) high_done: usize,
    pub(super) queued: usize,
    pub(super) running: usize,
    /// Dead or cancelled.
    pub(super) ended_badly: usize,
    /// Runs whose worker died.
    pub(super) lost: usize,
}

/// A run whose worker died. Times are Unix milliseconds.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    pub(super) task: i64,
    pub(super) worker: Option<String>,
    pub(super) started_at: Option<i64>,
    /// When the broker took the task back.
    pub(super) at: i64,
}

/// A row of the table, as far as the demo tells about it. Times are Unix milliseconds.
#[derive(Debug, Clone)]
pub(super) struct TaskLine {
    pub(super) id: i64,
    pub(super) lane: String,
    pub(super) kind: String,
    pub(super) path: String,
    pub(super) state: String,
    pub(super) worker: Option<String>,
    pub(super) runs: u32,
    pub(super) attempts: u32,
    pub(super) losses: u32,
    pub(super) created_at: i64,
    pub(super) started_at: Option<i64>,
    pub(super) finished_at: Option<i64>,
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
}

const COLUMNS: &str = "id, lane, kind, payload, state, worker, runs, attempts, losses, created_at, started_at, finished_at, \
                       result, error";

impl Table {
    /// The broker has made the database already.
    pub(super) fn open(db: &Path) -> Result<Self, Error> {
        let open = || {
            let conn = Connection::open(db)?;
            conn.busy_timeout(BUSY_TIMEOUT)?;
            Ok(conn)
        };
        let failed = |error: rusqlite::Error| Error::database(format!("open {}", db.display()), error);
        open().map(|conn| Self { conn }).map_err(failed)
    }

    /// One row for each of `tasks`, kind and path, in one transaction. Gives the number of rows queued before.
    pub(super) fn insert<'a>(
        &mut self,
        lane: &str,
        tasks: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<usize, Error> {
        let insert = || {
            let insertion = self.conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let queued: u32 =
                insertion.query_row("SELECT count(*) FROM tasks WHERE state = 'queued'", (), |row| row.get(0))?;
            let mut row = insertion.prepare("INSERT INTO tasks(kind, lane, payload) VALUES (?1, ?2, ?3)")?;
            for (kind, path) in tasks {
                let payload = serde_json::json!({ "path": path }).to_string();
                row.execute((kind, lane, payload))?;
            }
            drop(row);
            insertion.commit()?;
            Ok(queued as usize)
        };
        insert().map_err(|error: rusqlite::Error| Error::database("insert the tasks", error))
    }

    pub(super) fn counts(&self) -> Result<Counts, Error> {
        let count = || {
            let mut counts = Counts::default();
            let mut groups =
                self.conn.prepare_cached("SELECT lane, state, count(*) FROM tasks GROUP BY lane, state")?;
            let mut rows = groups.query(())?;
            while let Some(row) = rows.next()? {
                let (lane, state): (String, String) = (row.get(0)?, row.get(1)?);
                let place = match (state.as_str(), lane.as_str()) {
                    ("done", "high") => &mut counts.high_done,
                    ("done", _) => &mut counts.low_done,
                    ("queued" | "waiting", _) => &mut counts.queued,
                    ("running", _) => &mut counts.running,
                    _ => &mut counts.ended_badly,
                };
                *place += row.get::<_, u32>(2)? as usize;
            }
            let mut lost = self.conn.prepare_cached("SELECT count(*) FROM failures WHERE cause = 'lost'")?;
            counts.lost = lost.query_row((), |row| row.get::<_, u32>(0))? as usize;
            Ok(counts)
        };
        count().map_err(|error: rusqlite::Error| Error::database("count the tasks", error))
    }

    /// The tasks that a session runs right now.
    pub(super) fn held_by(&self, session: &str) -> Result<Vec<i64>, Error> {
        let read = || {
            let sql = "SELECT id FROM tasks WHERE state = 'running' AND worker = ?1 ORDER BY id";
            self.conn.prepare_cached(sql)?.query_map([session], |row| row.get(0))?.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error: rusqlite::Error| Error::database("read the running tasks", error))
    }

    /// Every row there is.
    pub(super) fn all(&self) -> Result<Vec<TaskLine>, Error> {
        let read = || {
            let mut rows = self.conn.prepare(&format!("SELECT {COLUMNS} FROM tasks ORDER BY id"))?;
            rows.query_map((), task_line)?.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error: rusqlite::Error| Error::database("read the tasks", error))
    }

    pub(super) fn lost(&self) -> Result<Vec<Lost>, Error> {
        let read = || {
            let sql = "SELECT task, worker, started_at, failed_at FROM failures WHERE cause = 'lost' ORDER BY id";
            let lost = |row: &Row| {
                Ok(Lost { task: row.get(0)?, worker: row.get(1)?, started_at: row.get(2)?, at: row.get(3)? })
            };
            self.conn.prepare(sql)?.query_map((), lost)?.collect::<Result<Vec<_>, _>>()
        };
        read().map_err(|error: rusqlite::Error| Error::database("read the failures", error))
    }
}

fn task_line(row: &Row) -> rusqlite::Result<TaskLine> {
    let payload: String = row.get(3)?;
    let path = serde_json::from_str(&payload).map(|FileTask { path }| path.display().to_string());
    Ok(TaskLine {
        id: row.get(0)?,
        lane: row.get(1)?,
        kind: row.get(2)?,
        path: path.unwrap_or(payload),
        state: row.get(4)?,
        worker: row.get(5)?,
        runs: row.get(6)?,
        attempts: row.get(7)?,
        losses: row.get(8)?,
        created_at: row.get(9)?,
        started_at: row.get(10)?,
        finished_at: row.get(11)?,
        result: row.get(12)?,
        error: row.get(13)?,
    })
}

/// Two tasks for each file, in the order of the files.
pub(super) fn tasks(paths: &[String]) -> impl Iterator<Item = (&str, &str)> {
    paths.iter().flat_map(|path| [(SHA256, path.as_str()), (WORDCOUNT, path.as_str())])
}
